//! What requests are made up of.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use rand::rngs::StdRng;
use rand::seq::{IndexedMutRandom, IndexedRandom, SliceRandom};
use rand::{Rng, RngExt};
use serde_json::Value;

use crate::native::{Route, Things};

/// Text in a body, and in a cursor, which is a part of a path that HTTP itself bounds.
const LONG_VALUE: usize = 100_000;
const LONG_CURSOR: usize = 5_000;

/// Texts for a path or a query, percent-encoded or not, as they go over the wire. `stream` is not among them: in the
/// place of an event's id it would be another route.
const TEXTS: &[&[u8]] = &[
    b"",
    b"0",
    b"-1",
    b"1",
    b"3",
    b"1000",
    b"1001",
    b"2147483648",
    b"9223372036854775808",
    b"1e3",
    b"NaN",
    b"%00",
    b"a%00b",
    b"%ff%fe",
    b"%c3%28",
    b"%",
    b"%zz",
    b"%2e%2e",
    b"%2F",
    b"..",
    b".",
    b"_",
    b"+",
    b"%20",
    b"%0d%0a",
    b"*",
    b"%F0%9F%98%80",
    b"\xf0\x9f\x98\x80",
    b"\xff\xfe",
    b"null",
    b"true",
    b"a.b",
    b"recordings.completed",
    b"exhausted",
    b"poison",
    b"%27;DROP%20TABLE%20events--",
    b"00000000-0000-0000-0000-000000000000",
    b"ffffffff-ffff-ffff-ffff-ffffffffffff",
    b"0190a6f2-4c1e-7b52-9c7d-2f6f1f3f8a12",
    b"0190a6f24c1e7b529c7d2f6f1f3f8a12",
    b"%7B0190a6f2-4c1e-7b52-9c7d-2f6f1f3f8a12%7D",
    b"1970-01-01T00:00:00Z",
    b"1970-01-01T00:00:00%2B23:59",
    b"1969-12-31T23:59:59Z",
    b"0000-01-01T00:00:00Z",
    b"9998-12-31T23:59:59-23:59",
    b"9999-12-31T23:59:59Z",
    b"2026-02-29T00:00:00Z",
    b"2016-12-31T23:59:60Z",
    b"2026-01-31T09:30:00.123456789123Z",
    b"2026-01-31",
];

/// Values as JSON writes them, some of which are none.
const VALUES: &[&str] = &[
    "null",
    "true",
    "0",
    "-1",
    "1",
    "0.5",
    "-0.0",
    "1e308",
    "1e999",
    "9223372036854775807",
    "18446744073709551616",
    "123456789012345678901234567890",
    "\"\"",
    "\" \"",
    "\"x\"",
    "\"a\\u0000b\"",
    "\"\\u0000\"",
    "\"\\ud800\"",
    "\"\\u202e\"",
    "\"é😀\"",
    "\"\u{7f}\"",
    "[]",
    "{}",
    "[null]",
    "[[]]",
    "[\"\"]",
    "[\"*\"]",
    "[\"a.b\",\"a.b\"]",
    "[\"recordings\"]",
    "{\"a\":1,\"a\":2}",
    "{\"\":\"\"}",
    "{\"host\":\"x\"}",
    "{\"x-a\":\"\\u0000\"}",
    "{\"x-a\":null}",
    "\"5s\"",
    "[\"5s\"]",
    "[\"-5s\"]",
    "[\"99999999999999999999h\"]",
    "\"1e9s\"",
    "\"7d\"",
    "\"8d\"",
    "\"v1a\"",
    "\"v2\"",
    "\"whsec_\"",
    "\"whsk_AAAA\"",
    "\"admin\"",
    "\"root\"",
    "\"millicast\"",
    "\"data.a=/(/\"",
    "\"data.a=/a{999}/\"",
    "\"((((((((((\"",
    "\"id=\\\"\\u0000\\\"\"",
    "\"2026-01-31T09:30:00Z\"",
    "\"9999-12-31T23:59:60Z\"",
    "\"http://\"",
    "\"http://[::1\"",
    "\"http://1.2.3.4.5/\"",
    "\"http://127.0.0.1:0/\"",
    "\"http://127.0.0.1:99999/\"",
    "\"javascript:alert(1)\"",
    "{\"$ref\":\"#\"}",
    "{\"type\":7}",
    "{\"pattern\":\"(\"}",
    "{\"minLength\":-1}",
    "{\"multipleOf\":0}",
    "{\"enum\":[]}",
    "{\"$schema\":\"\"}",
    "nul",
    "",
    "\u{0}",
];

/// Parts of a place in a list.
const PARTS: &[&str] = &[
    "\"\"",
    "\"a\\u0000b\"",
    "\"\\ud800\"",
    "\"é\"",
    "\"00000000-0000-0000-0000-000000000000\"",
    "null",
    "0",
    "-1",
    "1.5",
    "2147483647",
    "253402300799000000",
    "9223372036854775807",
    "[]",
];

const CONTENT_TYPES: &[&str] = &[
    "application/json",
    "application/json; charset=utf-16",
    "application/cloudevents+json",
    "application/cloudevents-batch+json",
    "application/x-www-form-urlencoded",
    "image/jpeg",
    "nonsense",
    "",
];

/// What is made up, and with what.
pub(super) struct Maker<'a> {
    pub(super) random: StdRng,
    /// The owner's things, and those of an organization that may be deleted.
    pub(super) things: [&'a Things; 2],
    /// Where webhooks may send to.
    pub(super) receiver: String,
    /// A place in the list that is asked for, as its cursors hold it.
    pub(super) place: Option<Value>,
}

