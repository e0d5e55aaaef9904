//! The five platforms side by side: the form in which a client of each shows its key, its routes, and its way to say
//! that a request failed.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use cuewire_tests::{Client, Reply};
use serde_json::{Value, json};

/// A platform whose dialect is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Platform {
    Millicast,
    Aioz,
    Iconik,
    Quortex,
    Omegastream,
}

/// A route as the platform's documentation has it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Route {
    pub(crate) method: &'static str,
    /// Below the platform's mount, and without a slash at its end. `{id}` stands for a webhook's id, `{event}` for an
    /// event's.
    pub(crate) path: &'static str,
    /// What a client sends; empty: nothing. `{url}` stands for a receiver's.
    pub(crate) body: &'static str,
    /// Of success.
    pub(crate) status: u16,
    pub(crate) right: Right,
}

/// Who may use a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Right {
    /// Everybody of the organization.
    Read,
    /// Editors and admins.
    Write,
    /// Whoever knows a key, which is in the body.
    Anybody,
}

const fn reads(method: &'static str, path: &'static str, status: u16) -> Route {
    Route { method, path, body: "", status, right: Right::Read }
}

const fn writes(method: &'static str, path: &'static str, body: &'static str, status: u16) -> Route {
    Route { method, path, body, status, right: Right::Write }
}

