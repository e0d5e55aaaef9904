//! The important facts of an event: its data's plain members and a few attributes, chosen and ordered by what
//! their names say.

use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use url::Url;

use super::Fact;
use super::words::{clean, spoken, words};
use crate::event::{Data, Event};

/// What a message shows at most: more is for the receiver's tools.
const MAX_FACTS: usize = 6;
/// A label says one thing; longer names are not for people.
const MAX_LABEL_CHARS: usize = 40;
/// Members looked at: what comes after them is not for people.
const MAX_MEMBERS: usize = 200;

/// Members that name what it happened to, the best first.
const NAMES: [&str; 6] = ["name", "title", "streamName", "stream_name", "transcoderName", "fileName"];
/// Words by which a member is worth showing, the most telling first; the rest follows, then ids.
const TELLING: [&[&str]; 8] = [
    &["status", "state"],
    &["reason", "error", "message", "detail", "code"],
    &["type", "stream", "channel"],
    &["quality", "qualities", "resolution", "bitrate"],
    &["duration"],
    &["size", "format", "codec"],
    &["started", "ended", "start", "end", "time"],
    &["path"],
];
const ID_WORDS: [&str; 3] = ["id", "uuid", "guid"];
const LINK_WORDS: [&str; 4] = ["url", "link", "href", "permalink"];
const TIME_WORDS: [&str; 12] = [
    "started",
    "ended",
    "start",
    "end",
    "time",
    "timestamp",
    "at",
    "on",
    "date",
    "expiration",
    "expires",
    "created",
];
/// A longer name is not for people, and would take time to understand.
const MAX_NAME_BYTES: usize = 200;
/// Milliseconds since 1970 that are a time from 2001 to 2286.
const EPOCH_MS: std::ops::Range<i64> = 1_000_000_000_000..10_000_000_000_000;
/// Attributes worth showing, under the names that people know.
const ATTRIBUTES: [(&str, &str); 4] = [
    ("application", "Application"),
    ("realm", "Realm"),
    ("pooluuid", "Pool"),
    ("workspaceuuid", "Workspace"),
];

/// A plain member of the data, or of an object in it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Member<'a> {
    pub(super) name: &'a str,
    value: &'a Value,
}

impl<'a> Member<'a> {
    pub(super) fn text(&self) -> Option<&'a str> {
        self.value.as_str()
    }

    fn has_word(&self, list: &[&str]) -> bool {
        words(self.name).any(|word| list.contains(&word.as_str()))
    }

    fn ends_with_word(&self, list: &[&str]) -> bool {
        words(self.name).last().is_some_and(|word| list.contains(&word.as_str()))
    }

    /// Its place among the others: the lower the earlier.
    fn rank(&self) -> usize {
        if self.ends_with_word(&ID_WORDS) {
            return TELLING.len() + 1;
        }
        TELLING.iter().position(|words| self.has_word(words)).unwrap_or(TELLING.len())
    }

    fn fact(&self) -> Option<Fact> {
        let value = match self.value {
            Value::String(text) => match OffsetDateTime::parse(text, &Rfc3339) {
                Ok(time) => readable(time),
                Err(_) => clean(text),
            },
            Value::Bool(truth) => if *truth { "yes" } else { "no" }.to_owned(),
            Value::Number(number) => match number.as_i64() {
                Some(ms) if EPOCH_MS.contains(&ms) && self.has_word(&TIME_WORDS) => {
                    OffsetDateTime::from_unix_timestamp_nanos(i128::from(ms) * 1_000_000)
                        .map(readable)
                        .ok()?
                }
                _ => number.to_string(),
            },
            Value::Null | Value::Array(_) | Value::Object(_) => return None,
        };
        let label = spoken(self.name, MAX_LABEL_CHARS);
        (!label.is_empty() && !value.is_empty()).then_some(Fact { label, value })
    }
}

