//! Pages: `limit` and `cursor` of a list, and `{"data":[…],"next_cursor":…}` of its answer.
//!
//! A cursor is the place of the last row in the list's order, as JSON in base64url: opaque to clients, and
//! stable while rows come and go.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use time::{Date, OffsetDateTime};
use utoipa::{IntoParams, ToSchema};

use crate::checks::Checks;
use crate::error::Problem;

const DEFAULT_LIMIT: usize = 50;
const MAX_LIMIT: usize = 1_000;
/// A cursor holds a time, and the source and id of an event at most.
const MAX_CURSOR_BYTES: usize = 4_096;

/// Which part of a list is asked for.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct PageQuery {
    /// Entries on the page: 1 to 1,000, 50 unless given.
    #[param(value_type = Option<u32>, example = 50)]
    pub(crate) limit: Option<String>,
    /// The `next_cursor` of the page before.
    pub(crate) cursor: Option<String>,
}

/// A page of a list.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Page<T> {
    /// The entries, the newest first.
    pub(crate) data: Vec<T>,
    /// The `cursor` of the next page; null on the last. A page may be short and still have a next.
    #[schema(example = json!(null))]
    pub(crate) next_cursor: Option<String>,
}

/// The limit and the place after which the page begins.
pub(crate) fn read<P: DeserializeOwned>(
    checks: &mut Checks,
    limit: Option<String>,
    cursor: Option<String>,
) -> (usize, Option<P>) {
    let limit = limit.and_then(|text| {
        let limit = text.parse().ok().filter(|limit| (1..=MAX_LIMIT).contains(limit));
        checks.take("limit", limit.ok_or_else(|| format!("is {text:?}, and must be 1 to {MAX_LIMIT}")))
    });
    let place = cursor.and_then(|text| {
        let place = decode(&text).ok_or_else(|| "is none that was answered as `next_cursor`".to_owned());
        checks.take("cursor", place)
    });
    (limit.unwrap_or(DEFAULT_LIMIT), place)
}

impl PageQuery {
    /// The limit and the place, for a list that has no other parameters.
    pub(crate) fn read<P: DeserializeOwned>(self) -> Result<(usize, Option<P>), Problem> {
        let mut checks = Checks::default();
        let page = read(&mut checks, self.limit, self.cursor);
        checks.finish()?;
        Ok(page)
    }
}

impl<T> Page<T> {
    /// A page of rows of which `limit` were asked for: a full page has a next one, after its last row.
    pub(crate) fn of<R, P: Serialize>(
        rows: Vec<R>,
        limit: usize,
        place: impl Fn(&R) -> P,
        show: impl Fn(R) -> T,
    ) -> Self {
        let last = rows.last().filter(|_| rows.len() == limit);
        let next_cursor = last.map(|row| encode(&place(row)));
        Self { data: rows.into_iter().map(show).collect(), next_cursor }
    }
}

/// A place as a cursor.
pub(crate) fn encode(place: &impl Serialize) -> String {
    BASE64.encode(serde_json::to_vec(place).unwrap_or_default())
}

/// The place that a cursor stands for. No text in it may hold what Postgres cannot.
pub(crate) fn decode<P: DeserializeOwned>(cursor: &str) -> Option<P> {
    let json = BASE64.decode(cursor).ok().filter(|_| cursor.len() <= MAX_CURSOR_BYTES)?;
    let text = String::from_utf8(json).ok()?;
    if text.contains("\\u0000") {
        return None;
    }
    serde_json::from_str(&text).ok()
}

/// A time in a cursor, to the microsecond, as Postgres keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Micros(pub(crate) OffsetDateTime);

impl Serialize for Micros {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_i64((self.0.unix_timestamp_nanos() / 1_000) as i64)
    }
}

impl<'de> Deserialize<'de> for Micros {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let micros = i64::deserialize(deserializer)?;
        OffsetDateTime::from_unix_timestamp_nanos(i128::from(micros) * 1_000)
            .ok()
            .filter(|at| at.year() >= 1970)
            .map(Self)
            .ok_or_else(|| serde::de::Error::custom("no time"))
    }
}

/// A day in a cursor, as a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Day(pub(crate) Date);

impl Serialize for Day {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_i32(self.0.to_julian_day())
    }
}

impl<'de> Deserialize<'de> for Day {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Date::from_julian_day(i32::deserialize(deserializer)?)
            .ok()
            .filter(|day| day.year() >= 1970)
            .map(Self)
            .ok_or_else(|| serde::de::Error::custom("no day"))
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn a_cursor_comes_back_as_it_was_given() {
        let at = datetime!(2026-01-31 09:30:00.123456 UTC);
        let place = (Day(at.date()), Micros(at), "source", "id\u{e9}");
        let read: (Day, Micros, String, String) = decode(&encode(&place)).unwrap();
        assert_eq!((read.0, read.1, read.2.as_str(), read.3.as_str()), place);
    }

    #[test]
    fn a_cursor_that_was_never_given_is_refused() {
        for cursor in ["", "x", "%%%", &encode(&7), &encode(&(i64::MAX, "a", "b")), &encode(&(1, "a\0", "b"))]
        {
            assert!(decode::<(Micros, String, String)>(cursor).is_none(), "{cursor}");
        }
    }
}
