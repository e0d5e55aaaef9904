//! Holding a request's fields against the rules: every fault is collected, so that one answer names all.

use crate::error::{FieldError, Problem};

/// A person's name for something: a hundred characters of any script, as a platform promises.
pub(crate) const MAX_NAME_BYTES: usize = 400;

/// The faults found so far.
#[derive(Debug, Default)]
pub(crate) struct Checks(Vec<FieldError>);

impl Checks {
    /// Takes a value, or notes why it is none.
    pub(crate) fn take<T>(&mut self, field: &str, read: Result<T, String>) -> Option<T> {
        read.map_err(|detail| self.0.push(FieldError::new(field, detail))).ok()
    }

    /// Takes text of one line.
    pub(crate) fn line(&mut self, field: &str, text: String, max_bytes: usize) -> Option<String> {
        self.take(field, line(text, max_bytes))
    }

    /// Takes text that is compared with what events hold: any of one line, blanks too.
    pub(crate) fn compared(&mut self, field: &str, text: String, max_bytes: usize) -> Option<String> {
        self.take(field, compared(text, max_bytes))
    }

    /// Takes a field that may be missing (none) or null (none in some).
    pub(crate) fn optional<T, U>(
        &mut self,
        field: &str,
        value: Option<Option<T>>,
        read: impl FnOnce(T) -> Result<U, String>,
    ) -> Option<Option<U>> {
        match value? {
            None => Some(None),
            Some(value) => self.take(field, read(value)).map(Some),
        }
    }

    /// Notes that a field is missing, if it is.
    pub(crate) fn require<T>(&mut self, field: &str, value: Option<&T>) {
        if value.is_none() {
            self.refuse(field, "is missing");
        }
    }

    /// Notes a fault.
    pub(crate) fn refuse(&mut self, field: &str, detail: impl Into<String>) {
        self.0.push(FieldError::new(field, detail));
    }

    /// The faults as an answer, if there are any.
    pub(crate) fn finish(self) -> Result<(), Problem> {
        if self.0.is_empty() { Ok(()) } else { Err(Problem::invalid(self.0)) }
    }
}

/// Text that is not empty, not too long, and of one line (Postgres cannot store NUL).
pub(crate) fn line(text: String, max_bytes: usize) -> Result<String, String> {
    if text.chars().any(char::is_control) {
        return Err("contains a control character".to_owned());
    }
    bounded(text, max_bytes)
}

/// Text that is compared with what events hold, which may be blanks alone.
pub(crate) fn compared(text: String, max_bytes: usize) -> Result<String, String> {
    if text.chars().any(char::is_control) {
        return Err("contains a control character".to_owned());
    }
    if text.is_empty() {
        return Err("is empty".to_owned());
    }
    within(text, max_bytes)
}

/// Text that is not empty, not too long, and has no control characters but tabs and line ends.
pub(crate) fn lines(text: String, max_bytes: usize) -> Result<String, String> {
    if text.chars().any(|c| c.is_control() && !matches!(c, '\t' | '\n' | '\r')) {
        return Err("contains a control character".to_owned());
    }
    bounded(text, max_bytes)
}

fn bounded(text: String, max_bytes: usize) -> Result<String, String> {
    if text.trim().is_empty() {
        return Err("is empty".to_owned());
    }
    within(text, max_bytes)
}

fn within(text: String, max_bytes: usize) -> Result<String, String> {
    if text.len() > max_bytes {
        return Err(format!("is {} bytes, and at most {max_bytes} are accepted", text.len()));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_bounded_and_has_no_control_characters() {
        assert_eq!(line("näme".to_owned(), 5).unwrap(), "näme");
        assert_eq!(line("näme".to_owned(), 4).unwrap_err(), "is 5 bytes, and at most 4 are accepted");
        assert_eq!(line(" ".to_owned(), 4).unwrap_err(), "is empty");
        assert_eq!(compared(" ".to_owned(), 4).unwrap(), " ");
        assert_eq!(compared(String::new(), 4).unwrap_err(), "is empty");
        assert_eq!(line("a\0".to_owned(), 4).unwrap_err(), "contains a control character");
        assert_eq!(line("a\nb".to_owned(), 4).unwrap_err(), "contains a control character");
        assert_eq!(lines("a\nb".to_owned(), 4).unwrap(), "a\nb");
        assert_eq!(lines("a\0b".to_owned(), 4).unwrap_err(), "contains a control character");
    }
}
