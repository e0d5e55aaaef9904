//! Random requests, from fixed seeds, to every route of every platform: never a fault of ours, never an envelope of
//! anybody else.

use cuewire_tests::system::test;
use cuewire_tests::{Organization, Reply};
use serde_json::{Map, Value};

use crate::platform::{Caller, Platform, Right, Route, Things};

/// Requests to each platform.
const REQUESTS: usize = 1_000;
/// Values that a careless reader would stumble over.
const TEXTS: &str = "\n \nhttp://127.0.0.1:9/\nhttp://10.0.0.1/\nhttp://[::1]/\nftp://x/\nhttp://\nnull\nNone\nTrue\nfalse\n\
    ENABLED\nDISABLED\nFAILING\nraw\nslack\ngchat\nassets\nassets,collections\n*\na.b\nvideo.deleted\ndata.x>0\n\
    data.x = (\n(\n)\n/\n^live/\n[\na\\\n\\\n\"\na\u{0}b\n\u{1F525}\n\u{202e}\nä\n%00\n%\n'; --\n0\n-1\n1\n\
    99999999999999999999\n1e999\n0x10\n\r\rX: y\nx=y&z";
const NUMBERS: &str = "0 -1 1 2 100 101 1001 9999999 99999999999999999999 1e9 0x10";
const METHODS: &str = "GET POST PUT PATCH DELETE HEAD OPTIONS";
const TYPES: [&str; 7] = [
    "application/json",
    "application/json; charset=utf-8",
    "application/json\nTransfer-Encoding: chunked",
    "application/vnd.api+json",
    "application/x-www-form-urlencoded",
    "text/plain",
    "",
];

/// Choices that are the same in every run (numbers by SplitMix64).
struct Random {
    state: u64,
    /// What fields and parameters are called.
    words: Vec<String>,
}

/// The names of a platform's parameters and fields as the document has them, and two that it does not have.
fn words(document: &Value, platform: Platform) -> Vec<String> {
    let mut words = vec!["item_count".to_owned(), String::new()];
    let mount = format!("/platforms/{}/", platform.name());
    let paths = document["paths"].as_object().unwrap().iter().filter(|(path, _)| path.starts_with(&mount));
    for operation in paths.flat_map(|(_, operations)| operations.as_object().unwrap().values()) {
        let parameters = operation["parameters"].as_array().into_iter().flatten();
        words.extend(parameters.map(|it| it["name"].as_str().unwrap().to_owned()));
        let body = &operation["requestBody"]["content"]["application/json"]["schema"]["$ref"];
        let Some(reference) = body.as_str() else { continue };
        let schema = document.pointer(reference.trim_start_matches('#')).unwrap();
        words.extend(schema["properties"].as_object().unwrap().keys().cloned());
    }
    words.sort_unstable();
    words.dedup();
    words
}

