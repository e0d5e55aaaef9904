//! The filter language: one expression over an event, by which a webhook says what it wants.
//!
//! ```text
//! data.is_archived=false AND data.size>0 (data.status="CLOSED" OR data.status="DELETED")
//! ```
//!
//! api parses a filter when a webhook is saved and answers with the error's position; router parses it
//! again when it loads the webhook and asks it about every event. Nothing here reads or writes anything.
//!
//! **Grammar.** Keywords (`AND OR true false null`) are taken in any case.
//! ```text
//! expression = all { "OR" all }
//! all        = term { [ "AND" ] term }           side by side means AND, and AND binds tighter than OR
//! term       = "(" expression ")" | comparison
//! comparison = path ( "=" | "!=" | "<" | ">" | "<=" | ">=" ) literal
//!            | path ( "=" | "!=" ) regex
//! path       = name { "." name }                 names of letters, digits, `_` and `-`
//! literal    = a JSON value                      strings in double quotes, with JSON's escapes
//! regex      = "/" pattern "/"                   a slash inside is written `\/`; `(?i)` ignores case
//! ```
//!
//! **Paths.** The first name is an attribute of the event (`id`, `type`, `pooluuid`, any extension),
//! `category` (the type up to its first dot), `operation` (the type after its first dot), `subject_name` (the
//! subject after its first slash: the name in `account/name`), or `data`. Some
//! have a second name: `event_type` is `category`, `object_id` is `subject`, `user_id` is `userid`,
//! `request_id` is `requestid`, `system_domain_id` is `organization`. Below `data` a name is an object's
//! key; in an array it is the index of an element, from 0 (`data.files.0.name`). What is not there is null,
//! and so is everything below a value without parts.
//!
//! **Equality** is that of JSON: the same type and the same value, arrays and objects compared in depth,
//! numbers by what they are worth (1 = 1.0, exact over the whole range of 64-bit integers; beyond it a
//! number is a double, as JSON parsers read it). `!=` is always the opposite of `=`.
//!
//! **Order** exists between two numbers and between two strings, which compare by code points, so that RFC
//! 3339 times of one offset and precision compare as times. Any other pair makes `< > <= >=` false.
//!
//! **Regular expressions** are searched for anywhere in a string (`^` and `$` anchor them). What is not a
//! string, or is longer than 8 KiB, has no match: `=` is false and `!=` true.

mod expression;
#[cfg(test)]
mod fuzz;
mod lexer;
mod operand;
mod parser;
mod path;
mod pattern;
#[cfg(test)]
mod properties;
mod terms;

use std::sync::Arc;

use serde_json::Value;

use self::expression::Expression;
pub use self::operand::IndexKey;
pub use self::parser::MAX_SOURCE_BYTES;
pub use self::path::Path;
pub use self::terms::Term;

/// What a filter is asked about: an event, as far as the language can see it.
pub trait Subject {
    /// The attribute of this CloudEvents name, `None` where the event does not have it.
    fn attribute(&self, name: &str) -> Option<Attribute<'_>>;

    /// The event's data, `None` where it has none or it is not JSON.
    fn data(&self) -> Option<&Value>;
}

/// The value of an attribute. URIs and times are text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attribute<'a> {
    /// CloudEvents' String, URI, URI-reference and Timestamp.
    Text(&'a str),
    /// CloudEvents' Integer.
    Integer(i64),
    /// CloudEvents' Boolean.
    Boolean(bool),
}

/// A parsed filter. A clone shares the expression. The text is not kept: it belongs to the webhook, and a
/// router holds up to a million filters.
#[derive(Debug, Clone)]
pub struct Filter(Arc<Expression>);

impl Filter {
    /// Reads an expression of at most [`MAX_SOURCE_BYTES`].
    pub fn parse(source: &str) -> Result<Filter, FilterError> {
        parser::parse(source).map(|expression| Filter(Arc::new(expression)))
    }

    /// Whether the webhook wants this event. Allocates nothing, save what a regular expression's search
    /// sets up when a thread first runs it.
    pub fn matches(&self, event: &(impl Subject + ?Sized)) -> bool {
        self.0.holds(event)
    }

    /// Whether the answer can depend on the event's data; if not, the data need not be decoded.
    pub fn reads_data(&self) -> bool {
        self.0.reads_data()
    }

    /// An equality without which the filter cannot match: whenever [`Filter::matches`] is true of an
    /// event, [`Path::index_key`] of that event is this key. So webhooks can be indexed by it, and an event
    /// meets those alone that may want it. Of several the one that is likely to be the rarest.
    pub fn required_equality(&self) -> Option<(&Path, IndexKey<'_>)> {
        let required = self.0.conjuncts().iter().filter_map(Expression::as_scalar_equality);
        required.min_by_key(|(path, key)| (key.is_boolean(), path.is_common_to_many_events(), !key.is_text()))
    }
}

