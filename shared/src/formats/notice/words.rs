//! Text for people: cleaned, and names of fields and types turned into words.

/// What is written in capitals.
const INITIALS: [&str; 8] = ["api", "cdn", "drm", "id", "ott", "url", "uuid", "vod"];
/// More than any service shows of a text: what comes after it would be cut in any case.
const MAX_CHARS: usize = 20_000;

/// One line: control characters and spaces in a row become one space, and what would turn the direction of the
/// text after it is left out. Letters of every script stay. What no service would show is not looked at.
pub(super) fn clean(text: &str) -> String {
    let mut out = String::with_capacity(text.len().min(1_024));
    for c in text.chars().take(MAX_CHARS) {
        if c.is_control() || c.is_whitespace() {
            if !out.is_empty() && !out.ends_with(' ') {
                out.push(' ');
            }
        } else if !turns_direction(c) {
            out.push(c);
        }
    }
    out.truncate(out.trim_end().len());
    out
}

/// Embeddings, overrides and isolates, which would go on beyond their text.
fn turns_direction(c: char) -> bool {
    matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A name such as `recordings.completed`, `current_status` or `streamName` as words: letters and digits of any
/// script and spaces alone, the first a capital; as many words as fit, and the first in any case.
pub(super) fn spoken(name: &str, max_chars: usize) -> String {
    let mut out = String::new();
    for word in words(name) {
        let word = if INITIALS.contains(&word.as_str()) { word.to_uppercase() } else { word };
        if out.is_empty() {
            let mut chars = word.chars();
            out.extend(chars.next().into_iter().flat_map(char::to_uppercase).chain(chars).take(max_chars));
        } else if out.chars().count() + 1 + word.chars().count() <= max_chars {
            out.push(' ');
            out.push_str(&word);
        } else {
            break;
        }
    }
    out
}

/// The words of a name, in small letters: `ViewerAttempt` and `viewer_attempt` are the same two.
pub(super) fn words(name: &str) -> impl Iterator<Item = String> {
    let mut words = vec![String::new()];
    let mut after_small = false;
    for c in name.chars().filter(|c| !turns_direction(*c)) {
        let starts_word = !c.is_alphanumeric() || (c.is_uppercase() && after_small);
        if starts_word {
            words.push(String::new());
        }
        if c.is_alphanumeric()
            && let Some(word) = words.last_mut()
        {
            word.extend(c.to_lowercase());
        }
        after_small = c.is_lowercase() || c.is_ascii_digit();
    }
    words.into_iter().filter(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_words() {
        for (name, expected) in [
            ("recordings.completed", "Recordings completed"),
            ("transcoder.ACTIVE", "Transcoder active"),
            ("viewerConnection.NoActiveViewers", "Viewer connection no active viewers"),
            ("recordFileId", "Record file ID"),
            ("vod_asset.deletion", "VOD asset deletion"),
            ("__x--y..z", "X y z"),
            ("größe", "Größe"),
            ("", ""),
            ("<&>", ""),
        ] {
            assert_eq!(spoken(name, 40), expected);
        }
        assert_eq!(spoken(&"word_".repeat(1_000), 40).len(), 39);
        assert_eq!(spoken(&"x".repeat(1_000), 40).len(), 40);
    }
}
