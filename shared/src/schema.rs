//! JSON Schemas (2020-12) of events: compiled, and held against events.
//!
//! A schema describes the whole event in structured JSON, as the catalogue's do: its attributes, and `data`.
//! Binary data is `data_base64`, and an event without data has neither. An event whose JSON cannot be taken
//! apart (nested more than 128 deep, a number beyond all range) fits no schema.
//!
//! Schemas come from tenants and are run on everybody's services, so what one may cost is bounded before it is
//! compiled (`limits`), and again with each event. References stay inside of the schema; nothing is fetched.

mod in_force;
mod limits;

use jsonschema::error::ValidationErrorKind;
use jsonschema::paths::LocationSegment;
use jsonschema::{PatternOptions, ValidationError, Validator};
use serde_json::Value;

pub use self::in_force::InForce;
use crate::event::{AttributeValue, Data, Event};

/// The text of a schema.
pub const MAX_SCHEMA_BYTES: usize = 64 * 1024;

/// What one event may cost: the schema's values, references followed, times those of the event, each pair of which
/// is looked at about once; and [`STEPS_A_CHARACTER`]. Four million pairs take 6 to 11 ms, and 10 to 30 ms in an
/// unoptimized build; a schema of 100 values has room for 40,000 in the event, which is more than 256 KiB
/// usually hold.
const MAX_STEPS: usize = 4 << 20;
/// Each byte of the event's text is counted as so many steps for each pattern: 128 KiB may be searched with one, 8 KiB
/// with sixteen. A pattern that is built to be slow takes more, 0.7 µs a byte (0.2 s for what is permitted); one
/// that is not takes less.
const STEPS_A_CHARACTER: usize = 32;
/// The event itself, and its members but extensions and data: how many, and the bytes of their names with the
/// version's.
const ATTRIBUTES: usize = 10;
const NAMES_BYTES: usize = 100;
/// A compiled pattern, and again as much for matching with it: some hundred characters with classes.
const MAX_PATTERN_BYTES: usize = 32 * 1024;
/// Of a sentence that may repeat a part of the schema.
const MAX_REASON_BYTES: usize = 300;

/// A schema, ready to be held against events.
#[derive(Debug)]
pub struct Schema {
    validator: Validator,
    size: Size,
}

/// What of a schema makes its checks dear, references followed.
#[derive(Debug, Clone, Copy)]
struct Size {
    /// JSON values.
    values: usize,
    /// Regular expressions.
    patterns: usize,
}

/// Where something does not fit, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{path}` {reason}")]
pub struct Misfit {
    /// The place, as in `data.tracks[0].width`; empty: the whole.
    pub path: String,
    /// What is wrong, to be read after the path.
    pub reason: String,
}

impl Misfit {
    fn new(path: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { path: path.into(), reason: reason.into() }
    }
}

impl Schema {
    /// Compiles a schema; the error's path leads into the schema.
    pub fn compile(text: &str) -> Result<Self, Misfit> {
        if text.len() > MAX_SCHEMA_BYTES {
            let reason = format!("is {} bytes, and at most {MAX_SCHEMA_BYTES} are accepted", text.len());
            return Err(Misfit::new("", reason));
        }
        let mut schema: Value = serde_json::from_str(text)
            .map_err(|error| Misfit::new("", format!("is not valid JSON: {error}")))?;
        let size = limits::check(&schema)?;
        // A name for others to refer to; left in place it could be that of a schema which is built in.
        schema.as_object_mut().and_then(|members| members.remove("$id"));
        // An engine whose time is linear, whatever the pattern.
        let patterns =
            PatternOptions::regex().size_limit(MAX_PATTERN_BYTES).dfa_size_limit(MAX_PATTERN_BYTES);
        let options = jsonschema::draft202012::options()
            .should_validate_formats(true)
            .with_pattern_options(patterns)
            .offline();
        let validator = options.build(&schema).map_err(|error| tell(&error))?;
        Ok(Self { validator, size })
    }

    /// Whether the event fits; the error's path leads into the event.
    pub fn check(&self, event: &Event) -> Result<(), Misfit> {
        let json = serde_json::to_value(event)
            .map_err(|error| Misfit::new("data", format!("cannot be checked: {error}")))?;
        let weight = Weight::of(&json);
        if weight.pairs(self.size) > MAX_STEPS {
            let reason = "has too many values to be checked with a schema of this size";
            return Err(Misfit::new("data", reason));
        }
        if weight.searches(self.size) > MAX_STEPS {
            let reason = "has too much text to be checked with the patterns of this schema";
            return Err(Misfit::new("data", reason));
        }
        // Most events fit, and telling what does not is dearer than seeing that nothing does.
        if self.validator.is_valid(&json) {
            return Ok(());
        }
        self.validator.validate(&json).map_err(|error| tell(&error))
    }