/// Why a text is not a filter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("at position {position}: {message}")]
pub struct FilterError {
    /// The character (Unicode scalar value, not byte) at which the text stops making sense, from 1; one
    /// more than there are characters where it is the end.
    pub position: usize,
    /// What was expected there, as a sentence without a full stop.
    pub message: String,
}

impl FilterError {
    /// An error at a byte of the source.
    fn at(source: &str, offset: usize, message: impl Into<String>) -> FilterError {
        FilterError { position: source[..offset].chars().count() + 1, message: message.into() }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use serde_json::json;

    use super::*;

    /// An event as a JSON object of its attributes and its data.
    #[derive(Debug)]
    pub(super) struct Event(pub(super) Value);

    impl Subject for Event {
        fn attribute(&self, name: &str) -> Option<Attribute<'_>> {
            match self.0.get(name)? {
                Value::String(text) => Some(Attribute::Text(text)),
                Value::Number(number) => number.as_i64().map(Attribute::Integer),
                Value::Bool(boolean) => Some(Attribute::Boolean(*boolean)),
                _ => None,
            }
        }

        fn data(&self) -> Option<&Value> {
            self.0.get("data")
        }
    }

    fn event() -> Event {
        Event(json!({
            "id": "e-1", "source": "/archive", "type": "assets.metadata.update", "time": "2026-03-01T12:00:00Z",
            "subject": "a-1", "organization": "o-1", "userid": "u-1", "requestid": "r-1", "sequence": 7,
            "sampled": true,
            "data": {
                "is_archived": false, "size": 1024, "ratio": 0.5, "status": "CLOSED", "external_id": "x",
                "nothing": null, "title": "Straße\nnach Süden", "long": "x".repeat(8193),
                "longest_searched": "x".repeat(8192),
                "files": [{"name": "a.mp4"}, {"name": "b.mov", "tags": ["x", 1]}],
                "large": 18_446_744_073_709_551_615_u64, "precise": 9_007_199_254_740_993_i64,
            }
        }))
    }

    fn assert_each(expected: bool, sources: &[&str]) {
        for source in sources {
            assert_eq!(Filter::parse(source).unwrap().matches(&event()), expected, "{source}");
        }
    }

    #[test]
    fn these_match() {
        assert_each(
            true,
            &[
                r#"id="e-1" source="/archive" time="2026-03-01T12:00:00Z""#,
                r#"category="assets" AND event_type="assets" AND type="assets.metadata.update""#,
                r#"operation="metadata.update" object_id="a-1" user_id="u-1" request_id="r-1""#,
                r#"subject_name=null subject="a-1" userid="u-1" requestid="r-1" system_domain_id="o-1""#,
                "sequence=7 sequence=7.0 sequence<7.5 sampled=true sampled!=false",
                "data.size=1024 data.size=1.024e3 data.size!=1025 data.size>1023.5 data.size<1025",
                "data.size>=1024 data.size<=1024 data.ratio>0 data.ratio<1 data.ratio=5e-1 data.ratio>-1",
                "data.large=18446744073709551615 data.large>9223372036854775807 data.large<18446744073709551616",
                "data.precise=9007199254740993 data.precise!=9007199254740992.0 data.precise>9007199254740992.0",
                r#"time>"2026-02-28T23:59:59Z" time<="2026-03-01T12:00:00Z" data.status<"closed""#,
                "data.nothing=null data.missing=null missing=null data.missing!=1 missing.x=null",
                "data.size.x=null data.files.2=null data.files.name=null data.files.-1=null",
                r#"data.files.0.name="a.mp4" data.files.1.tags.1=1 data.files!=null data!=null"#,
                r#"data.files.1={"tags":["x",1.0],"name":"b.mov"} data.files.0!={} data.files!=[]"#,
                r#"data.title="Stra\u00dfe\nnach Süden" data.title=/straße/ OR data.title=/(?i)STRASSE|süd/"#,
                r"data.files.1.name=/\.(mov|mxf)$/ source=/^\/arch/ data.status=//",
                "data.size!=/1024/ data.missing!=// data.nothing!=// data.files!=//",
                "data.long!=/x/ data.longest_searched=/^x+$/",
                "data.size=0 OR data.status=\"CLOSED\"",
                "(data.size=0 OR data.size=1024) (data.is_archived=true OR data.is_archived=false)",
            ],
        );
    }