/// In each table the first route makes a webhook, and those that delete come last.
const MILLICAST: [Route; 6] = [
    writes("POST", "/api/webhooks", r#"{"url":"{url}","isFeedHooks":true}"#, 200),
    reads("GET", "/api/webhooks/{id}", 200),
    reads("GET", "/api/webhooks/list", 200),
    writes("PUT", "/api/webhooks/{id}", r#"{"isMediaHooks":true,"filter":"^live"}"#, 200),
    writes("POST", "/api/webhooks/test/{type}", r#"{"webhookType":"Feeds","streamName":"live"}"#, 200),
    writes("DELETE", "/api/webhooks/{id}", "", 200),
];

const AIOZ: [Route; 7] = [
    writes("POST", "/api/webhooks", r#"{"url":"{url}","name":"Test Webhook","encoding_finished":true}"#, 201),
    reads("GET", "/api/webhooks", 200),
    reads("GET", "/api/webhooks/{id}", 200),
    writes("PATCH", "/api/webhooks/{id}", r#"{"url":"{url}","encoding_failed":true}"#, 200),
    writes("PUT", "/api/webhooks/{id}", r#"{"url":"{url}","name":"Renamed"}"#, 200),
    writes("POST", "/api/webhooks/check/{id}", "", 200),
    writes("DELETE", "/api/webhooks/{id}", "", 200),
];

const ICONIK: [Route; 5] = [
    writes("POST", "/API/notifications/v1/webhooks", r#"{"event_type":"assets","url":"{url}"}"#, 201),
    reads("GET", "/API/notifications/v1/webhooks", 200),
    reads("GET", "/API/notifications/v1/webhooks/{id}", 200),
    writes("PUT", "/API/notifications/v1/webhooks/{id}", r#"{"operation":"UPDATE","realm":"metadata"}"#, 200),
    writes("DELETE", "/API/notifications/v1/webhooks/{id}", "", 204),
];

const QUORTEX: [Route; 9] = [
    writes("POST", "/1.0/organization/webhooks", r#"{"name":"Alerts","type":"raw","url":"{url}"}"#, 201),
    reads("GET", "/1.0/organization/webhooks", 200),
    reads("GET", "/1.0/organization/webhooks/{id}", 200),
    writes("PUT", "/1.0/organization/webhooks/{id}", r#"{"name":"All","type":"raw","url":"{url}"}"#, 200),
    writes("PATCH", "/1.0/organization/webhooks/{id}", r#"{"category":["input","pool"]}"#, 200),
    reads("GET", "/1.0/events", 200),
    Route {
        method: "POST",
        path: "/1.0/token",
        body: r#"{"api_key_secret":"{key}"}"#,
        status: 201,
        right: Right::Anybody,
    },
    writes("DELETE", "/1.0/organization/webhooks/{id}", "", 204),
    writes("DELETE", "/1.0/organization/webhooks", "", 204),
];

const OMEGASTREAM: [Route; 8] = [
    writes("POST", "/company/client/webhooks", r#"{"url":"{url}","events":["video.uploaded"]}"#, 200),
    writes("GET", "/company/client/webhooks", r#"{"url":"{url}","events":["video.deleted"]}"#, 200),
    reads("GET", "/company/client/webhooks/all", 200),
    writes("PUT", "/company/client/webhooks/{id}", r#"{"description":"Videos"}"#, 200),
    writes("POST", "/company/client/webhooks/{id}/status", r#"{"active":true}"#, 200),
    reads("GET", "/company/client/webhooks/{id}", 200),
    reads("GET", "/company/client/webhooks/{id}/events/{event}", 200),
    writes("DELETE", "/company/client/webhooks/{id}", "", 200),
];

impl Platform {
    pub(crate) const ALL: [Self; 5] =
        [Self::Millicast, Self::Aioz, Self::Iconik, Self::Quortex, Self::Omegastream];

    /// As its path and its format have it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Millicast => "millicast",
            Self::Aioz => "aioz",
            Self::Iconik => "iconik",
            Self::Quortex => "quortex",
            Self::Omegastream => "omegastream",
        }
    }

    pub(crate) fn routes(self) -> &'static [Route] {
        match self {
            Self::Millicast => &MILLICAST,
            Self::Aioz => &AIOZ,
            Self::Iconik => &ICONIK,
            Self::Quortex => &QUORTEX,
            Self::Omegastream => &OMEGASTREAM,
        }
    }

    /// The route that lists the webhooks.
    pub(crate) fn list(self) -> &'static Route {
        let lists = |route: &&Route| route.right == Right::Read && !route.names_one();
        self.routes().iter().find(lists).expect("every platform lists")
    }

    /// A type of events that a webhook takes which the first route makes.
    pub(crate) fn event_type(self) -> &'static str {
        match self {
            Self::Millicast => "feeds.started",
            Self::Aioz => "encoding.finished",
            Self::Iconik => "assets.update",
            Self::Quortex => "input.status_change",
            Self::Omegastream => "video.uploaded",
        }
    }

    /// The lines of a request's head that show a key, in the platform's form: the first that its documentation has.
    pub(crate) async fn key_lines(self, client: &Client) -> String {
        let key = client.key().unwrap_or("none");
        let id = client.key_id().unwrap_or("none");
        match self {
            Self::Millicast | Self::Omegastream => format!("Authorization: Bearer {key}"),
            Self::Aioz => format!("Authorization: Basic {}", BASE64.encode(format!("{id}:{key}"))),
            Self::Iconik => format!("App-ID: {id}\nAuth-Token: {key}"),
            Self::Quortex => {
                let token = ask_for_token(client, &json!({"api_key_secret": key}).to_string()).await;
                format!("Authorization: Bearer {}", token.json["access_token"].as_str().unwrap_or("none"))
            }
        }
    }

    /// The platform as a client speaks to it by this key.
    pub(crate) async fn by(self, client: &Client) -> Caller {
        Caller { platform: self, client: client.clone(), head: self.key_lines(client).await }
    }

    /// The id that an answer has which shows a webhook.
    pub(crate) fn id_of(self, answer: &Value) -> String {
        let id = match self {
            Self::Millicast => &answer["data"]["id"],
            Self::Aioz => &answer["data"]["webhook"]["id"],
            Self::Iconik | Self::Omegastream => &answer["id"],
            Self::Quortex => &answer["uuid"],
        };
        id.as_str().map_or_else(|| id.to_string(), str::to_owned)
    }

    /// The id by which it knows a native webhook.
    pub(crate) fn id_of_native(self, webhook: &Value) -> String {
        let id = webhook["id"].as_str().unwrap();
        match self {
            Self::Millicast => webhook["number"].to_string(),
            Self::Omegastream => id.replace('-', "")[..24].to_owned(),
            Self::Aioz | Self::Iconik | Self::Quortex => id.to_owned(),
        }
    }

    /// The sentence of an answer that says in the platform's own envelope, and in nothing else, that a request failed
    /// with this status.
    #[track_caller]
    pub(crate) fn failed(self, reply: Reply, status: u16) -> String {
        let Reply { status: answered, headers, json: body, text, .. } = reply;
        let what = format!("{self:?}: {answered}: {text}");
        assert_eq!(answered.as_u16(), status, "{what}");
        let content_type = headers.get("content-type").and_then(|value| value.to_str().ok());
        assert_eq!(content_type, Some("application/json"), "{what}");
        let (sentence, envelope) = match self {
            Self::Millicast if status >= 500 => (
                body["message"].as_str(),
                json!({"status": "error", "message": body["message"], "code": status, "data": {}}),
            ),
            Self::Millicast => {
                let mut data = json!({"message": body["data"]["message"]});
                if let Some(errors) = body["data"].get("errors") {
                    let is_list = |list: &Value| list.as_array().is_some_and(|it| it.iter().all(is_sentence));
                    assert!(status == 400 && errors.as_object().unwrap().values().all(is_list), "{what}");
                    data["errors"] = errors.clone();
                }
                (body["data"]["message"].as_str(), json!({"status": "fail", "data": data}))
            }
            Self::Aioz => (body["message"].as_str(), json!({"message": body["message"], "status": "fail"})),
            Self::Iconik => {
                let errors = &body["errors"];
                let by_field = errors.as_object().and_then(|fields| fields.values().next());
                assert!(errors.as_object().is_none_or(|all| all.values().all(is_sentence)), "{what}");
                assert!(errors.as_array().is_none_or(|all| all.len() == 1), "{what}");
                (by_field.unwrap_or(&errors[0]).as_str(), json!({"errors": errors}))
            }
            Self::Quortex => (body["detail"].as_str(), json!({"detail": body["detail"]})),
            Self::Omegastream => (body["message"].as_str(), json!({"message": body["message"]})),
        };
        assert_eq!(body, envelope, "{what}");
        let sentence = sentence.unwrap_or_default();
        assert!(!sentence.is_empty() && !sentence.contains("/docs"), "{what}");
        sentence.to_owned()
    }
}

fn is_sentence(text: &Value) -> bool {
    text.as_str().is_some_and(|text| !text.is_empty())
}

/// The first request of every client of Quortex I/O.
pub(crate) async fn ask_for_token(client: &Client, body: &str) -> Reply {
    let head = "POST /platforms/quortex/1.0/token/ HTTP/1.1\nContent-Type: application/json";
    client.raw(&format!("{head}\n\n{body}")).await
}

/// A platform's API, as a client speaks to it by one key.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    pub(crate) platform: Platform,
    pub(crate) client: Client,
    /// Shows the key.
    pub(crate) head: String,
}

impl Caller {
    /// Sends a request of this line and body, which is JSON unless it is empty.
    pub(crate) async fn call(&self, line: &str, body: &str) -> Reply {
        let content_type = if body.is_empty() { "" } else { "\nContent-Type: application/json" };
        self.with_headers(line, content_type, body).await
    }

    /// Sends a request of this line, with these further lines of its head, each with a line end before it.
    pub(crate) async fn with_headers(&self, line: &str, headers: &str, body: &str) -> Reply {
        self.client.raw(&format!("{line} HTTP/1.1\n{}{headers}\n\n{body}", self.head)).await
    }

    /// The answer to a GET of this path.
    pub(crate) async fn get(&self, path: &str) -> Value {
        self.call(&format!("GET {path}"), "").await.expect(200)
    }

    /// Uses a route for these things.
    pub(crate) async fn follow(&self, route: &Route, things: &Things) -> Reply {
        self.call(&route.line(self.platform, things), &things.put_into(route.body, &self.client)).await
    }

    /// Makes a webhook whose deliveries go to this URL, by the platform's first route.
    pub(crate) async fn make(&self, url: &str) -> Things {
        let route = &self.platform.routes()[0];
        let things = Things { url: url.to_owned(), ..Things::default() };
        let made = self.follow(route, &things).await.expect(route.status);
        Things { id: self.platform.id_of(&made), ..things }
    }

    /// Expects the platform's own way to say that the request failed.
    #[track_caller]
    pub(crate) fn failed(&self, reply: Reply, status: u16) -> String {
        self.platform.failed(reply, status)
    }
}

/// What routes are used for: the ids and the URL that stand in them.
#[derive(Debug, Clone)]
pub(crate) struct Things {
    pub(crate) id: String,
    pub(crate) event: String,
    pub(crate) url: String,
}

impl Default for Things {
    fn default() -> Self {
        Self { id: String::new(), event: "0".repeat(24), url: "http://127.0.0.1:9/".to_owned() }
    }
}

impl Things {
    /// In the place of what stands for them.
    pub(crate) fn put_into(&self, text: &str, client: &Client) -> String {
        let key = client.key().unwrap_or("none");
        self.put_into_path(text).replace("{url}", &self.url).replace("{key}", key)
    }

    fn put_into_path(&self, text: &str) -> String {
        text.replace("{id}", &self.id).replace("{event}", &self.event).replace("{type}", "Feeds")
    }
}

impl Route {
    /// The path with these things.
    pub(crate) fn at(&self, platform: Platform, things: &Things) -> String {
        format!("/platforms/{}{}", platform.name(), things.put_into_path(self.path))
    }

    /// A request's line.
    pub(crate) fn line(&self, platform: Platform, things: &Things) -> String {
        format!("{} {}", self.method, self.at(platform, things))
    }

    /// Whether it names a webhook.
    pub(crate) fn names_one(&self) -> bool {
        self.path.contains("{id}")
    }
}
