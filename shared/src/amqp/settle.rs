//! Acknowledging: messages are settled in any order, and told to the broker in as few frames as that allows.

use std::collections::BTreeSet;
use std::time::Duration;

use lapin::Channel;
use lapin::options::{BasicAckOptions, BasicNackOptions};
use tokio::sync::mpsc;

use crate::shutdown::Shutdown;

/// What becomes of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Settled {
    /// It is done.
    Done(u64),
    /// Nobody finished it: it goes back to the queue.
    Returned(u64),
}

/// Settlements told in one go.
const AT_A_TIME: usize = 512;
/// How long a settlement waits for others. Each frame is a command to the queue, written to its log; of messages that
/// are done within a few milliseconds most follow on each other, and one frame tells of all of them.
const TOGETHER_WITHIN: Duration = Duration::from_millis(5);

/// Tells the broker until every message of the session is settled and no more can come. While the service
/// stops, what goes back waits until the consumer is `cancelled`, or the broker would send it here again.
pub(super) async fn run(
    channel: Channel,
    mut settled: mpsc::UnboundedReceiver<Settled>,
    stopping: Shutdown,
    cancelled: Shutdown,
) {
    let mut frontier = Frontier::default();
    let mut waiting = Vec::with_capacity(AT_A_TIME);
    while settled.recv_many(&mut waiting, AT_A_TIME).await > 0 {
        tokio::time::sleep(TOGETHER_WITHIN).await;
        while let Ok(another) = settled.try_recv() {
            waiting.push(another);
        }
        for (tag, multiple) in frontier.acks(&waiting) {
            let options = BasicAckOptions { multiple };
            if let Err(error) = channel.basic_ack(tag, options).await {
                // The session is over, and the broker will deliver again what it did not hear of.
                tracing::debug!(%error, "a message could not be acknowledged");
                return;
            }
        }
        for settled in waiting.drain(..) {
            if let Settled::Returned(tag) = settled {
                if stopping.is_stopped() {
                    cancelled.stopped().await;
                }
                let options = BasicNackOptions { requeue: true, ..Default::default() };
                let _ = channel.basic_nack(tag, options).await;
            }
        }
    }
}

/// The tags up to which everything is settled, and those beyond that are settled already.
#[derive(Debug, Default)]
struct Frontier {
    reached: u64,
    beyond: BTreeSet<u64>,
}

impl Frontier {
    /// The acks to send for these: one for all up to the frontier where several are new there, else one each.
    fn acks(&mut self, settled: &[Settled]) -> Vec<(u64, bool)> {
        let mut done = BTreeSet::new();
        for settled in settled {
            match *settled {
                Settled::Done(tag) => {
                    done.insert(tag);
                    self.beyond.insert(tag);
                }
                Settled::Returned(tag) => {
                    self.beyond.insert(tag);
                }
            }
        }
        // A multiple ack would take back a return that it passes, so it stops short of one.
        let first_return = settled
            .iter()
            .filter_map(|settled| match settled {
                Settled::Returned(tag) => Some(*tag),
                Settled::Done(_) => None,
            })
            .min()
            .unwrap_or(u64::MAX);
        while self.beyond.first() == Some(&(self.reached + 1)) {
            self.beyond.pop_first();
            self.reached += 1;
        }
        let beyond = done.split_off(&(self.reached.min(first_return - 1) + 1));
        let mut acks = Vec::with_capacity(beyond.len() + 1);
        // The broker knows only tags that it has not heard of: the last new one stands for all before it.
        if let Some(last) = done.last() {
            acks.push((*last, done.len() > 1));
        }
        acks.extend(beyond.into_iter().map(|tag| (tag, false)));
        acks
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_settled_in_order_is_told_in_one_frame() {
        let mut frontier = Frontier::default();
        assert_eq!(frontier.acks(&[Settled::Done(1), Settled::Done(2), Settled::Done(3)]), [(3, true)]);
        assert_eq!(frontier.acks(&[Settled::Done(5)]), [(5, false)]);
        assert_eq!(frontier.acks(&[Settled::Done(4)]), [(4, false)]);
        assert_eq!(frontier.acks(&[Settled::Done(7), Settled::Done(6)]), [(7, true)]);
    }

    proptest! {
        /// A broker's book of unsettled tags: each tag is settled once, as it was meant, and no ack names a
        /// tag that the broker does not know (which would close the channel).
        #[test]
        fn every_message_is_settled_once_and_as_it_was_meant(
            order in Just((1..=60_u64).collect::<Vec<_>>()).prop_shuffle(),
            returned in proptest::collection::btree_set(1..=60_u64, 0..6),
            sizes in proptest::collection::vec(1..9_usize, 60),
        ) {
            let mut unsettled: BTreeSet<u64> = (1..=60).collect();
            let mut acked = BTreeSet::new();
            let mut frontier = Frontier::default();
            let mut rest = order.as_slice();
            for size in sizes {
                let (now, later) = rest.split_at(size.min(rest.len()));
                rest = later;
                let settled: Vec<_> = now
                    .iter()
                    .map(|tag| if returned.contains(tag) { Settled::Returned(*tag) } else { Settled::Done(*tag) })
                    .collect();
                for (tag, multiple) in frontier.acks(&settled) {
                    prop_assert!(unsettled.contains(&tag), "{tag} is not known");
                    let taken: Vec<_> = unsettled
                        .iter()
                        .copied()
                        .filter(|other| *other == tag || (multiple && *other < tag))
                        .collect();
                    for tag in taken {
                        unsettled.remove(&tag);
                        acked.insert(tag);
                    }
                }
                for settled in settled {
                    if let Settled::Returned(tag) = settled {
                        prop_assert!(unsettled.remove(&tag), "{tag} was acked, and was to return");
                    }
                }
            }
            prop_assert!(unsettled.is_empty());
            prop_assert!(acked.is_disjoint(&returned));
        }
    }
}