impl Maker<'_> {
    fn chance(&mut self, one_in: u32) -> bool {
        self.random.random_ratio(1, one_in)
    }

    fn one_of<'t, T: ?Sized>(&mut self, all: &[&'t T]) -> &'t T {
        all.choose(&mut self.random).unwrap()
    }

    /// A request, but for its key.
    pub(super) fn request(&mut self, route: &Route) -> Vec<u8> {
        let mut head =
            [route.method.as_str().as_bytes(), b" ", &self.target(route), b" HTTP/1.1\r\n"].concat();
        let body = self.body(route);
        let content_type = if self.chance(4) { self.one_of(CONTENT_TYPES) } else { "application/json" };
        head.extend(format!("content-type: {content_type}\r\ncontent-length: {}\r\n", body.len()).bytes());
        if self.chance(4) {
            for name in ["ce-id", "ce-source", "ce-type", "ce-time", "ce-extra"] {
                let value = self.one_of(&[
                    &b"a.b"[..],
                    b"%00",
                    b"%ff",
                    b"\xff\xfe",
                    b"",
                    b"x",
                    b"2026-01-31T09:30:00Z",
                ]);
                head.extend([name.as_bytes(), b": ", value, b"\r\n"].concat());
            }
        }
        if route.is_stream() {
            // Without a place that there cannot be it would have no end.
            head.extend(b"last-event-id: no place\r\n");
        }
        head.extend(b"\r\n");
        [head, body].concat()
    }

    fn target(&mut self, route: &Route) -> Vec<u8> {
        let mut target = Vec::new();
        let things = self.things[usize::from(self.chance(4))];
        let filled = route.filled(things);
        for (place, given) in route.path.split('/').zip(filled.split('/')).skip(1) {
            target.push(b'/');
            let made_up = place.starts_with('{') && self.chance(3);
            target.extend(if made_up { self.text() } else { given.as_bytes().to_vec() });
        }
        // A few at a time: what is wrong with one is told before another is looked at.
        let mut names: Vec<&str> = route.query.iter().map(String::as_str).chain(["unknown"]).collect();
        names.shuffle(&mut self.random);
        let cursor_first = self.chance(2);
        names.sort_by_key(|name| cursor_first && *name != "cursor");
        for (number, name) in names.into_iter().take(self.random.random_range(0..3)).enumerate() {
            let value = if name == "cursor" { self.cursor() } else { self.text() };
            let mark = if number == 0 { b"?" } else { b"&" };
            target.extend([mark, name.as_bytes(), b"=", &value].concat());
        }
        target
    }

    fn text(&mut self) -> Vec<u8> {
        match self.random.random_range(0..20) {
            0 => vec![b'x'; self.random.random_range(1..5_000)],
            1 => {
                let mut bytes = [0; 12];
                self.random.fill_bytes(&mut bytes);
                bytes.iter().map(|byte| format!("%{byte:02x}")).collect::<String>().into_bytes()
            }
            _ => self.one_of(TEXTS).to_vec(),
        }
    }

    /// A place in the list in which something is another.
    fn cursor(&mut self) -> Vec<u8> {
        match self.place.clone() {
            Some(place) if !self.chance(4) => {
                BASE64.encode(self.with_something_else(place, PARTS, LONG_CURSOR)).into_bytes()
            }
            _ => self.text(),
        }
    }

    fn body(&mut self, route: &Route) -> Vec<u8> {
        let Some(mut example) = route.example.clone() else {
            return if self.chance(4) { b"{".to_vec() } else { Vec::new() };
        };
        // Nothing is to be sent to where the document's examples say.
        let has_url = example.get("url").is_some();
        if has_url {
            example["url"] = self.receiver.clone().into();
        }
        let mut body = match self.random.random_range(0..12) {
            0 => self.one_of(VALUES).as_bytes().to_vec(),
            1 => format!("[{example}]").into_bytes(),
            2 => example.to_string().into_bytes(),
            _ => self.with_something_else(example, VALUES, LONG_VALUE),
        };
        match self.random.random_range(0..16) {
            0 => body.truncate(self.random.random_range(0..=body.len())),
            // Another digit of its address would be another machine.
            1 if !body.is_empty() && !has_url => {
                let at = self.random.random_range(0..body.len());
                body[at] = self.random.random();
            }
            2 => body.extend([0xff, 0]),
            _ => {}
        }
        body
    }

    /// JSON in which one value, or two, are others: of these, or a text of a length up to the longest.
    fn with_something_else(&mut self, mut example: Value, values: &[&str], longest: usize) -> Vec<u8> {
        let mut holes = Vec::new();
        for number in 0..self.random.random_range(1..3) {
            let hole = format!("hole-{number}");
            self.dig(&mut example, &hole);
            let value = match self.random.random_range(0..30) {
                0 => format!("\"{}\"", "x".repeat(self.random.random_range(1..longest))),
                1 => format!("{}{}", "[".repeat(200), "]".repeat(200)),
                _ => self.one_of(values).to_owned(),
            };
            holes.push((format!("\"{hole}\""), value));
        }
        let mut text = example.to_string();
        for (hole, value) in holes {
            text = text.replace(&hole, &value);
        }
        text.into_bytes()
    }

    /// Puts a mark in the place of some value.
    fn dig(&mut self, value: &mut Value, mark: &str) {
        let inside = match value {
            Value::Object(members) if self.chance(8) => {
                members.insert("made-up".to_owned(), mark.into());
                return;
            }
            Value::Object(members) => {
                let at = self.random.random_range(0..members.len().max(1));
                members.values_mut().nth(at)
            }
            Value::Array(elements) => elements.choose_mut(&mut self.random),
            _ => None,
        };
        match inside {
            Some(inside) => self.dig(inside, mark),
            None => *value = mark.into(),
        }
    }
}
