//! Headers as a publisher may set them.

use lapin::types::{AMQPValue, FieldTable};

/// These headers.
pub(crate) fn table(headers: &[(&str, AMQPValue)]) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, value) in headers {
        table.insert((*name).into(), value.clone());
    }
    table
}

/// A header's text.
pub(crate) fn text(text: &str) -> AMQPValue {
    AMQPValue::LongString(text.into())
}
