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
use crate::event::Event;

/// The text of a schema.
pub const MAX_SCHEMA_BYTES: usize = 64 * 1024;

/// What one event may cost: the schema's values, references followed, times those of the event. Each pair is
/// looked at about once; 4 million take 12 ms in an unoptimized build, and a schema of 100 values has room for
/// 40,000 in the event, which is more than 256 KiB usually hold.
const MAX_STEPS: usize = 4 << 20;
/// A compiled pattern, and again as much for matching with it: some hundred characters with classes.
const MAX_PATTERN_BYTES: usize = 32 * 1024;
/// Of a sentence that may repeat a part of the schema.
const MAX_REASON_BYTES: usize = 300;

/// A schema, ready to be held against events.
#[derive(Debug)]
pub struct Schema {
    validator: Validator,
    /// How many JSON values it holds, references followed.
    values: usize,
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
        let values = limits::check(&schema)?;
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
        Ok(Self { validator, values })
    }

    /// Whether the event fits; the error's path leads into the event.
    pub fn check(&self, event: &Event) -> Result<(), Misfit> {
        let json = serde_json::to_value(event)
            .map_err(|error| Misfit::new("data", format!("cannot be checked: {error}")))?;
        if count(&json).saturating_mul(self.values) > MAX_STEPS {
            let reason = "has too many values to be checked with a schema of this size";
            return Err(Misfit::new("data", reason));
        }
        // Most events fit, and telling what does not is dearer than seeing that nothing does.
        if self.validator.is_valid(&json) {
            return Ok(());
        }
        self.validator.validate(&json).map_err(|error| tell(&error))
    }
}

/// How many values a JSON value holds, itself included. No deeper than JSON is read: 128.
fn count(value: &Value) -> usize {
    1 + match value {
        Value::Array(elements) => elements.iter().map(count).sum(),
        Value::Object(members) => members.values().map(count).sum(),
        _ => 0,
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
