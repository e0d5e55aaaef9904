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
        let host = self.base().trim_start_matches("http://");
        let mut bytes = format!("{}\r\nHost: {host}\r\nConnection: close\r\n", head.replace('\n', "\r\n"));
        if head.to_ascii_lowercase().contains("transfer-encoding: chunked") {
            bytes.push_str(&format!("\r\n{}", chunks(body)));
        } else if body.is_empty() {
            bytes.push_str("\r\n");
        } else {
            bytes.push_str(&format!("Content-Length: {}\r\n\r\n{body}", body.len()));
        }
        self.raw_bytes(bytes.as_bytes()).await
    }

    /// Sends these bytes, a request that closes its connection, and answers with what comes back.
    pub async fn raw_bytes(&self, request: &[u8]) -> Reply {
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
fn chunks(body: &str) -> String {
    let (one, two) = body.split_at(body.floor_char_boundary(body.len() / 2));
    let chunk =
        |text: &str| if text.is_empty() { String::new() } else { format!("{:x}\r\n{text}\r\n", text.len()) };
    format!("{}{}0\r\n\r\n", chunk(one), chunk(two))
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
