//! What travels over RabbitMQ: events on their way to the router, deliveries on their way to a sender, and
//! dead letters. One file each; here the headers that they are written in.
//!
//! Our headers begin with `cuewire-`. Nothing else of a message is passed on when it is published again:
//! a copied `x-death`, `expiration`, `priority` or `CC` would change how the broker treats it.

pub mod dead;
pub mod deliveries;
pub mod delivery;
pub mod event;
pub mod redrive;

use lapin::types::{AMQPValue, FieldTable, LongString};
use time::OffsetDateTime;

use crate::delivery::Reason;

pub use dead::DeadMessage;
pub use deliveries::Deliveries;
pub use delivery::DeliveryMessage;
pub use event::EventMessage;
pub use redrive::Redrive;

/// Structured JSON, as events travel inside Cuewire.
pub const CLOUDEVENTS_JSON: &str = "application/cloudevents+json";

/// Headers being written.
#[derive(Debug, Default)]
struct HeadersOut(FieldTable);

impl HeadersOut {
    #[allow(clippy::needless_pass_by_value, reason = "callers hand over ids and texts alike")]
    fn text(mut self, name: &str, value: impl ToString) -> Self {
        self.0.insert(name.into(), AMQPValue::LongString(LongString::from(value.to_string())));
        self
    }

    fn optional(self, name: &str, value: Option<impl ToString>) -> Self {
        match value {
            Some(value) => self.text(name, value),
            None => self,
        }
    }

    fn number(mut self, name: &str, value: i64) -> Self {
        self.0.insert(name.into(), AMQPValue::LongLongInt(value));
        self
    }

    fn time(self, name: &str, at: OffsetDateTime) -> Self {
        self.number(name, unix_ms(at))
    }
}

/// Headers being read; an error is a sentence.
#[derive(Debug, Clone, Copy)]
struct HeadersIn<'a>(Option<&'a FieldTable>);

impl<'a> HeadersIn<'a> {
    fn of(received: &'a crate::amqp::Received) -> Self {
        Self(received.properties.headers().as_ref())
    }

    fn get(self, name: &str) -> Option<&'a AMQPValue> {
        self.0?.inner().get(name)
    }

    fn optional_text(self, name: &str) -> Result<Option<&'a str>, String> {
        match self.get(name) {
            None => Ok(None),
            Some(AMQPValue::LongString(text)) => std::str::from_utf8(text.as_bytes())
                .map(Some)
                .map_err(|_| format!("the header `{name}` is not UTF-8")),
            Some(other) => {
                Err(format!("the header `{name}` is of AMQP type {:?}, not text", other.get_type()))
            }
        }
    }

    fn parsed<T: std::str::FromStr>(self, name: &str) -> Result<T, String> {
        self.optional_parsed(name)?.ok_or_else(|| format!("the header `{name}` is missing"))
    }

    fn optional_parsed<T: std::str::FromStr>(self, name: &str) -> Result<Option<T>, String> {
        let text = self.optional_text(name)?;
        text.map(|text| text.parse().map_err(|_| format!("the header `{name}` cannot be read: {text:?}")))
            .transpose()
    }

    fn number(self, name: &str) -> Result<i64, String> {
        match self.get(name) {
            Some(AMQPValue::LongLongInt(number)) => Ok(*number),
            Some(other) => {
                Err(format!("the header `{name}` is of AMQP type {:?}, not long-long-int", other.get_type()))
            }
            None => Err(format!("the header `{name}` is missing")),
        }
    }

    fn time(self, name: &str) -> Result<OffsetDateTime, String> {
        from_unix_ms(self.number(name)?).ok_or_else(|| format!("the header `{name}` is no time"))
    }

    fn optional_time(self, name: &str) -> Result<Option<OffsetDateTime>, String> {
        self.get(name).map(|_| self.time(name)).transpose()
    }
}

/// Milliseconds since 1970, as times travel in headers. Rounded up: nothing is sent early.
fn unix_ms(at: OffsetDateTime) -> i64 {
    at.unix_timestamp_nanos().div_euclid(1_000_000) as i64
        + i64::from(at.unix_timestamp_nanos().rem_euclid(1_000_000) > 0)
}

fn from_unix_ms(ms: i64) -> Option<OffsetDateTime> {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(ms) * 1_000_000).ok()
}

/// The routing key of a dead letter.
fn dead_key(category: &str, reason: Reason) -> String {
    format!("{category}.{}", reason.as_str())
}

/// The first word of a routing key.
fn first_word(routing_key: &str) -> &str {
    routing_key.split('.').next().filter(|word| !word.is_empty()).unwrap_or("unknown")
}
