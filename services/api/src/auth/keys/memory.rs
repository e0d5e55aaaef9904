//! What is remembered of keys, and when it is believed. Pure: what is read from the database and heard of
//! changes is told to it.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use cuewire::db::api_keys::KeyHolder;
use cuewire::db::changes::Change;
use cuewire::ids::OrganizationId;

/// About 20 MB; ten keys for each of 10,000 organizations.
const MAX_KNOWN: usize = 100_000;
/// Wrong keys are worth less memory, and only a moment of it.
const MAX_WRONG: usize = 10_000;
const WRONG_FOR: Duration = Duration::from_secs(5);
/// How long a doubted key that could not be looked up is not tried again.
const DOUBT_AGAIN_AFTER: Duration = Duration::from_secs(5);
/// More changes are not made during one look-up; if they are, it counts as if all of them concerned it.
const MAX_HEARD: usize = 1_024;

/// The SHA-256 of a key.
pub(super) type Hash = [u8; 32];

/// The keys that were looked up.
#[derive(Default)]
pub(super) struct Memory {
    pub(super) known: HashMap<Hash, Known>,
    /// Keys that were not found, and when.
    wrong: HashMap<Hash, Instant>,
    /// Counts the changes that were heard of.
    pub(super) changes: u64,
    /// The last of them.
    heard: VecDeque<Change>,
}

pub(super) struct Known {
    holder: KeyHolder,
    doubt: Option<Doubt>,
}

/// The organization has changed since, and the key was not looked up yet.
struct Doubt {
    /// Before this time it is not tried again.
    again_at: Instant,
}

/// What is known of a key.
pub(super) enum Recalled {
    /// No look-up is needed: the holder, or that there is none.
    Sure(Option<KeyHolder>),
    /// To be looked up, and good as long as that is not possible.
    Doubted(KeyHolder),
    /// To be looked up.
    Unknown,
}

impl Memory {
    pub(super) fn recall(&self, sha256: &Hash) -> Recalled {
        if let Some(Known { holder, doubt }) = self.known.get(sha256) {
            return match doubt {
                Some(doubt) if doubt.again_at <= Instant::now() => Recalled::Doubted(holder.clone()),
                _ => Recalled::Sure(Some(holder.clone())),
            };
        }
        match self.wrong.get(sha256) {
            Some(since) if since.elapsed() < WRONG_FOR => Recalled::Sure(None),
            _ => Recalled::Unknown,
        }
    }

    /// Takes what was read from the database at a time when `as_of` changes had been heard of.
    pub(super) fn remember(&mut self, sha256: Hash, holder: Option<KeyHolder>, as_of: u64) {
        let Some(holder) = holder else {
            self.known.remove(&sha256);
            // It may have been made since.
            if self.changes == as_of {
                self.note_wrong(sha256);
            }
            return;
        };
        // It may have been deleted since. If it is known, it is doubted by that change.
        if self.has_changed(holder.organization, as_of) {
            return;
        }
        if self.known.len() >= MAX_KNOWN && !self.known.contains_key(&sha256) {
            // Any one will do: it is looked up again when it comes.
            let victim = self.known.keys().next().copied();
            victim.map(|victim| self.known.remove(&victim));
        }
        self.known.insert(sha256, Known { holder, doubt: None });
    }

    fn note_wrong(&mut self, sha256: Hash) {
        if self.wrong.len() >= MAX_WRONG {
            self.wrong.clear();
        }
        self.wrong.insert(sha256, Instant::now());
    }

    /// Whether a change was heard of that may concern the organization, since `as_of` of them had been.
    fn has_changed(&self, organization: OrganizationId, as_of: u64) -> bool {
        let since = usize::try_from(self.changes - as_of).unwrap_or(usize::MAX);
        since > self.heard.len()
            || self.heard.iter().rev().take(since).any(|change| concerns(*change, organization))
    }

    /// Doubts the keys that a change may concern.
    pub(super) fn doubt(&mut self, change: Change) {
        self.changes += 1;
        if self.heard.len() == MAX_HEARD {
            self.heard.pop_front();
        }
        self.heard.push_back(change);
        // A key that was not found may be the one that was made.
        self.wrong.clear();
        for known in self.known.values_mut().filter(|known| concerns(change, known.holder.organization)) {
            known.doubt = Some(Doubt { again_at: Instant::now() });
        }
    }