impl Random {
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Below `limit`.
    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    /// Once in so many times.
    fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    fn of<'a, T: ?Sized>(&mut self, list: &[&'a T]) -> &'a T {
        list[self.below(list.len())]
    }

    fn word(&mut self) -> String {
        let at = self.below(self.words.len());
        self.words[at].clone()
    }

    fn text(&mut self) -> &'static str {
        self.of(&TEXTS.split('\n').collect::<Vec<_>>())
    }

    /// A parameter's value.
    fn given(&mut self) -> &'static str {
        if self.once_in(2) { self.text() } else { self.of(&NUMBERS.split(' ').collect::<Vec<_>>()) }
    }

    fn method(&mut self) -> &'static str {
        self.of(&METHODS.split(' ').collect::<Vec<_>>())
    }

    fn value(&mut self, depth: usize) -> Value {
        match self.below(if depth == 0 { 6 } else { 8 }) {
            0 => Value::Null,
            1 => self.once_in(2).into(),
            2 => (self.next() as i64 >> self.below(63)).into(),
            3 => self.text().repeat([1, 1, 3, 700][self.below(4)]).into(),
            4 | 5 => self.text().into(),
            6 => (0..self.below(4)).map(|_| self.value(depth - 1)).collect(),
            _ => Value::Object(self.object(depth - 1)),
        }
    }

    fn object(&mut self, depth: usize) -> Map<String, Value> {
        (0..self.below(6)).map(|_| (self.word(), self.value(depth))).collect()
    }

    /// A body of the route, one that is changed in places, one of another, or none at all.
    fn body(&mut self, route: &Route, caller: &Caller) -> Vec<u8> {
        let good = Things::default().put_into(route.body, &caller.client);
        let mut members: Map<String, Value> = serde_json::from_str(&good).unwrap_or_default();
        match self.below(8) {
            0 => return Vec::new(),
            1 => return (0..self.below(40)).map(|_| self.next() as u8).collect(),
            2 => return good.into_bytes(),
            3 => return self.value(4).to_string().into_bytes(),
            4 => {
                let mut cut = good.into_bytes();
                cut.truncate(self.below(cut.len() + 1));
                return cut;
            }
            _ => members.extend(self.object(3)),
        }
        Value::Object(members).to_string().into_bytes()
    }

    fn line(&mut self, platform: Platform, route: &Route, ids: &[String]) -> String {
        let method = if self.once_in(10) { self.method() } else { route.method };
        let own: Vec<&str> = ids.iter().map(String::as_str).collect();
        let id = if self.once_in(10) { percent(self.text()) } else { self.of(&own).to_owned() };
        let path = route.at(platform, &Things { id, ..Things::default() });
        let end = if self.once_in(10) { "/x" } else { self.of(&["", "/", "//"]) };
        let query: Vec<String> = (0..self.below(4))
            .map(|_| format!("{}={}", percent(&self.word()), percent(self.given())))
            .collect();
        let mark = if query.is_empty() { "" } else { "?" };
        format!("{method} {path}{end}{mark}{}", query.join("&"))
    }
}

/// As it stands in a path or a query.
fn percent(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    };
    text.bytes().map(byte).collect()
}

/// Success with a body that is JSON or none, or a failure in the platform's own envelope.
#[track_caller]
fn is_its_own(platform: Platform, line: &str, reply: Reply) {
    let status = reply.status.as_u16();
    if line.starts_with("HEAD ") {
        assert!(status < 500 && reply.text.is_empty(), "{status}");
    } else if status < 300 {
        assert!(
            reply.text.is_empty() == (status == 204) && (status == 204 || !reply.json.is_null()),
            "{status}"
        );
    } else {
        assert!((400..500).contains(&status), "{status} {}", reply.text);
        platform.failed(reply, status);
    }
}

async fn ask_at_random(organization: &Organization<'_>, platform: Platform, mut random: Random) {
    let caller = platform.by(&organization.admin).await;
    let viewer = platform.by(&organization.with_role("viewer").await).await;
    let mut ids =
        vec![caller.make("http://127.0.0.1:9/").await.id, caller.make("http://127.0.0.1:9/").await.id];
    for number in 0..REQUESTS {
        // Those that send to receivers and wait for them are tried elsewhere.
        let routes: Vec<_> = platform
            .routes()
            .iter()
            .filter(|it| !it.path.contains("/test/") && !it.path.contains("/check/"))
            .collect();
        let route = random.of(&routes);
        let line = random.line(platform, route, &ids);
        let body = random.body(route, &caller);
        let by = if random.once_in(10) { &viewer } else { &caller };
        let head = format!("{line} HTTP/1.1\n{}\nContent-Type: {}", by.head, random.of(&TYPES));
        let reply = caller.client.raw_bytes(&head, &body).await;
        let what = format!("{platform:?}, request {number}: {head}\n\n{}", String::from_utf8_lossy(&body));
        println!("{what}\n-> {} {}", reply.status, reply.text);
        if reply.status.is_success() && route.right == Right::Write && !reply.json.is_null() {
            ids.extend(Some(platform.id_of(&reply.json)).filter(|id| id != "null"));
        }
        is_its_own(platform, &line, reply);
    }
}

#[test]
fn random_requests_see_no_fault_of_ours_and_no_foreign_envelope() {
    test(async |system| {
        let document = system.operator().get("/openapi.json").await.expect(200);
        for (platform, state) in Platform::ALL.into_iter().zip(1_u64..) {
            let organization = system.organization().await;
            let random = Random { state, words: words(&document, platform) };
            ask_at_random(&organization, platform, random).await;
        }
    });
}
