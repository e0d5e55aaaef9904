//! What the broker says of messages under way, matched to those who wait for it.
//!
//! A confirm names its message, but lapin hands a message that came back to whichever confirm it reads next, so a
//! return is matched by its message's id.

use std::collections::HashMap;

use lapin::Confirmation;
use tokio::sync::oneshot;

use super::publisher::PublishError;

/// Who waits for the broker's word on a message.
pub(super) type Waiting = oneshot::Sender<Result<(), PublishError>>;

/// What the broker says at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Said {
    is_taken: bool,
    /// A message that came back: this one, or another.
    came_back: Option<CameBack>,
}

/// A message that no queue takes.
#[derive(Debug, Clone, PartialEq, Eq)]
struct CameBack {
    id: String,
    exchange: String,
}

impl From<Confirmation> for Said {
    fn from(confirmation: Confirmation) -> Self {
        let is_taken = !confirmation.is_nack();
        let message = confirmation.take_message();
        let came_back = message.and_then(|message| {
            let delivery = message.delivery;
            let id = delivery.properties.message_id().as_ref()?.to_string();
            Some(CameBack { id, exchange: delivery.exchange.to_string() })
        });
        Self { is_taken, came_back }
    }
}

/// What was said, until it is told.
#[derive(Debug, Default)]
pub(super) struct Verdicts {
    said: Vec<(bool, String, Waiting)>,
    /// How many messages of an id came back whose own confirm is not told yet.
    came_back: HashMap<String, usize>,
    /// An exchange of the topology's that has lost its queue.
    queueless: Option<String>,
}

impl Verdicts {
    /// Notes what was said of the message of this id.
    pub(super) fn note(&mut self, said: Said, id: String, waiting: Waiting) {
        if let Some(CameBack { id, exchange }) = said.came_back {
            *self.came_back.entry(id).or_default() += 1;
            // Through the exchange without a name goes what is for one caller, who may be gone.
            if !exchange.is_empty() {
                self.queueless = Some(exchange);
            }
        }
        self.said.push((said.is_taken, id, waiting));
    }

    /// An exchange from which a message has come back: its queue is gone, or its binding. Told once.
    pub(super) fn take_queueless(&mut self) -> Option<String> {
        self.queueless.take()
    }

    /// Tells those who wait. To be called when all is noted that was said so far: the return of a message may be with
    /// a confirm that was read a moment before its own and is noted a moment after it.
    pub(super) fn tell(&mut self) {
        for (is_taken, id, waiting) in std::mem::take(&mut self.said) {
            let result = match (self.take_return(&id), is_taken) {
                (true, _) => Err(PublishError::Unroutable),
                (false, true) => Ok(()),
                (false, false) => Err(PublishError::Refused),
            };
            // A caller that gave up waiting does not need to know.
            let _ = waiting.send(result);
        }
    }

    fn take_return(&mut self, id: &str) -> bool {
        let Some(count) = self.came_back.get_mut(id) else { return false };
        *count -= 1;
        if *count == 0 {
            self.came_back.remove(id);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Told = oneshot::Receiver<Result<(), PublishError>>;

    fn note(verdicts: &mut Verdicts, id: &str, is_taken: bool, came_back: Option<&str>) -> Told {
        let (waiting, told) = oneshot::channel();
        let came_back = came_back.map(|id| CameBack { id: id.to_owned(), exchange: String::new() });
        let said = Said { is_taken, came_back };
        verdicts.note(said, id.to_owned(), waiting);
        told
    }

    #[test]
    fn a_message_that_came_back_with_anothers_confirm_is_told_so_and_the_other_is_not() {
        let mut verdicts = Verdicts::default();
        // With one that is confirmed before it, in the same go and in an earlier one, and with one after it.
        let told = [
            note(&mut verdicts, "1", true, Some("2")),
            note(&mut verdicts, "2", true, None),
            note(&mut verdicts, "3", true, None),
            note(&mut verdicts, "4", true, Some("3")),
            note(&mut verdicts, "5", false, Some("6")),
        ];
        verdicts.tell();
        let last = note(&mut verdicts, "6", true, None);
        verdicts.tell();
        let unroutable = Err(PublishError::Unroutable);
        let expected = [Ok(()), unroutable, unroutable, Ok(()), Err(PublishError::Refused), unroutable];
        for (told, expected) in told.into_iter().chain([last]).zip(expected) {
            assert_eq!(told.blocking_recv(), Ok(expected));
        }
        assert!(verdicts.came_back.is_empty());
    }

    #[test]
    fn as_many_messages_of_one_id_are_told_that_they_came_back_as_did() {
        let mut verdicts = Verdicts::default();
        let told = [
            note(&mut verdicts, "1", true, Some("1")),
            note(&mut verdicts, "1", true, Some("1")),
            note(&mut verdicts, "1", true, None),
        ];
        verdicts.tell();
        let unroutable = Err(PublishError::Unroutable);
        assert_eq!(told.map(|told| told.blocking_recv().unwrap()), [unroutable, unroutable, Ok(())]);
    }

    #[test]
    fn a_message_that_came_back_from_an_exchange_with_a_name_tells_that_its_queue_is_gone() {
        let mut verdicts = Verdicts::default();
        for exchange in ["", "retry.5s", ""] {
            let came_back = Some(CameBack { id: "1".to_owned(), exchange: exchange.to_owned() });
            verdicts.note(Said { is_taken: true, came_back }, "1".to_owned(), oneshot::channel().0);
        }
        assert_eq!(verdicts.take_queueless().as_deref(), Some("retry.5s"));
        assert_eq!(verdicts.take_queueless(), None);
    }
}
