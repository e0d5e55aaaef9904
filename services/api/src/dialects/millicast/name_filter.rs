//! Millicast's `filter`: one regular expression over the name of an event's stream or transcoder, as a term of a
//! webhook's filter.
//!
//! A thumbnail has no data to look into; its stream's name is what follows the account in its subject,
//! `account/stream`. Ours: no look-around, as in all filters, and at most some 950 bytes, since the term says the
//! expression four times.

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

fn term(regex: &str) -> Term {
    let name = without_slashes(regex);
    let in_id = behind_the_account(&name);
    Term::nested(&format!(
        "{BEFORE}{name}/ OR data.name = /{name}/ OR data.transcoderName = /{name}/ \
         OR category = \"thumbnail\" AND subject = /{in_id}/"
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

/// The same over `account/stream`: what is to stand at the beginning stands behind the account, and nothing is
/// looked for in the account.
fn behind_the_account(name: &str) -> String {
    let account = format!("^[^{SLASH}]*{SLASH}");
    let alternatives = alternatives(name, &account);
    if alternatives.iter().all(|alternative| !alternative.is_anchored) {
        return format!("{account}.*(?:{name})");
    }
    // No groups: flags that one alternative sets hold in those behind it.
    let apart = alternatives.into_iter().map(|Alternative { text, is_anchored }| match is_anchored {
        true => text,
        false => format!("{account}.*{text}"),
    });
    apart.collect::<Vec<_>>().join("|")
}

/// One of those that `|` parts outside of all groups.
#[derive(Debug, Default)]
struct Alternative {
    text: String,
    /// Whether something in it is to stand at the beginning.
    is_anchored: bool,
}

/// The alternatives, with `beginning` in the place of what anchors them.
fn alternatives(name: &str, beginning: &str) -> Vec<Alternative> {
    let mut all = Vec::new();
    let mut current = Alternative::default();
    let (mut classes, mut groups) = (0_usize, 0_usize);
    let mut chars = name.chars().peekable();
    while let Some(char) = chars.next() {
        match char {
            '\\' => match chars.next() {
                Some('A') if classes == 0 => current.anchor(beginning),
                escaped => {
                    current.text.push('\\');
                    current.text.extend(escaped);
                }
            },
            '[' => {
                classes += 1;
                current.text.push('[');
                current.text.extend(chars.next_if_eq(&'^'));
                // The first of a class is no end of it.
                current.text.extend(chars.next_if_eq(&']'));
            }
            ']' => {
                classes = classes.saturating_sub(1);
                current.text.push(']');
            }
            '^' if classes == 0 => current.anchor(beginning),
            '|' if classes == 0 && groups == 0 => all.push(std::mem::take(&mut current)),
            _ => {
                match char {
                    '(' if classes == 0 => groups += 1,
                    ')' if classes == 0 => groups = groups.saturating_sub(1),
                    _ => {}
                }
                current.text.push(char);
            }
        }
    }
    all.push(current);
    all
}

impl Alternative {
    fn anchor(&mut self, beginning: &str) {
        self.is_anchored = true;
        self.text.push_str(beginning);
    }
}

#[cfg(test)]
mod tests {
    use cuewire::filter::{Attribute, Subject};
    use serde_json::{Value, json};

    use super::*;

    struct Event(&'static str, Option<&'static str>, Value);

    impl Subject for Event {
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

    fn takes(regex: &str, event: &Event) -> bool {
        let Ok(term) = read(regex) else { panic!("{regex} is refused") };
        Filter::parse(term.as_str()).unwrap().matches(event)
    }

    #[test]
    fn a_thumbnails_stream_is_known_by_its_name_and_not_by_its_account() {
        for (regex, subject, expected) in [
            ("^cam1$|^cam2$", "acct/cam2", true),
            ("(?i)^live", "acct/LIVE1", true),
            ("(^live|^test)", "acct/test1", true),
            ("acct", "acct/other", false),
            ("acct", "acct/my-acct", true),
            ("^five", "account/live/five", false),
            ("^live/", "account/live/five", true),
            ("[^a-z]1", "a1/cam1", false),
            ("five$", "account/live/five", true),
            ("^live|test", "acct/my-test", true),
            ("^live|test", "test/other", false),
            ("test|^live", "acct/alive", false),
            ("(?i)test|^live", "acct/LIVE", true),
            ("(a|b)$|^c", "acct/xb", true),
            (r"\Alive", "acct/live", true),
            (r"\Alive", "acct/alive", false),
            (r"[]^]1", "acct/]1", true),
            (r"[^]^]1", "acct/^1", false),
            ("[|]x|^y", "acct/|x", true),
        ] {
            let thumbnail = Event("thumbnail.captured", Some(subject), Value::Null);
            assert_eq!(takes(regex, &thumbnail), expected, "{regex} on {subject}");
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
            assert_eq!(takes("^a/b", &Event("feeds.started", Some("a/b"), data.clone())), expected, "{data}");
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