    /// At most so many keys that are doubted, and how many changes were heard of.
    pub(super) fn doubted(&self, limit: usize) -> (Vec<Hash>, u64) {
        let doubted = self.known.iter().filter(|(_, known)| known.doubt.is_some());
        (doubted.map(|(sha256, _)| *sha256).take(limit).collect(), self.changes)
    }

    pub(super) fn doubt_later(&mut self, sha256: &Hash) {
        if let Some(Known { doubt: Some(doubt), .. }) = self.known.get_mut(sha256) {
            doubt.again_at = Instant::now() + DOUBT_AGAIN_AFTER;
        }
    }

    /// Puts what was found in the place of what was doubted.
    pub(super) fn replace(&mut self, doubted: &[Hash], found: Vec<(Hash, KeyHolder)>, as_of: u64) {
        let mut found: HashMap<Hash, KeyHolder> = found.into_iter().collect();
        for sha256 in doubted {
            match found.remove(sha256) {
                None => drop(self.known.remove(sha256)),
                holder => self.remember(*sha256, holder, as_of),
            }
        }
    }
}

fn concerns(change: Change, organization: OrganizationId) -> bool {
    match change {
        Change::Organization(changed) => changed == organization,
        Change::Breaker(_) | Change::Failing(_) => false,
        Change::Everything => true,
    }
}

#[cfg(test)]
mod tests {
    use cuewire::db::api_keys::Role;
    use cuewire::ids::ApiKeyId;

    use super::*;

    fn holder(organization: OrganizationId) -> KeyHolder {
        KeyHolder { key: ApiKeyId::new(), organization, external_id: None, role: Role::Viewer }
    }

    #[test]
    fn a_change_casts_doubt_on_the_organizations_keys_and_no_others() {
        let (one, other) = (OrganizationId::new(), OrganizationId::new());
        let mut memory = Memory::default();
        memory.remember([1; 32], Some(holder(one)), 0);
        memory.remember([2; 32], Some(holder(other)), 0);
        memory.remember([3; 32], None, 0);
        assert!(matches!(memory.recall(&[3; 32]), Recalled::Sure(None)));

        memory.doubt(Change::Organization(one));
        assert_eq!(memory.doubted(9), (vec![[1; 32]], 1));
        assert!(matches!(memory.recall(&[1; 32]), Recalled::Doubted(_)));
        assert!(matches!(memory.recall(&[2; 32]), Recalled::Sure(Some(_))));
        assert!(matches!(memory.recall(&[3; 32]), Recalled::Unknown), "it may be the key that was made");

        memory.doubt_later(&[1; 32]);
        assert!(matches!(memory.recall(&[1; 32]), Recalled::Sure(Some(_))), "the database is away");
        memory.doubt(Change::Everything);
        assert_eq!(memory.doubted(9).0.len(), 2);
        memory.replace(&[[1; 32], [2; 32]], vec![([2; 32], holder(other))], 2);
        assert!(matches!(memory.recall(&[1; 32]), Recalled::Unknown), "it was deleted");
        assert!(matches!(memory.recall(&[2; 32]), Recalled::Sure(Some(_))));
    }

    #[test]
    fn a_first_look_up_is_remembered_whatever_happens_to_other_organizations_meanwhile() {
        let (one, other) = (OrganizationId::new(), OrganizationId::new());
        let mut memory = Memory::default();
        let as_of = memory.changes;
        for _ in 0..MAX_HEARD {
            memory.doubt(Change::Organization(other));
        }
        memory.remember([1; 32], Some(holder(one)), as_of);
        assert!(matches!(memory.recall(&[1; 32]), Recalled::Sure(Some(_))));
        memory.doubt(Change::Organization(other));
        memory.remember([2; 32], Some(holder(one)), as_of);
        assert!(
            matches!(memory.recall(&[2; 32]), Recalled::Unknown),
            "so many changes are not looked through"
        );
    }