    #[test]
    fn these_do_not_match() {
        assert_each(
            false,
            &[
                "data.size>1024",
                "data.size<1024",
                "data.size>=1025",
                "data.size<=1023",
                "data.size!=1024.0",
                "data.precise=9007199254740992.0",
                "data.precise<=9007199254740992",
                "data.size=\"1024\"",
                "data.status=1",
                "data.is_archived=0",
                "data.is_archived=null",
                "data.missing<1",
                "data.missing>1",
                "data.missing<=null",
                "data.nothing>=null",
                "data.size>\"1\"",
                "data.status>1",
                "data.is_archived<true",
                "data.is_archived<=false",
                "data.files>[]",
                "data.files>=[]",
                "data.files.0<={\"name\":\"a.mp4\"}",
                "data.files=[]",
                "data.files.0={}",
                "data.files.0={\"name\":\"a.mp4\",\"x\":null}",
                "data.files.1.tags=[1,\"x\"]",
                "data.files.1.tags=[\"x\"]",
                "data={}",
                "data.size=/1024/",
                "data.missing=//",
                "data.nothing=/null/",
                "data.long=/x/",
                "data.files=//",
                "data.status=/closed/",
                "data.status!=/LOSE/",
                "ID=\"e-1\"",
                "data.Size=1024",
                "category.x=\"assets\"",
                "id.x!=null",
                "userid=null",
                "data.size=1024 AND data.size=1",
                "data.size=1 OR data.size=2",
                "(data.size=1024 OR data.size=1) data.status=\"OPEN\"",
                "data.size=1 OR data.size=1024 data.size=2",
            ],
        );
    }

    #[test]
    fn the_documented_example_means_what_its_platform_says() {
        let source = r#"data.is_archived=false AND data.size>0 (data.status="CLOSED" OR data.status="DELETED") AND data.external_id!=null"#;
        let filter = Filter::parse(source).unwrap();
        assert!(filter.matches(&event()));
        let changes = [
            ("status", json!("DELETED"), true),
            ("status", json!("OPEN"), false),
            ("is_archived", json!(true), false),
            ("size", json!(0), false),
            ("external_id", json!(null), false),
        ];
        for (name, value, expected) in changes {
            let mut event = event();
            event.0["data"][name] = value;
            assert_eq!(filter.matches(&event), expected, "{event:?}");
        }
    }

    #[test]
    fn an_event_without_data_or_with_a_type_of_one_word_has_null_there() {
        let bare = Event(json!({"type": "ping"}));
        let filter =
            Filter::parse(r#"category="ping" operation=null data=null data.x=null data.x!=/x/"#).unwrap();
        assert!(filter.matches(&bare as &dyn Subject));
    }

    #[test]
    fn only_paths_into_the_data_read_it() {
        let reads_data = |source| Filter::parse(source).unwrap().reads_data();
        assert!(reads_data("data=null") && reads_data("id=1 OR (id=2 AND data.x.y=/x/)"));
        assert!(!reads_data("id=1") && !reads_data("category=\"data\" OR datax=1"));
    }

    #[test]
    fn the_rarest_equality_that_must_hold_is_the_one_to_index_by() {
        let required = |source| {
            let filter = Filter::parse(source).unwrap();
            filter.required_equality().map(|(path, key)| (path.to_string(), key.into_owned()))
        };
        let table = [
            (r#"subject="a""#, Some(r#"subject="a""#)),
            (r#"event_type="x" AND data.ok=true object_id="a""#, Some(r#"subject="a""#)),
            (r#"data.ok=true AND operation="x""#, Some(r#"operation="x""#)),
            (r#"data.size=1.0 AND operation="x""#, Some("data.size=1")),
            (r#"data.size=1 (data.name="n" (id="i"))"#, Some(r#"data.name="n""#)),
            ("data.ok=false", Some("data.ok=false")),
            (r#"id="a" OR id="b""#, None),
            (r#"data.x=null data.y=[1] data.z={} id!="a" id>"a" id=/a/"#, None),
        ];
        for (source, equality) in table {
            assert_eq!(required(source), equality.and_then(required), "{source}");
            assert_eq!(required(source).is_some(), equality.is_some(), "{source}");
        }
    }

    #[test]
    fn an_index_of_owned_keys_is_asked_with_what_an_event_holds() {
        let filters = ["data.size=1024.0", r#"object_id="a-1""#, "sequence=7", "data.is_archived=false"];
        for filter in filters.map(|source| Filter::parse(source).unwrap()) {
            let (path, key) = filter.required_equality().unwrap();
            let index = HashMap::from([(key.into_owned(), "found")]);
            assert_eq!(path.index_key(&event()).and_then(|key| index.get(&key).copied()), Some("found"));
        }
        let absent = Filter::parse("data.missing=1").unwrap();
        assert_eq!(absent.required_equality().unwrap().0.index_key(&event()), None);
    }

    #[test]
    fn a_filter_is_small() {
        assert_eq!(size_of::<Filter>(), 8);
        assert!(size_of::<Expression>() <= 56, "{}", size_of::<Expression>());
    }
}
