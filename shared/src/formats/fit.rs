//! Fitting text into a chat service's limits: escaped, and cut with an ellipsis where it is too long.

use unicode_segmentation::UnicodeSegmentation;

const ELLIPSIS: &str = "…";

/// How much a text may take in its service's unit, once it is escaped.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limit {
    pub(super) max: usize,
    pub(super) unit: Unit,
}

/// What a service counts.
#[derive(Debug, Clone, Copy)]
pub(super) enum Unit {
    /// Characters. Counted in UTF-16, so that a service which counts in another way counts no more.
    Characters,
    /// Bytes of the message in JSON.
    JsonBytes,
}

impl Unit {
    fn measure(self, text: &str) -> usize {
        match self {
            Self::Characters => text.encode_utf16().count(),
            // Clean text has no characters that JSON must escape but these two.
            Self::JsonBytes => text.len() + text.matches(['"', '\\']).count(),
        }
    }
}

/// The text, escaped, and cut where it exceeds the limit: never within a character as people see it, nor
/// within an escape. `escape` is told the text before a character, and answers what stands for it.
pub(super) fn fit(text: &str, limit: Limit, escape: impl Fn(&str, char) -> Option<&'static str>) -> String {
    let room = limit.max.saturating_sub(limit.unit.measure(ELLIPSIS));
    let mut out = String::new();
    let (mut used, mut kept) = (0, 0);
    for (at, character) in text.grapheme_indices(true) {
        let start = out.len();
        for (offset, c) in character.char_indices() {
            match escape(&text[..at + offset], c) {
                Some(escaped) => out.push_str(escaped),
                None => out.push(c),
            }
        }
        used += limit.unit.measure(&out[start..]);
        if used > limit.max {
            out.truncate(kept);
            out.push_str(ELLIPSIS);
            return out;
        }
        if used <= room {
            kept = out.len();
        }
    }
    out
}

/// HTML's escapes, by which text can be neither markup nor a name in angle brackets.
pub(super) fn as_html(_: &str, c: char) -> Option<&'static str> {
    match c {
        '&' => Some("&amp;"),
        '<' => Some("&lt;"),
        '>' => Some("&gt;"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cut(text: &str, max: usize, unit: Unit) -> String {
        fit(text, Limit { max, unit }, as_html)
    }

    #[test]
    fn a_text_of_the_limit_stays_and_one_more_is_cut() {
        assert_eq!(cut("12345", 5, Unit::Characters), "12345");
        assert_eq!(cut("123456", 5, Unit::Characters), "1234…");
        assert_eq!(cut("12345", 5, Unit::JsonBytes), "12345");
        assert_eq!(cut("123456", 5, Unit::JsonBytes), "12…");
        assert_eq!(cut("", 0, Unit::Characters), "");
    }

    #[test]
    fn neither_an_escape_nor_a_character_is_cut_in_two() {
        assert_eq!(cut("a<<", 9, Unit::Characters), "a&lt;&lt;");
        assert_eq!(cut("a<<", 8, Unit::Characters), "a&lt;…");
        assert_eq!(cut("a<<", 5, Unit::Characters), "a…");
        // A family is one character to people, and eight units of UTF-16.
        let family = "👨\u{200d}👩\u{200d}👧";
        assert_eq!(cut(&family.repeat(2), 16, Unit::Characters), family.repeat(2));
        assert_eq!(cut(&family.repeat(2), 15, Unit::Characters), format!("{family}…"));
        assert_eq!(cut(family, 7, Unit::Characters), "…");
        assert_eq!(cut("e\u{301}e\u{301}", 3, Unit::Characters), "e\u{301}…");
    }

    proptest! {
        #[test]
        fn the_limit_holds_for_any_text(text: String, max in 3_usize..60) {
            let text: String = text.chars().filter(|c| !c.is_control()).collect();
            let json = |text: &str| serde_json::to_string(text).unwrap().len() - 2;
            prop_assert!(json(&cut(&text, max, Unit::JsonBytes)) <= max);
            prop_assert!(cut(&text, max, Unit::Characters).encode_utf16().count() <= max);
            let escaped = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
            if json(&escaped) <= max {
                prop_assert_eq!(cut(&text, max, Unit::JsonBytes), escaped);
            }
        }
    }
}
