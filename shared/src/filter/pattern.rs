//! Regular expressions: compiled within bounds, and searched for within bounds. The `regex` crate never
//! backtracks, so a search takes time in proportion to the string times the compiled expression at worst;
//! the bounds make that some 150 ms for an expression built to be slow (74 ms were measured on 4 KiB, 356 ms on
//! 16 KiB), and microseconds for others.

use regex::{Regex, RegexBuilder};

use super::operand::Operand;

/// What one expression may take when compiled, and for each thread that runs it for its cache. A plain one
/// takes 3 KiB; `\w` knows all scripts and takes 40 KiB, so that an address (`\w+@\w+\.\w+`) just fits.
const MAX_COMPILED_BYTES: usize = 256 * 1024;

/// Longer strings have no match. The 256 KiB that an event may have would take five seconds at worst.
const MAX_SEARCHED_BYTES: usize = 8 * 1024;

/// Boxed, so that it does not make every other comparison larger.
#[derive(Debug)]
pub(super) struct Pattern(Box<Regex>);

impl Pattern {
    /// Compiles what stands between the slashes; an error is a sentence about it.
    pub(super) fn compile(text: &str) -> Result<Pattern, String> {
        let regex = RegexBuilder::new(text)
            .size_limit(MAX_COMPILED_BYTES)
            .dfa_size_limit(MAX_COMPILED_BYTES)
            .build()
            .map_err(|error| describe(&error))?;
        Ok(Pattern(Box::new(regex)))
    }

    pub(super) fn is_found_in(&self, value: Operand<'_>) -> bool {
        matches!(value, Operand::Text(text) if text.len() <= MAX_SEARCHED_BYTES && self.0.is_match(text))
    }
}

fn describe(error: &regex::Error) -> String {
    match error {
        regex::Error::CompiledTooBig(limit) => {
            format!("this regular expression takes more than {} KiB when compiled", limit / 1024)
        }
        other => {
            // The report shows the pattern over several lines; the last one says what is wrong with it.
            let report = other.to_string();
            let reason = report.rsplit("error: ").next().unwrap_or_default();
            format!("this regular expression is not valid: {reason}")
        }
    }
}
