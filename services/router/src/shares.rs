//! Shares: how many deliveries a second of one organization go by the fresh lane. What exceeds its share goes by the
//! bulk lane, so that one customer's flood waits for itself; while nobody else waits, the bulk lane is as quick.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use cuewire::amqp::topology::Lane;
use cuewire::ids::OrganizationId;

/// What an organization has not used, it may use at once: so much of it.
const BURST: Duration = Duration::from_secs(1);
/// At 40 bytes each. So many organizations do not publish within a second.
const MAX_ORGANIZATIONS: usize = 100_000;

/// The shares of the organizations, in one router.
#[derive(Debug)]
pub struct Shares {
    /// Of all routers together; 0: no limit.
    per_second: u32,
    /// Routers that share it, this one among them.
    routers: AtomicU32,
    /// Until when each has used its share.
    used_until: Mutex<HashMap<OrganizationId, Instant>>,
}

impl Shares {
    /// So many deliveries a second for each organization, or as many as there are where it is 0.
    #[must_use]
    pub fn new(per_second: u32) -> Self {
        Self { per_second, routers: AtomicU32::new(1), used_until: Mutex::default() }
    }

    /// So many routers take events, this one among them: each keeps to its part.
    pub fn share_among(&self, routers: u32) {
        self.routers.store(routers.max(1), Ordering::Relaxed);
    }

    /// The lane of an organization's next deliveries, so many of them together.
    pub fn lane(&self, organization: OrganizationId, deliveries: usize, now: Instant) -> Lane {
        if self.per_second == 0 {
            return Lane::Fresh;
        }
        let each = Duration::from_secs(1) * self.routers.load(Ordering::Relaxed) / self.per_second;
        // At most the burst, or nothing would be fresh where there are more routers than deliveries in a second.
        let all = each.saturating_mul(u32::try_from(deliveries).unwrap_or(u32::MAX)).min(BURST);
        let mut used_until = self.used_until.lock().unwrap_or_else(PoisonError::into_inner);
        if used_until.len() >= MAX_ORGANIZATIONS {
            used_until.retain(|_, until| *until > now);
        }
        let until = used_until.entry(organization).or_insert(now);
        let next = (*until).max(now) + all;
        if next > now + BURST {
            return Lane::Bulk;
        }
        *until = next;
        Lane::Fresh
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of so many deliveries, spread over the seconds, go by the fresh lane.
    fn fresh(shares: &Shares, deliveries: u32, seconds: u64) -> usize {
        let (organization, start) = (OrganizationId::new(), Instant::now());
        let at = |n: u32| start + Duration::from_secs(seconds) * n / deliveries;
        (0..deliveries).filter(|n| shares.lane(organization, 1, at(*n)) == Lane::Fresh).count()
    }

    #[test]
    fn what_exceeds_an_organizations_share_goes_by_the_bulk_lane() {
        let shares = Shares::new(500);
        assert_eq!(fresh(&shares, 5_000, 10), 5_000, "exactly its share");
        assert_eq!(fresh(&shares, 2_000, 0), 500, "a burst");
        let of_a_flood = fresh(&shares, 30_000, 10);
        assert!((5_450..=5_501).contains(&of_a_flood), "{of_a_flood}");
        shares.share_among(2);
        assert_eq!(fresh(&shares, 2_000, 0), 250, "half of it in each of two routers");
        assert_eq!(fresh(&Shares::new(0), 2_000, 0), 2_000, "no limit");
    }

    #[test]
    fn deliveries_that_go_together_use_as_much_of_the_share_as_they_are() {
        let (shares, organization, now) = (Shares::new(100), OrganizationId::new(), Instant::now());
        let lanes: Vec<Lane> = (0..3).map(|_| shares.lane(organization, 40, now)).collect();
        assert_eq!(lanes, [Lane::Fresh, Lane::Fresh, Lane::Bulk]);
        assert_eq!(shares.lane(OrganizationId::new(), 1_000, now), Lane::Fresh, "more than a share at once");
    }

    #[test]
    fn one_organizations_flood_leaves_anothers_share_alone() {
        let (shares, now) = (Shares::new(500), Instant::now());
        let (flooding, other) = (OrganizationId::new(), OrganizationId::new());
        for _ in 0..2_000 {
            shares.lane(flooding, 1, now);
        }
        assert_eq!((shares.lane(flooding, 1, now), shares.lane(other, 1, now)), (Lane::Bulk, Lane::Fresh));
    }
}
