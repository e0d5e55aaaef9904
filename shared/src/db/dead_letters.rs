//! Dead letters: what failed for good, or was not understood, until it is sent again or deleted.

mod read;

pub use read::{DeadLetter, DeadLetterFilter, DeadLetterPage, DeadLetterPlace, StoredDeadLetter};
