//! HTTP/1.1 as it goes over the wire: requests written out byte for byte, for clients whose every byte counts.

use reqwest::StatusCode;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::api::{Client, Reply};

impl Client {
    /// Sends these lines and nothing else, each with CRLF at its end, and answers with what comes back until
    /// the API closes. The first line that is empty ends the head; what is behind it is the body, as it stands.
    /// A `Host`, a `Connection: close` and, for a body, its `Content-Length` are added to the head, unless it
    /// says that the body is chunked.
    pub async fn raw(&self, request: &str) -> Reply {
        let (head, body) = request.split_once("\n\n").unwrap_or((request.trim_end(), ""));
        self.raw_bytes(head, body.as_bytes()).await
    }

    /// The same with a body that may be any bytes.
    pub async fn raw_bytes(&self, head: &str, body: &[u8]) -> Reply {
        let host = self.base().trim_start_matches("http://");
        let mut start = format!("{}\r\nHost: {host}\r\nConnection: close\r\n", head.replace('\n', "\r\n"));
        let is_chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
        if !is_chunked && !body.is_empty() {
            start.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        let body = if is_chunked { chunks(body) } else { body.to_owned() };
        self.raw_whole(&[start.as_bytes(), b"\r\n", &body].concat()).await
    }

    /// Sends these bytes, a request that closes its connection, and answers with what comes back.
    pub async fn raw_whole(&self, request: &[u8]) -> Reply {
        let host = self.base().trim_start_matches("http://");
        let mut stream = TcpStream::connect(host).await.expect("the API listens");
        // What the API does not want to read it may answer before.
        let _ = stream.write_all(request).await;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.expect("the API answers");
        let first_line = request.split(|byte| *byte == b'\r').next().unwrap_or_default();
        read(&answer, &String::from_utf8_lossy(first_line))
    }
}

/// A body in two chunks.
fn chunks(body: &[u8]) -> Vec<u8> {
    let (one, two) = body.split_at(body.len() / 2);
    let mut chunks = Vec::with_capacity(body.len() + 32);
    for chunk in [one, two].into_iter().filter(|chunk| !chunk.is_empty()) {
        chunks.extend(format!("{:x}\r\n", chunk.len()).into_bytes());
        chunks.extend([chunk, b"\r\n"].concat());
    }
    chunks.extend(b"0\r\n\r\n");
    chunks
}

fn read(answer: &[u8], asked: &str) -> Reply {
    let text = String::from_utf8_lossy(answer);
    let (head, body) =
        text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{asked}: no answer, but {text:?}"));
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).unwrap_or_default();
    let headers: HeaderMap = lines
        .filter_map(|line| line.split_once(": "))
        .filter_map(|(name, value)| {
            Some((name.parse::<HeaderName>().ok()?, HeaderValue::from_str(value).ok()?))
        })
        .collect();
    assert!(!headers.contains_key("transfer-encoding"), "{asked}: answers are of known length");
    Reply {
        status: status.parse::<StatusCode>().unwrap_or_else(|_| panic!("{asked}: no status in {head:?}")),
        headers,
        json: serde_json::from_str(body).unwrap_or_default(),
        text: body.to_owned(),
        asked: asked.to_owned(),
    }
}
