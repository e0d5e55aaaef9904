//! What is wrong with the events of a request, told in one answer: by the field, and in a batch by the index too.

use axum::http::StatusCode;
use cuewire::event::{EventError, MAX_EVENT_BYTES};
use cuewire::schema::Misfit;

use crate::error::{FieldError, Problem};

/// More than these are only counted: whoever mends these will see the others.
const MAX_NAMED: usize = 20;
/// A name that is no attribute's may be as long as the event.
const MAX_FIELD_BYTES: usize = 100;

/// Why an event is not accepted.
pub(super) enum Refusal {
    /// It is none, or over a limit.
    NotAnEvent(EventError),
    /// It does not fit its type's schema.
    Unfit(Misfit),
    /// Its organization is not the caller's: what is wrong, to be read after the field's name.
    NotYours(String),
}

/// The faults found so far.
pub(super) struct Faults {
    is_batch: bool,
    /// The gravest kind decides the answer's status.
    status: Option<StatusCode>,
    named: Vec<FieldError>,
    more: usize,
}

impl Faults {
    /// Of a single event.
    pub(super) fn of_one() -> Self {
        Self { is_batch: false, status: None, named: Vec::new(), more: 0 }
    }

    /// Of an array of events.
    pub(super) fn of_a_batch() -> Self {
        Self { is_batch: true, ..Self::of_one() }
    }

    /// Takes what was read of the event at `index`, or notes why it is not accepted.
    pub(super) fn note<T>(&mut self, index: usize, read: Result<T, Refusal>) -> Option<T> {
        let refusal = match read {
            Ok(read) => return Some(read),
            Err(refusal) => refusal,
        };
        let (status, mut fault) = self.tell(refusal);
        self.status = Some(
            self.status.map_or(status, |graver| if rank(graver) > rank(status) { graver } else { status }),
        );
        if self.named.len() == MAX_NAMED {
            self.more += 1;
            return None;
        }
        fault.index = self.is_batch.then_some(index);
        fault.field.truncate(fault.field.floor_char_boundary(MAX_FIELD_BYTES));
        self.named.push(fault);
        None
    }

    fn tell(&self, refusal: Refusal) -> (StatusCode, FieldError) {
        let event = |detail| FieldError::new("event", detail);
        match refusal {
            Refusal::NotYours(detail) => (StatusCode::FORBIDDEN, FieldError::new("organization", detail)),
            Refusal::NotAnEvent(EventError::TooLarge { bytes }) => (
                StatusCode::PAYLOAD_TOO_LARGE,
                event(format!("is {bytes} bytes, and at most {MAX_EVENT_BYTES} are accepted")),
            ),
            // The array around it was valid JSON, so the event is, but no object.
            Refusal::NotAnEvent(EventError::Syntax(reason)) if self.is_batch => {
                (StatusCode::UNPROCESSABLE_ENTITY, event(format!("must be an object: {reason}")))
            }
            Refusal::NotAnEvent(EventError::Syntax(reason)) => {
                (StatusCode::BAD_REQUEST, event(format!("is not valid JSON: {reason}")))
            }
            Refusal::Unfit(Misfit { path, reason }) if path.is_empty() => {
                (StatusCode::UNPROCESSABLE_ENTITY, event(reason))
            }
            Refusal::NotAnEvent(EventError::Invalid { field, reason })
            | Refusal::Unfit(Misfit { path: field, reason }) => {
                (StatusCode::UNPROCESSABLE_ENTITY, FieldError::new(field, reason))
            }
        }
    }

    /// The faults as an answer, if there are any.
    pub(super) fn finish(self) -> Result<(), Problem> {
        match self.status {
            None => Ok(()),
            Some(status) => Err(Problem::of_fields(status, self.named, self.more)),
        }
    }
}

/// What is no event at all is told before what is too large, and that before what is another's.
fn rank(status: StatusCode) -> u8 {
    match status {
        StatusCode::FORBIDDEN => 0,
        StatusCode::PAYLOAD_TOO_LARGE => 1,
        _ => 2,
    }
}