    /// How many steps the check of an event takes at most: a guess from its bytes.
    #[must_use]
    pub fn most_steps(&self, event: &Event) -> usize {
        let weight = Weight::guess(event);
        // What is over the bound is counted, and then refused.
        weight.pairs(self.size).min(MAX_STEPS) + weight.searches(self.size).min(MAX_STEPS)
    }
}

/// What of an event makes its checks dear.
#[derive(Debug, Clone, Copy, Default)]
struct Weight {
    /// JSON values.
    values: usize,
    /// Bytes of text, names of members included.
    text: usize,
}

impl Weight {
    /// No deeper than JSON is read: 128.
    fn of(json: &Value) -> Self {
        let mut weight = Self::default();
        weight.add(json);
        weight
    }

    fn add(&mut self, value: &Value) {
        self.values += 1;
        match value {
            Value::String(text) => self.text += text.len(),
            Value::Array(elements) => elements.iter().for_each(|element| self.add(element)),
            Value::Object(members) => {
                self.text += members.keys().map(String::len).sum::<usize>();
                members.values().for_each(|member| self.add(member));
            }
            _ => {}
        }
    }

    /// Never too low, and near enough where text has few commas and brackets.
    fn guess(event: &Event) -> Self {
        let attribute = |(name, value): &(String, AttributeValue)| match value {
            AttributeValue::Text(text) => name.len() + text.len(),
            AttributeValue::Integer(_) | AttributeValue::Boolean(_) => name.len(),
        };
        let extensions: usize = event.extensions.iter().map(attribute).sum();
        let others = [&event.subject, &event.time, &event.datacontenttype, &event.dataschema];
        let others: usize = others.into_iter().flatten().map(String::len).sum();
        let own = event.id.len() + event.source.len() + event.event_type.as_str().len();
        // Every value of the data but the first follows one of these.
        let begins = |byte: &&u8| matches!(byte, b',' | b'[' | b'{');
        let (values, data) = match &event.data {
            Data::Json(bytes) => (bytes.iter().filter(begins).count() + 1, bytes.len()),
            Data::Binary(bytes) => (1, bytes.len().div_ceil(3) * 4),
            Data::Absent => (0, 0),
        };
        Self {
            values: values + event.extensions.len() + ATTRIBUTES,
            text: data + extensions + others + own + NAMES_BYTES,
        }
    }

    fn pairs(self, schema: Size) -> usize {
        self.values.saturating_mul(schema.values)
    }

    fn searches(self, schema: Size) -> usize {
        self.text.saturating_mul(schema.patterns).saturating_mul(STEPS_A_CHARACTER)
    }
}

/// What does not fit, in a sentence without the value itself: that is the tenant's, and may be long.
fn tell(error: &ValidationError<'_>) -> Misfit {
    let mut path = String::new();
    for segment in error.instance_path().segments() {
        match segment {
            LocationSegment::Property(name) => descend(&mut path, &name),
            LocationSegment::Index(index) => path.push_str(&format!("[{index}]")),
        }
    }
    let reason = match error.kind() {
        ValidationErrorKind::Required { property } => {
            descend(&mut path, property.as_str().unwrap_or_default());
            "is missing".to_owned()
        }
        ValidationErrorKind::AdditionalProperties { unexpected }
        | ValidationErrorKind::UnevaluatedProperties { unexpected } => {
            descend(&mut path, unexpected.first().map(String::as_str).unwrap_or_default());
            "is not allowed".to_owned()
        }
        ValidationErrorKind::FalseSchema => "is not allowed".to_owned(),
        _ => {
            let sentence = error.masked_with("value").to_string();
            let told = sentence.strip_prefix("value ").map(str::to_owned);
            told.unwrap_or_else(|| format!("does not fit: {sentence}"))
        }
    };
    Misfit::new(path, shortened(reason))
}

fn descend(path: &mut String, name: &str) {
    if !path.is_empty() {
        path.push('.');
    }
    path.push_str(name);
}

fn shortened(mut reason: String) -> String {
    if reason.len() > MAX_REASON_BYTES {
        reason.truncate(reason.floor_char_boundary(MAX_REASON_BYTES));
        reason.push('…');
    }
    reason
}

#[cfg(test)]
mod tests;
