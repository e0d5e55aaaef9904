//! What a chat message says of an event: a title, what happened to what, the important facts, a link, and how
//! serious it is. Any event gives one, also of an unknown type or with odd or binary data.
//!
//! Pure and of no service: the chat formats escape, cut and lay it out. All text here is clean: one line,
//! without control characters and without those that turn the direction of what follows.

mod facts;
mod severity;
mod words;

use url::Url;

pub(super) use self::severity::Severity;
use crate::catalogue;
use crate::event::{Data, Event};

/// As long as the strictest service's title may be, with the icon.
const MAX_TITLE_CHARS: usize = 100;

/// A message before it takes a service's form.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Notice {
    /// How serious it is.
    pub(super) severity: Severity,
    /// What happened, in few words: of ASCII letters, digits and spaces alone.
    pub(super) title: String,
    /// What happened to what.
    pub(super) sentence: String,
    /// What else is worth knowing, the most important first.
    pub(super) facts: Vec<Fact>,
    /// Where there is more.
    pub(super) link: Option<Url>,
    /// The event's type, and when it happened.
    pub(super) footer: String,
}

/// One of the important facts.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fact {
    /// Its name: of letters, digits and spaces alone, and short.
    pub(super) label: String,
    /// What it is.
    pub(super) value: String,
}

impl Notice {
    pub(super) fn of(event: &Event) -> Self {
        let data: Option<serde_json::Value> = match &event.data {
            Data::Json(bytes) => serde_json::from_slice(bytes).ok(),
            Data::Absent | Data::Binary(_) => None,
        };
        let members = facts::members(data.as_ref());
        let object = facts::object(&members)
            .or_else(|| event.subject.as_deref().map(words::clean))
            .filter(|object| !object.is_empty());
        Self {
            severity: Severity::of(event.event_type.operation(), &members),
            title: words::spoken(event.event_type.as_str(), MAX_TITLE_CHARS),
            sentence: sentence(event, object.as_deref()),
            facts: facts::important(event, data.as_ref(), &members, object.as_deref()),
            link: facts::link(&members),
            footer: match event.timestamp() {
                Some(time) => format!("{} · {}", event.event_type, facts::readable(time)),
                None => event.event_type.to_string(),
            },
        }
    }
}

/// The event's own message; else what the catalogue says of its type; else its type and source: with what it
/// happened to.
fn sentence(event: &Event, object: Option<&str>) -> String {
    let own = event.extension("message").map(words::clean).filter(|message| !message.is_empty());
    own.unwrap_or_else(|| {
        let happened = match catalogue::find(event.event_type.as_str()) {
            Some(entry) => entry.in_short().to_owned(),
            None => format!("{} from {}", event.event_type, words::clean(&event.source)),
        };
        match object {
            Some(object) => format!("{happened}: {object}"),
            None => happened,
        }
    })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::conformance::sample;
    use super::*;

    fn event(json: &str) -> Event {
        Event::from_json(&Bytes::copy_from_slice(json.as_bytes())).unwrap()
    }

    #[test]
    fn a_notice_says_what_happened_to_what() {
        for (event_type, title, sentence) in [
            ("encoding.failed", "Encoding failed", "A file could not be encoded: Opening night"),
            ("input.status_change", "Input status change", "Input main-feed is active"),
            ("api_key.creation", "API key creation", "API key ci-key was created"),
            (
                "viewerConnection.ViewerAttempt",
                "Viewer connection viewer attempt",
                "A viewer tried to watch a stream that is not live: myAwesomeStream",
            ),
            (
                "thumbnail.captured",
                "Thumbnail captured",
                "A still picture of a live stream was taken: ZG6NWV/sample_stream",
            ),
            ("assets.update", "Assets update", "An asset was changed: 0d56db81-1b8e-4a68-9658-98ad9a94d841"),
        ] {
            let notice = Notice::of(&sample(event_type));
            assert_eq!((notice.title.as_str(), notice.sentence.as_str()), (title, sentence));
        }
    }

    #[test]
    fn the_facts_are_few_named_for_people_and_the_telling_ones_first() {
        let facts = |event_type| -> Vec<String> {
            let notice = Notice::of(&sample(event_type));
            notice.facts.iter().map(|fact| format!("{}: {}", fact.label, fact.value)).collect()
        };
        assert_eq!(
            facts("input.status_change"),
            [
                "Status: ready → active",
                "Stream: main",
                "Application: link",
                "Pool: 2085ebd7-14a5-5ea5-b855-1ed126effeca"
            ]
        );
        assert_eq!(
            facts("recordings.completed"),
            [
                "Duration: 1",
                "Format: MPEG-4",
                "Recorded on: 2021-12-12 08:07:43 UTC",
                "Record file ID: 7975",
                "Token ID: 142366"
            ]
        );
        assert_eq!(facts("thumbnail.captured"), ["Content: image/jpeg, 159 bytes"]);
    }

    #[test]
    fn an_event_that_nobody_knows_is_told_all_the_same() {
        let bare = Notice::of(&event(r#"{"id":"1","source":"/encoder/7","type":"my.own.thing"}"#));
        assert_eq!(bare.title, "My own thing");
        assert_eq!(bare.sentence, "my.own.thing from /encoder/7");
        assert_eq!((bare.facts.len(), bare.link.as_ref(), bare.severity), (0, None, Severity::Neutral));

        for data in [r#""text""#, "[1,[2],{}]", "7", r#"{"":{"":{"":1}}}"#, r#"{"a":"\ud800"}"#, "1e999"] {
            let json = format!(r#"{{"id":"1","source":"s","type":"a.b","data":{data}}}"#);
            assert_eq!(Notice::of(&event(&json)).sentence, "a.b from s", "{data}");
        }
    }

    #[test]
    fn a_link_is_http_and_whole() {
        let link = |url: &str| {
            let json =
                format!(r#"{{"id":"1","source":"s","type":"a.b","data":{{"clip":{{"playUrl":"{url}"}}}}}}"#);
            Notice::of(&event(&json)).link.map(String::from)
        };
        assert_eq!(
            link("https://example.com/a b?x=<y>"),
            Some("https://example.com/a%20b?x=%3Cy%3E".to_owned())
        );
        assert_eq!(link("javascript:alert(1)"), None);
        assert_eq!(link("/relative"), None);
        assert_eq!(link("ftp://example.com/"), None);
    }

    #[test]
    fn hostile_text_becomes_one_clean_line() {
        let json = r#"{"id":"1","source":"s","type":"a.b","data":{
            "name":"  a\u0000b\r\n\tc\u202Ed\u2066e\u0085 👩\u200D🚀 ","<b>x</b>|k\u202Eey":"v"}}"#;
        let notice = Notice::of(&event(json));
        assert_eq!(notice.sentence, "a.b from s: a b cde 👩\u{200d}🚀");
        assert_eq!(notice.facts, [Fact { label: "B x b key".to_owned(), value: "v".to_owned() }]);
    }
}
