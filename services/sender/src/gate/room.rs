//! The room in a queue: the deliveries that this sender may have of it at a time, and what takes them up.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cuewire::amqp::topology::Lane;
use tokio::sync::Notify;

use super::Refusal;
use super::pace::Pace;

/// An organization has at most so many times as many requests in flight in a queue as it leaves places free.
const SHARE_OF_FREE: usize = 3;
/// The same, for a request that is expected to end in a moment: what hangs has not taken the last of its share.
const SHARE_OF_FREE_FOR_A_MOMENT: usize = 7;

/// What takes up room, of a webhook, of an organization, or of all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Places {
    /// Waiting for their turn.
    pub(super) waiting: usize,
    /// In flight.
    pub(super) in_flight: usize,
}

impl Places {
    /// One more waits.
    pub(super) fn come(&mut self) {
        self.waiting += 1;
    }

    /// One that waited is in flight.
    pub(super) fn start(&mut self) {
        self.waiting -= 1;
        self.in_flight += 1;
    }

    /// One that waited has left without having been in flight.
    pub(super) fn give_up(&mut self) {
        self.waiting -= 1;
    }

    /// One has ended.
    pub(super) fn end(&mut self) {
        self.in_flight -= 1;
    }

    pub(super) fn taken(self) -> usize {
        self.waiting + self.in_flight
    }
}

/// What is known of how long a webhook's requests take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Speed {
    /// Nothing bad.
    Quick,
    /// They take long.
    Slow,
}

/// How long one more request is expected to take up its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stay {
    /// Its webhook answers quickly, and has hardly anything in flight.
    ForAMoment,
    /// Nobody knows.
    Unknown,
}

/// How long a delivery is held until it is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// So long that it could as well wait in the shortest delayed queue.
    LongEnoughToPark,
    /// Less than that.
    Briefly,
}

/// What one organization has of a room.
#[derive(Debug)]
pub(super) struct Share {
    /// Of the queue's prefetch, those of which a delivery waits for its turn or is in flight.
    pub(super) messages: usize,
    pub(super) places: Places,
    pub(super) pace: Pace,
    /// Tells one of those that wait for room that it may look again.
    pub(super) freed: Arc<Notify>,
    pub(super) used: Instant,
}

impl Share {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            messages: 0,
            places: Places::default(),
            pace: Pace::new(now),
            freed: Arc::default(),
            used: now,
        }
    }

    /// The mean time between two of its requests that end.
    pub(super) fn spacing(&self, now_s: f64) -> Duration {
        self.pace.spacing(self.pace.in_flight(), now_s)
    }
}

/// The room in one queue.
#[derive(Debug)]
pub(super) struct Room {
    lane: Lane,
    /// The queue's prefetch.
    size: usize,
    /// Of it, those of which a delivery waits for its turn or is in flight.
    pub(super) messages: usize,
    pub(super) places: Places,
    /// Of those in flight, the requests of webhooks that are known to be slow.
    pub(super) slow: usize,
    pub(super) held: usize,
}

impl Room {
    /// The room in a queue of this lane, none so far.
    pub(super) fn new(lane: Lane) -> Self {
        Self { lane, size: 0, messages: 0, places: Places::default(), slow: 0, held: 0 }
    }

    /// The queue's prefetch may change with the number of queues.
    pub(super) fn resize(&mut self, prefetch: u16) {
        self.size = usize::from(prefetch);
    }

    pub(super) fn lane(&self) -> Lane {
        self.lane
    }

    /// Whose deliveries are too many for one more to wait, of a webhook that takes up `mine`, of an organization that
    /// has `ours` of the messages; none: it may wait. Who has the queue for itself may take all of it. A webhook beside
    /// others may have half of it: or of all deliveries that are here, which are more where one message holds several.
    /// An organization beside others may have half of the messages; what stays for a moment may be there as long as its
    /// organization has less than seven eighths.
    pub(super) fn crowded_by(&self, mine: Places, ours: usize, stay: Stay) -> Option<Refusal> {
        let most_of_mine = self.size.max(self.places.taken()).div_ceil(2);
        let most_of_ours = match stay {
            Stay::ForAMoment => self.size * 7 / 8,
            Stay::Unknown => self.size.div_ceil(2),
        };
        if self.places != mine && mine.taken() >= most_of_mine {
            Some(Refusal::Webhook)
        } else if self.messages != ours && ours >= most_of_ours {
            Some(Refusal::Organization)
        } else {
            None
        }
    }

