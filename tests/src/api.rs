//! A client of the API: a base URL, a key, and JSON in and out.

use std::sync::LazyLock;

use reqwest::header::HeaderMap;
use reqwest::{Method, StatusCode};
use serde_json::Value;

/// The HTTP client that all of the harness uses.
pub(crate) fn http() -> reqwest::Client {
    static PROVIDER: LazyLock<()> = LazyLock::new(|| {
        // Another part of the process may have been first.
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
    LazyLock::force(&PROVIDER);
    reqwest::Client::builder().no_proxy().build().expect("a client without special wishes")
}

/// The API, as seen by one key.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    base: String,
    key: Option<String>,
    key_id: Option<String>,
}

/// What the API answered.
#[derive(Debug, Clone)]
pub struct Reply {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body as JSON; null where it is none.
    pub json: Value,
    /// The body as text.
    pub text: String,
    pub(crate) asked: String,
}

impl Client {
    /// A client of the API at `base` (no slash at the end), with this key.
    #[must_use]
    pub fn new(base: &str, key: Option<&str>) -> Self {
        Self { http: http(), base: base.to_owned(), key: key.map(str::to_owned), key_id: None }
    }

    /// The same API by another key, or by none.
    #[must_use]
    pub fn with_key(&self, key: Option<&str>) -> Self {
        Self { key: key.map(str::to_owned), key_id: None, ..self.clone() }
    }

    /// The same API by a key whose id is known: as it was answered when the key was made.
    #[must_use]
    pub fn with_made_key(&self, made: &Value) -> Self {
        let text = |member: &str| made[member].as_str().map(str::to_owned);
        Self { key: text("key"), key_id: text("id"), ..self.clone() }
    }

    /// The key, if it has one.
    #[must_use]
    pub fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }

    /// The key's id, where it is known.
    #[must_use]
    pub fn key_id(&self) -> Option<&str> {
        self.key_id.as_deref()
    }

    /// Where the API is.
    #[must_use]
    pub fn base(&self) -> &str {
        &self.base
    }

    /// A request with the key, to be built further.
    pub fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.base));
        match &self.key {
            Some(key) => request.bearer_auth(key),
            None => request,
        }
    }

    /// Sends it.
    pub async fn send(&self, request: reqwest::RequestBuilder) -> Reply {
        self.try_send(request).await.expect("the API answers")
    }

    /// Sends it, and answers with the response whose body may have no end.
    pub async fn open(&self, request: reqwest::RequestBuilder) -> reqwest::Response {
        request.send().await.expect("the API answers")
    }

    /// Sends it to an API that may be away.
    pub async fn try_send(&self, request: reqwest::RequestBuilder) -> reqwest::Result<Reply> {
        let request = request.build()?;
        let asked = format!("{} {}", request.method(), request.url().path());
        let response = self.http.execute(request).await?;
        let (status, headers) = (response.status(), response.headers().clone());
        let text = String::from_utf8_lossy(&response.bytes().await?).into_owned();
        let json = serde_json::from_str(&text).unwrap_or_default();
        Ok(Reply { status, headers, json, text, asked })
    }

    /// GET.
    pub async fn get(&self, path: &str) -> Reply {
        self.send(self.request(Method::GET, path)).await
    }

    /// DELETE.
    pub async fn delete(&self, path: &str) -> Reply {
        self.send(self.request(Method::DELETE, path)).await
    }

    /// POST of JSON.
    pub async fn post(&self, path: &str, json: &Value) -> Reply {
        self.body(Method::POST, path, "application/json", json.to_string()).await
    }

    /// PATCH of JSON.
    pub async fn patch(&self, path: &str, json: &Value) -> Reply {
        self.body(Method::PATCH, path, "application/json", json.to_string()).await
    }

    /// Any body of any type.
    pub async fn body(
        &self,
        method: Method,
        path: &str,
        content_type: &str,
        body: impl Into<reqwest::Body>,
    ) -> Reply {
        self.send(self.request(method, path).header("content-type", content_type).body(body)).await
    }
}

impl Reply {
    /// The JSON of an answer with this status; fails the test on any other.
    #[track_caller]
    #[must_use]
    pub fn expect(self, status: u16) -> Value {
        assert_eq!(self.status.as_u16(), status, "{}: {}", self.asked, self.text);
        self.json
    }

    /// The problem of an answer with this status, whose form is checked: RFC 9457, a sentence.
    #[track_caller]
    #[must_use]
    pub fn problem(self, status: u16) -> String {
        assert_eq!(self.status.as_u16(), status, "{}: {}", self.asked, self.text);
        let content_type = self.headers.get("content-type").and_then(|value| value.to_str().ok());
        assert_eq!(content_type, Some("application/problem+json"), "{}: {}", self.asked, self.text);
        assert_eq!(self.json["status"], status, "{}: {}", self.asked, self.text);
        let detail = self.json["detail"].as_str().unwrap_or_default();
        assert!(!detail.is_empty(), "{}: no detail in {}", self.asked, self.text);
        detail.to_owned()
    }
}
