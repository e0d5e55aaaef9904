//! Quotas: so much of something in all, and of it so much for one organization, so that none can take it from the
//! others.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cuewire::ids::OrganizationId;

/// What there is of something. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Quota {
    all: usize,
    own: usize,
    taken: Arc<Mutex<Taken>>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    /// Those that have none are not here.
    by: HashMap<OrganizationId, usize>,
}

/// What somebody has taken of it, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Share {
    quota: Quota,
    holder: Option<OrganizationId>,
    taken: usize,
}

/// Why no more can be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Full {
    /// There is no more.
    All,
    /// There is no more for this organization.
    Own,
}

impl Quota {
    /// So much in all, and so much for one organization.
    pub(crate) fn new(all: usize, own: usize) -> Self {
        Self { all, own, taken: Arc::default() }
    }

    /// A share of it, of which nothing is taken yet. Without a holder it is the operator's, bounded by all alone.
    pub(crate) fn share(&self, holder: Option<OrganizationId>) -> Share {
        Share { quota: self.clone(), holder, taken: 0 }
    }

    /// One of it.
    pub(crate) fn one(&self, holder: OrganizationId) -> Result<Share, Full> {
        let mut share = self.share(Some(holder));
        share.take(1)?;
        Ok(share)
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Share {
    /// Takes so much more, or nothing.
    pub(crate) fn take(&mut self, amount: usize) -> Result<(), Full> {
        let mut taken = self.quota.taken();
        let own = self.holder.and_then(|holder| taken.by.get(&holder)).copied().unwrap_or_default();
        if self.holder.is_some() && own + amount > self.quota.own {
            return Err(Full::Own);
        }
        if taken.all + amount > self.quota.all {
            return Err(Full::All);
        }
        taken.all += amount;
        if let Some(holder) = self.holder {
            taken.by.insert(holder, own + amount);
        }
        self.taken += amount;
        Ok(())
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut taken = self.quota.taken();
        taken.all -= self.taken;
        if let Some(holder) = self.holder
            && let Some(own) = taken.by.get_mut(&holder)
        {
            *own -= self.taken;
            if *own == 0 {
                taken.by.remove(&holder);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_organization_cannot_take_all_and_what_is_dropped_is_given_back() {
        let quota = Quota::new(10, 4);
        let greedy = OrganizationId::new();
        let (mut one, mut two) = (quota.share(Some(greedy)), quota.share(Some(greedy)));
        assert_eq!(one.take(4), Ok(()));
        assert_eq!(two.take(1), Err(Full::Own));
        let other = quota.one(OrganizationId::new()).unwrap();
        let mut operator = quota.share(None);
        assert_eq!((operator.take(6), operator.take(5)), (Err(Full::All), Ok(())));
        assert_eq!(quota.one(OrganizationId::new()).unwrap_err(), Full::All);
        drop((one, operator));
        assert_eq!((two.take(3), two.take(2), two.take(1)), (Ok(()), Err(Full::Own), Ok(())));
        drop((two, other));
        let taken = quota.taken();
        assert_eq!((taken.all, taken.by.len()), (0, 0), "nobody is remembered");
    }
}