    /// Whether the organization that has `ours` may have one more request in flight. Which will hang nobody
    /// knows beforehand, so that each leaves places free, the more the more it has. But those of its webhooks that
    /// go on answering must not wait for those that hang.
    pub(super) fn may_add(&self, ours: Places, stay: Stay) -> bool {
        let free = self.size.saturating_sub(self.places.in_flight + self.held);
        let share = match stay {
            Stay::ForAMoment => SHARE_OF_FREE_FOR_A_MOMENT,
            Stay::Unknown => SHARE_OF_FREE,
        };
        ours.in_flight == 0 || ours.in_flight < share * free
    }

    /// Whether a webhook that takes up `mine` may have one more request in flight. Each leaves as many places
    /// free as it has itself; and those known to be slow do so within half of the room, so that the other half
    /// is for the quick ones however many are known to hang.
    pub(super) fn may_start(&self, mine: Places, speed: Speed) -> bool {
        let leaves_room = |taken: usize, size: usize| mine.in_flight == 0 || mine.in_flight + taken < size;
        let half = self.size.div_ceil(2);
        leaves_room(self.places.in_flight + self.held, self.size)
            && (speed == Speed::Quick || (self.slow < half && leaves_room(self.slow, half)))
    }

    /// The most requests that one webhook can have in flight.
    pub(super) fn most_of_one(&self, speed: Speed) -> usize {
        self.size.div_ceil(match speed {
            Speed::Quick => 2,
            Speed::Slow => 4,
        })
    }