/// The plain members of the data and of the objects in it.
pub(super) fn members(data: Option<&Value>) -> Vec<Member<'_>> {
    let Some(Value::Object(data)) = data else { return Vec::new() };
    let mut members = Vec::new();
    for (name, value) in data {
        match value {
            Value::Object(inner) => members.extend(inner.iter().map(|(name, value)| Member { name, value })),
            _ => members.push(Member { name, value }),
        }
        if members.len() >= MAX_MEMBERS {
            break;
        }
    }
    members.retain(|member| {
        member.name.len() <= MAX_NAME_BYTES && !member.value.is_object() && !member.value.is_array()
    });
    members
}

/// The name of what it happened to.
pub(super) fn object(members: &[Member<'_>]) -> Option<String> {
    let named = |name: &&str| members.iter().find(|member| member.name == *name).and_then(Member::text);
    NAMES.iter().find_map(named).map(clean)
}

/// The first link.
pub(super) fn link(members: &[Member<'_>]) -> Option<Url> {
    let is_link = |member: &&Member<'_>| member.ends_with_word(&LINK_WORDS);
    let parse = |member: &Member<'_>| {
        let url = Url::parse(member.text()?.trim()).ok()?;
        matches!(url.scheme(), "http" | "https").then_some(url)
    };
    members.iter().filter(is_link).find_map(parse)
}

/// The facts to show, the most telling first. What the sentence names already is left out.
pub(super) fn important(
    event: &Event,
    data: Option<&Value>,
    members: &[Member<'_>],
    object: Option<&str>,
) -> Vec<Fact> {
    let mut facts: Vec<Fact> = Vec::new();
    let change = status_change(members);
    let in_change = |name: &str| change.is_some() && matches!(name, "previous_status" | "current_status");
    let mut ranked: Vec<&Member<'_>> = members
        .iter()
        .filter(|member| !in_change(member.name) && !member.ends_with_word(&LINK_WORDS))
        .collect();
    ranked.sort_by_cached_key(|member| member.rank());
    let ids = ranked.partition_point(|member| member.rank() <= TELLING.len());
    let (telling, ids) = ranked.split_at(ids);
    facts.extend(change);
    facts.extend(telling.iter().filter_map(|member| member.fact()));
    facts.extend(attributes(event));
    facts.extend(content(event, data));
    facts.extend(ids.iter().filter_map(|member| member.fact()));
    facts.retain(|fact| Some(fact.value.as_str()) != object);
    facts.truncate(MAX_FACTS);
    facts
}

/// How a status changed, as one fact.
fn status_change(members: &[Member<'_>]) -> Option<Fact> {
    let find = |name: &str| members.iter().find(|member| member.name == name)?.text().map(clean);
    let value = format!("{} → {}", find("previous_status")?, find("current_status")?);
    Some(Fact { label: "Status".to_owned(), value })
}

fn attributes(event: &Event) -> impl Iterator<Item = Fact> {
    ATTRIBUTES.iter().filter_map(|(name, label)| {
        let value = clean(event.extension(name)?);
        (!value.is_empty()).then(|| Fact { label: (*label).to_owned(), value })
    })
}

/// What data is that has no members: a value alone, or bytes.
fn content(event: &Event, data: Option<&Value>) -> Option<Fact> {
    let value = match (&event.data, data) {
        (Data::Binary(bytes), _) => {
            let media_type = event.datacontenttype.as_deref().unwrap_or("binary");
            format!("{}, {} bytes", clean(media_type), bytes.len())
        }
        (_, Some(Value::String(text))) => clean(text),
        (_, Some(Value::Number(number))) => number.to_string(),
        _ => return None,
    };
    (!value.is_empty()).then(|| Fact { label: "Content".to_owned(), value })
}

/// A time as people read it, in UTC.
pub(super) fn readable(time: OffsetDateTime) -> String {
    const FORMAT: &[time::format_description::BorrowedFormatItem<'_>] =
        time::macros::format_description!("[year]-[month]-[day] [hour]:[minute]:[second] UTC");
    time.to_offset(time::UtcOffset::UTC).format(FORMAT).unwrap_or_default()
}
