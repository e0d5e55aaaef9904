//! Millicast's `filter`: one regular expression over the name of an event's stream or transcoder, as a term of a
//! webhook's filter.
//!
//! A thumbnail has no data to look into; its stream's name is what follows the account in its subject,
//! `account/stream`. Ours: no look-around, as in all filters, and at most some 950 bytes, since the term says the
//! expression four times.

use cuewire::event::{Event, Fields};
use cuewire::filter::{Filter, Term};

use crate::error::Problem;

/// A slash inside of a regular expression, which a bare one would end.
const SLASH: &str = r"\x2F";
const BEFORE: &str = "data.streamName = /";

/// The term of a regular expression, if it is one.
pub(super) fn read(regex: &str) -> Result<Term, Problem> {
    let invalid = |why: String| Problem::invalid_field("filter", format!("is no regular expression: {why}"));
    let backslashes = regex.len() - regex.trim_end_matches('\\').len();
    if backslashes % 2 == 1 {
        // It would escape what ends the expression.
        return Err(invalid("nothing follows the backslash at its end".to_owned()));
    }
    let term = term(regex);
    Filter::parse(term.as_str()).map_err(|error| invalid(error.message))?;
    Ok(term)
}

/// The regular expression of such a term.
pub(super) fn shown(term: &Term) -> Option<String> {
    let (name, _) = term.as_nested()?.strip_prefix(BEFORE)?.split_once('/')?;
    let regex = with_slashes(name);
    (self::term(&regex) == *term).then_some(regex)
}

/// Whether the expressions among these terms take the event's name; other terms say nothing of it.
pub(super) fn take(terms: &[Term], event: &Event) -> bool {
    let takes =
        |term: &Term| Filter::parse(term.as_str()).is_ok_and(|filter| filter.matches(&Fields::new(event)));
    terms.iter().filter(|term| shown(term).is_some()).all(takes)
}

fn term(regex: &str) -> Term {
    let name = without_slashes(regex);
    Term::nested(&format!(
        "{BEFORE}{name}/ OR data.name = /{name}/ OR data.transcoderName = /{name}/ \
         OR category = \"thumbnail\" AND subject_name = /{name}/"
    ))
}

fn without_slashes(regex: &str) -> String {
    let mut out = String::with_capacity(regex.len());
    let mut chars = regex.chars();
    while let Some(char) = chars.next() {
        match char {
            '/' => out.push_str(SLASH),
            '\\' => match chars.next() {
                Some('/') => out.push_str(SLASH),
                escaped => {
                    out.push('\\');
                    out.extend(escaped);
                }
            },
            _ => out.push(char),
        }
    }
    out
}

fn with_slashes(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    let mut rest = name;
    while let Some(char) = rest.chars().next() {
        if let Some(behind) = rest.strip_prefix(SLASH) {
            out.push('/');
            rest = behind;
            continue;
        }
        // What is escaped is taken together with its backslash.
        let chars = if char == '\\' { 2 } else { 1 };
        let length = rest.chars().take(chars).map(char::len_utf8).sum();
        out.push_str(&rest[..length]);
        rest = &rest[length..];
    }
    out
}

#[cfg(test)]
mod tests {
    use cuewire::filter::{Attribute, Subject};
    use regex::Regex;
    use serde_json::{Value, json};

    use super::*;

    struct Happening<'a>(&'a str, Option<&'a str>, Value);

    impl Subject for Happening<'_> {
        fn attribute(&self, name: &str) -> Option<Attribute<'_>> {
            match name {
                "type" => Some(Attribute::Text(self.0)),
                "subject" => self.1.map(Attribute::Text),
                _ => None,
            }
        }

        fn data(&self) -> Option<&Value> {
            Some(&self.2)
        }
    }

    fn takes(regex: &str, event: &Happening<'_>) -> bool {
        let Ok(term) = read(regex) else { panic!("{regex} is refused") };
        Filter::parse(term.as_str()).unwrap().matches(event)
    }

    const REGEXES: [&str; 40] = [
        "",
        "^",
        "$",
        "^$",
        "acct",
        "^acct",
        "live",
        "^live",
        "live$",
        "^live$",
        "(^live|test)",
        "(test|^live)",
        "(?:(^live)|(?:x|test$))",
        "^live|test",
        "test|^live",
        "(?i)test|^LIVE",
        "(?i:^LIVE)|cam",
        "^(live|test)(/|$)",
        "(^a|^b)*cam",
        "(?:^|-)live",
        r"(\A|/)live",
        r"\Alive\z",
        r"\blive\b",
        r"\Bive",
        "(?m)^five$",
        "(?s)live.five",
        "(?x) ^ live  # from the beginning",
        "[^a-z]1",
        "[^/]*/[^/]*",
        "^[^/]*$",
        "[/]",
        "[]^]1",
        "[^]^]1",
        "[|)(]x|^y",
        r"a\/b|\/",
        r"^\x2F",
        r"\\|^t",
        "^^live",
        "x*^live|(()|)",
        "ä|^ö",
    ];
    const NAMES: [&str; 26] = [
        "",
        "live",
        "LIVE1",
        "alive",
        "my-live",
        "live/five",
        "five\nlive/\nfive",
        "acct",
        "my-acct",
        "acct/live",
        "test",
        "my-test",
        "tester",
        "cam1",
        "acam",
        "1",
        "]1",
        "^1",
        "|x",
        ")x",
        "y",
        "/",
        "//live",
        "a/b",
        r"a\b",
        "öä",
    ];

    #[test]
    fn a_thumbnails_filter_finds_what_the_expression_finds_in_the_streams_name() {
        for regex in REGEXES {
            let expression = Regex::new(regex).unwrap();
            for (account, name) in ["acct", "live", "test", "a1", "", "^", "ä"]
                .into_iter()
                .flat_map(|account| NAMES.map(|name| (account, name)))
            {
                let subject = format!("{account}/{name}");
                let thumbnail = Happening("thumbnail.captured", Some(&subject), Value::Null);
                assert_eq!(takes(regex, &thumbnail), expression.is_match(name), "{regex:?} on {subject:?}");
            }
        }
    }

    #[test]
    fn a_name_is_that_of_the_stream_or_of_the_transcoder() {
        for (data, expected) in [
            (json!({"streamName": "a/b"}), true),
            (json!({"name": "a/b"}), true),
            (json!({"transcoderName": "a/b"}), true),
            (json!({"channelId": "a/b"}), false),
            (json!({"streamName": "x/a/b"}), false),
        ] {
            let event = Happening("feeds.started", Some("x/a/b"), data.clone());
            assert_eq!(takes("^a/b", &event), expected, "{data}");
        }
    }

    #[test]
    fn an_expression_is_shown_as_it_was_given_but_for_its_slashes() {
        for (given, expected) in [
            ("^live", "^live"),
            ("a/b", "a/b"),
            (r"a\/b", "a/b"),
            (r"a\\/b", r"a\\/b"),
            (r"\d+\x2Fb\\x2F", r"\d+/b\\x2F"),
            ("", ""),
        ] {
            assert_eq!(shown(&term(given)).as_deref(), Some(expected), "{given}");
            assert_eq!(term(expected), term(given), "{given}");
        }
        assert!(read("(").is_err() && read("a\\").is_err());
        assert_eq!(shown(&Term::nested("data.streamName = /a/ OR data.name = /b/")), None);
    }
}