    /// What a key's life is made of, each in its own order.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum Step {
        Delete,
        HearOfDeletion,
        HearOfAnother,
        /// A look-up for a request: begins, reads, ends.
        Request,
        /// A look-up of what is doubted: begins, reads, ends.
        Settle,
    }

    /// A look-up on its way.
    #[derive(Debug, Default, Clone)]
    struct LookUp {
        as_of: Option<u64>,
        keys: Vec<Hash>,
        found: Option<Option<KeyHolder>>,
    }

    /// Calls `run` with every order of the steps, of each of which there are so many.
    fn in_every_order(left: &mut Vec<(Step, usize)>, order: &mut Vec<Step>, run: &mut impl FnMut(&[Step])) {
        if left.iter().all(|(_, count)| *count == 0) {
            return run(order);
        }
        for at in 0..left.len() {
            let (step, count) = left[at];
            // It is heard of when it has happened.
            if count == 0 || (step == Step::HearOfDeletion && !order.contains(&Step::Delete)) {
                continue;
            }
            left[at].1 -= 1;
            order.push(step);
            in_every_order(left, order, run);
            order.pop();
            left[at].1 += 1;
        }
    }

    #[test]
    fn a_key_that_was_deleted_is_not_believed_in_any_order_of_look_ups_and_changes() {
        const KEY: Hash = [1; 32];
        let steps = [
            (Step::Delete, 1),
            (Step::HearOfDeletion, 1),
            (Step::HearOfAnother, 1),
            (Step::Request, 3),
            (Step::Settle, 3),
        ];
        let mut orders = 0;
        for known_before in [false, true] {
            in_every_order(&mut steps.to_vec(), &mut Vec::new(), &mut |order| {
                orders += 1;
                let one = OrganizationId::new();
                let (mut memory, mut row) = (Memory::default(), Some(holder(one)));
                if known_before {
                    memory.remember(KEY, row.clone(), 0);
                    memory.doubt(Change::Organization(one));
                }
                let (mut request, mut settle) = (LookUp::default(), LookUp::default());
                for step in order {
                    match step {
                        Step::Delete => row = None,
                        Step::HearOfDeletion => memory.doubt(Change::Organization(one)),
                        Step::HearOfAnother => memory.doubt(Change::Organization(OrganizationId::new())),
                        Step::Request => match (request.as_of, &request.found) {
                            (None, _) => request.as_of = Some(memory.changes),
                            (Some(_), None) => request.found = Some(row.clone()),
                            (Some(as_of), Some(found)) => memory.remember(KEY, found.clone(), as_of),
                        },
                        Step::Settle => match (settle.as_of, &settle.found) {
                            (None, _) => {
                                let (keys, as_of) = memory.doubted(9);
                                (settle.keys, settle.as_of) = (keys, Some(as_of));
                            }
                            (Some(_), None) => settle.found = Some(row.clone()),
                            (Some(as_of), Some(found)) => {
                                let found = found.iter().map(|holder| (KEY, holder.clone())).collect();
                                memory.replace(&settle.keys, found, as_of);
                            }
                        },
                    }
                }
                let recalled = memory.recall(&KEY);
                assert!(!matches!(recalled, Recalled::Sure(Some(_))), "{order:?}");
                // What is doubted still is looked up at once.
                let (doubted, as_of) = memory.doubted(9);
                memory.replace(&doubted, Vec::new(), as_of);
                assert!(memory.known.is_empty(), "{order:?}");
            });
        }
        assert!(orders > 2_000, "{orders}");
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut memory = Memory::default();
        let hash = |number: usize| {
            let mut hash = [0; 32];
            hash[..8].copy_from_slice(&(number as u64).to_be_bytes());
            hash
        };
        for number in 0..=MAX_KNOWN {
            memory.remember(hash(number), Some(holder(OrganizationId::default())), 0);
        }
        for number in 0..=MAX_WRONG {
            memory.remember(hash(MAX_KNOWN + 1 + number), None, 0);
        }
        assert_eq!(memory.known.len(), MAX_KNOWN);
        assert!(memory.wrong.len() <= MAX_WRONG);
    }
}
