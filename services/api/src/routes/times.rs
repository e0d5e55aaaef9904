//! Times in queries: RFC 3339, within what the log can hold.

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::checks::Checks;

/// Reads a time that may be missing.
pub(super) fn read(checks: &mut Checks, field: &str, text: Option<String>) -> Option<OffsetDateTime> {
    checks.take(field, parse(&text?))
}

fn parse(text: &str) -> Result<OffsetDateTime, String> {
    // A plus sign in a query that was not percent-encoded arrives as a space.
    let read = OffsetDateTime::parse(&text.replace(' ', "+"), &Rfc3339).map_err(|_| {
        format!("is {text:?}, and must be a time as in RFC 3339, such as 2026-01-31T09:30:00Z")
    })?;
    if !(1970..9999).contains(&read.year()) {
        return Err(format!("is {text:?}, and must be in the years from 1970 to 9998"));
    }
    Ok(read.to_offset(time::UtcOffset::UTC))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_rfc_3339_and_one_that_the_log_can_hold() {
        assert_eq!(parse("2026-01-31T10:30:00 01:00").unwrap(), parse("2026-01-31T09:30:00Z").unwrap());
        for text in ["", "yesterday", "2026-01-31", "2026-02-30T00:00:00Z"] {
            assert!(parse(text).unwrap_err().contains("RFC 3339"), "{text}");
        }
        for text in ["0000-01-01T00:00:00Z", "1969-12-31T23:59:59Z", "9999-12-31T23:59:59Z"] {
            assert!(parse(text).unwrap_err().contains("years from 1970"), "{text}");
        }
    }
}
