//! The room in a queue: the deliveries that this sender may have of it at a time, and what takes them up.

use cuewire::amqp::topology::Lane;

/// What takes up room, of a webhook or of all of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Places {
    /// Waiting for their webhook's turn.
    pub(super) waiting: usize,
    /// In flight.
    pub(super) in_flight: usize,
}

impl Places {
    pub(super) fn taken(self) -> usize {
        self.waiting + self.in_flight
    }
}

/// The room in one queue.
#[derive(Debug)]
pub(super) struct Room {
    lane: Lane,
    /// The queue's prefetch.
    size: usize,
    pub(super) places: Places,
    /// Of those in flight, the requests of webhooks that are known to be slow.
    pub(super) slow: usize,
    pub(super) held: usize,
}

impl Room {
    /// The room in a queue of this lane, none so far.
    pub(super) fn new(lane: Lane) -> Self {
        Self { lane, size: 0, places: Places::default(), slow: 0, held: 0 }
    }

    /// The queue's prefetch may change with the number of queues.
    pub(super) fn resize(&mut self, prefetch: u16) {
        self.size = usize::from(prefetch);
    }

    pub(super) fn lane(&self) -> Lane {
        self.lane
    }

    /// Whether a webhook that takes up `mine` may take up one place more. One that has the queue for itself
    /// may take all of it, others at most half.
    pub(super) fn has_place_for(&self, mine: Places) -> bool {
        let is_alone = self.places == mine;
        is_alone || mine.taken() < self.size.div_ceil(2)
    }

    /// Whether a webhook that takes up `mine` may have one more request in flight. Nobody knows how long it
    /// will take, so each leaves as many places free as it has itself; and those known to be slow do so
    /// within half of the room, so that the other half is for the quick ones however many hang.
    pub(super) fn may_start(&self, mine: Places, is_slow: bool) -> bool {
        let leaves_room = |taken: usize, size: usize| mine.in_flight == 0 || mine.in_flight + taken < size;
        let half = self.size.div_ceil(2);
        leaves_room(self.places.in_flight, self.size)
            && (!is_slow || (self.slow < half && leaves_room(self.slow, half)))
    }

    /// Whether one more may be held until it is due: at most half of the room for what could as well wait
    /// in the shortest delayed queue, and never the last eighth.
    pub(super) fn may_hold(&self, could_wait: bool) -> bool {
        self.held < if could_wait { self.size / 2 } else { self.size * 7 / 8 }
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
    fn hang(room: &mut Room, webhooks: usize, are_slow: bool) -> usize {
        let mut in_flight = vec![0; webhooks];
        for _ in 0..16 {
            for mine in &mut in_flight {
                if room.may_start(Places { waiting: 0, in_flight: *mine }, are_slow) {
                    *mine += 1;
                    room.places.in_flight += 1;
                    room.slow += usize::from(are_slow);
                }
            }
        }
        room.places.in_flight
    }

    #[test]
    fn webhooks_that_hang_leave_room_in_their_queue_however_many_they_are() {
        for webhooks in [1, 2, 4, 8, 30, 60] {
            let mut room = room(Lane::Due, 64);
            let surprised = hang(&mut room, webhooks, false);
            assert!(surprised < 64, "{webhooks} quick ones that begin to hang have {surprised}");
        }
        for webhooks in [1, 2, 4, 8, 30, 60, 1_000] {
            let mut room = room(Lane::Due, 64);
            let known = hang(&mut room, webhooks, true);
            assert!(known <= 32, "{webhooks} slow ones have {known}");
            assert!(room.may_start(Places::default(), false));
        }
    }

    #[test]
    fn a_slow_webhook_that_is_alone_has_the_slots_that_webhooks_have_by_default() {
        assert_eq!(hang(&mut room(Lane::Due, 64), 1, true), 16);
    }

    #[test]
    fn a_webhook_may_have_all_places_while_it_is_alone_and_half_of_them_beside_others() {
        let mut room = room(Lane::Fresh, 64);
        let mine = Places { waiting: 60, in_flight: 3 };
        room.places = mine;
        assert!(room.has_place_for(mine));
        room.places.in_flight += 1;
        assert!(!room.has_place_for(mine));
        assert!(!room.has_place_for(Places { waiting: 16, in_flight: 16 }));
        assert!(room.has_place_for(Places { waiting: 16, in_flight: 15 }));
    }

    #[test]
    fn what_is_held_leaves_room_too() {
        let mut room = room(Lane::Due, 64);
        room.held = 31;
        assert!(room.may_hold(true));
        room.held = 32;
        assert!(!room.may_hold(true) && room.may_hold(false));
        room.held = 56;
        assert!(!room.may_hold(false));
    }
}