    /// Whether one more may be held until it is due: at most half of the room, so that the other half is for requests; and
    /// a quarter for what could as well wait in the shortest delayed queue.
    pub(super) fn may_hold(&self, kept: Kept) -> bool {
        let most = match kept {
            Kept::LongEnoughToPark => self.size / 4,
            Kept::Briefly => self.size / 2,
        };
        self.held < most
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(lane: Lane, prefetch: u16) -> Room {
        let mut room = Room::new(lane);
        room.resize(prefetch);
        room
    }

    /// Lets webhooks start as many requests as they may, in turn, none of which ends; answers how many are in
    /// flight.
    fn hang(room: &mut Room, webhooks: usize, speed: Speed) -> usize {
        let mut in_flight = vec![0; webhooks];
        for _ in 0..16 {
            for mine in &mut in_flight {
                if room.may_start(Places { in_flight: *mine, ..Places::default() }, speed) {
                    *mine += 1;
                    room.places.in_flight += 1;
                    room.slow += usize::from(speed == Speed::Slow);
                }
            }
        }
        room.places.in_flight
    }

    #[test]
    fn webhooks_that_begin_to_hang_leave_room_and_those_known_to_however_many_they_are() {
        for webhooks in [1, 2, 4, 8, 30, 60] {
            let mut room = room(Lane::Due, 64);
            let surprised = hang(&mut room, webhooks, Speed::Quick);
            assert!(surprised < 64, "{webhooks} quick ones that begin to hang have {surprised}");
        }
        for webhooks in [1, 2, 4, 8, 30, 60, 1_000] {
            let mut room = room(Lane::Due, 64);
            let known = hang(&mut room, webhooks, Speed::Slow);
            assert!(known <= 32, "{webhooks} slow ones have {known}");
            assert!(room.may_start(Places::default(), Speed::Quick));
        }
    }

    #[test]
    fn organizations_whose_webhooks_all_hang_leave_room_however_many_these_are() {
        let unknown = [(1, 192), (2, 220), (3, 231)].map(|expected| (Stay::Unknown, expected));
        // Each of which has answered quickly until now.
        let surprised = [(1, 224), (2, 239), (3, 245)].map(|expected| (Stay::ForAMoment, expected));
        for (stay, (organizations, expected)) in unknown.into_iter().chain(surprised) {
            let mut room = room(Lane::Fresh, 256);
            let mut in_flight = vec![0; organizations];
            // A request to one webhook after another, none of which answers.
            for _ in 0..10_000 {
                for ours in &mut in_flight {
                    if room.may_add(Places { in_flight: *ours, ..Places::default() }, stay) {
                        *ours += 1;
                        room.places.in_flight += 1;
                    }
                }
            }
            assert!(room.places.in_flight <= expected, "{organizations} have {}", room.places.in_flight);
            let other = Places::default();
            assert!(room.may_add(other, Stay::Unknown), "another organization's first request is sent");
        }
    }

    #[test]
    fn an_organization_whose_webhooks_hang_leaves_room_whatever_else_is_held() {
        let mut room = room(Lane::Fresh, 256);
        room.held = 128;
        let mut ours = 0;
        while room.may_add(Places { in_flight: ours, ..Places::default() }, Stay::Unknown) {
            (ours, room.places.in_flight) = (ours + 1, ours + 1);
        }
        assert!(room.held + ours < 256, "{ours} in flight");
    }

    #[test]
    fn a_slow_webhook_that_is_alone_has_the_slots_that_webhooks_have_by_default() {
        let mut room = room(Lane::Due, 64);
        assert_eq!(hang(&mut room, 1, Speed::Slow), 16);
        assert_eq!(room.most_of_one(Speed::Slow), 16);
    }

    #[test]
    fn a_webhook_may_have_all_places_while_it_is_alone_and_half_of_them_beside_others() {
        let mut room = room(Lane::Fresh, 64);
        let places = |waiting, in_flight| Places { waiting, in_flight };
        let mine = places(60, 3);
        (room.places, room.messages) = (mine, 64);
        assert_eq!(room.crowded_by(mine, 64, Stay::Unknown), None);
        room.places = places(60, 4);
        assert_eq!(room.crowded_by(mine, 64, Stay::Unknown), Some(Refusal::Webhook));
        let small = places(0, 1);
        assert_eq!(
            room.crowded_by(small, 64, Stay::Unknown),
            None,
            "another webhook of the same organization"
        );
        assert_eq!(room.crowded_by(small, 2, Stay::Unknown), None, "of another");
        let half = places(16, 16);
        assert_eq!(room.crowded_by(half, 32, Stay::Unknown), Some(Refusal::Webhook));
    }

    #[test]
    fn an_organization_beside_others_may_have_half_of_the_messages_or_seven_eighths_for_a_moment() {
        let mut room = room(Lane::Fresh, 64);
        // Five deliveries in each of the messages that the queue lets in.
        (room.places, room.messages) = (Places { waiting: 320, in_flight: 0 }, 64);
        let mine = Places { waiting: 63, in_flight: 0 };
        for (stay, most) in [(Stay::Unknown, 32), (Stay::ForAMoment, 56)] {
            assert_eq!(room.crowded_by(mine, most - 1, stay), None, "{stay:?}");
            assert_eq!(room.crowded_by(mine, most, stay), Some(Refusal::Organization), "{stay:?}");
            assert_eq!(room.crowded_by(mine, 64, stay), None, "{stay:?}, and there is no other");
        }
    }

    #[test]
    fn what_is_held_leaves_room_too() {
        let mut room = room(Lane::Due, 64);
        room.held = 15;
        assert!(room.may_hold(Kept::LongEnoughToPark));
        room.held = 16;
        assert!(!room.may_hold(Kept::LongEnoughToPark) && room.may_hold(Kept::Briefly));
        room.held = 32;
        assert!(!room.may_hold(Kept::Briefly));
        assert_eq!(hang(&mut room, 1, Speed::Slow), 16, "as many requests as where nothing is held");
    }
}
