//! What healthy webhooks notice of bad ones beside them, and of as many healthy ones.

use std::time::{Duration, Instant};

use super::{AFTER_AN_OUTAGE, Fair, Lasting, OTHERS_PER_SECOND, arrived_row};
use crate::figures::{Row, median, percentile, percentiles};
use crate::load::{PATIENCE, Rate, Upstream};
use crate::path::Latencies;
use crate::receiver::{Manner, Receiver};

const HEALTHY: usize = 20;
/// Of each of three kinds.
const BAD: usize = 5;
const SLOW: Duration = Duration::from_secs(10);

/// What healthy webhooks are beside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Beside {
    Nobody,
    /// As many of another organization as there are bad ones, as healthy as they: what these cost as a load alone.
    AnothersHealthy,
    AnothersBad,
    TheirOwnBad,
}

/// What happens to the bad ones in the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    Nothing,
    /// They have to get everything.
    TheyGetWell,
}

impl Beside {
    fn told(self) -> String {
        match self {
            Self::Nobody => "alone".to_owned(),
            Self::AnothersHealthy => format!("beside {} healthy ones of another organization", 3 * BAD),
            Self::AnothersBad => format!("beside {} bad ones of another organization", 3 * BAD),
            Self::TheirOwnBad => format!("beside {} bad ones of their own", 3 * BAD),
        }
    }
}

/// The p99 of each quarter of the runs' time, in milliseconds, medians of all runs. A run has the healthy webhooks'
/// latencies one webhook after another, each in the order of the events.
fn p99_by_quarters(runs_ms: &[Vec<f64>]) -> [String; 4] {
    [0, 1, 2, 3].map(|quarter| {
        let of_run = |run: &Vec<f64>| {
            let each = run.len() / HEALTHY;
            let events = quarter * each / 4..(quarter + 1) * each / 4;
            let took: Vec<f64> =
                run.chunks_exact(each.max(1)).flat_map(|hook| &hook[events.clone()]).copied().collect();
            percentile(&took, 0.99)
        };
        format!("{:.0}", median(&runs_ms.iter().map(of_run).collect::<Vec<_>>()))
    })
}

impl Fair<'_> {
    /// Healthy webhooks alone, beside as many healthy ones as there are bad ones, and beside bad ones, by turns; how their
    /// p99s compare, run by run; and how long the bad ones take to get everything once they are well.
    pub(super) async fn neighbours(&self, lasting: Lasting) -> anyhow::Result<Vec<Row>> {
        const BY_TURNS: [Beside; 3] = [Beside::Nobody, Beside::AnothersHealthy, Beside::AnothersBad];
        let (mut by_turns, mut with_their_own) =
            ([(); 3].map(|()| Latencies::default()), Latencies::default());
        let mut recovered = Vec::new();
        let at_last = if lasting.outage.is_some() { Then::TheyGetWell } else { Then::Nothing };
        for run in 1..=lasting.runs {
            let then = if run == lasting.runs { at_last } else { Then::Nothing };
            for (beside, latencies) in BY_TURNS.into_iter().zip(&mut by_turns) {
                recovered.extend(self.beside(beside, lasting.neighbours, latencies, then).await?);
            }
        }
        let of_their_own =
            self.beside(Beside::TheirOwnBad, lasting.neighbours, &mut with_their_own, at_last).await?;
        recovered.extend(of_their_own);
        let p99 = |of: &Latencies| percentiles(&of.runs_ms, 0.99);
        let [alone, beside_healthy, beside_bad] = by_turns.each_ref().map(p99);
        let beside_their_own = p99(&with_their_own);
        let compared = |beside: Beside, p99: &[f64], with: &[f64], to: &str| {
            let times = p99.iter().zip(with).map(|(p99, with)| p99 / with).collect();
            Row::new(format!("their p99 {}, of that {to}", beside.told()), "times", times)
        };
        let mut rows = Vec::new();
        let told = BY_TURNS.into_iter().zip(&by_turns).chain([(Beside::TheirOwnBad, &with_their_own)]);
        for (beside, latencies) in told {
            let by_quarters = p99_by_quarters(&latencies.runs_ms);
            let [half, nearly_all] = latencies.rows(&format!("{HEALTHY} healthy webhooks {}", beside.told()));
            let note = format!("; by quarters of the time {}{}", by_quarters.join(", "), nearly_all.note);
            rows.extend([half, nearly_all.note(note)]);
        }
        let (once_alone, to_healthy) = ([median(&alone)], Beside::AnothersHealthy.told());
        rows.extend([
            compared(Beside::AnothersHealthy, &beside_healthy, &alone, "alone"),
            compared(Beside::AnothersBad, &beside_bad, &alone, "alone"),
            compared(Beside::AnothersBad, &beside_bad, &beside_healthy, &to_healthy),
            compared(Beside::TheirOwnBad, &beside_their_own, &once_alone, "alone"),
        ]);
        rows.extend(recovered);
        Ok(rows)
    }

    /// Healthy webhooks beside others that were well and, unless they stay so, now never answer, answer late, or fail at
    /// once: another organization's, or their own organization's, where each event is for all of them. Answers how long
    /// bad ones take to get everything, where they get well again.
    async fn beside(
        &self,
        beside: Beside,
        lasting: Duration,
        latencies: &mut Latencies,
        then: Then,
    ) -> anyhow::Result<Option<Row>> {
        let manners = [
            vec![Manner::Quick; HEALTHY],
            vec![Manner::Silent; BAD],
            vec![Manner::Slow(SLOW); BAD],
            vec![Manner::Failing; BAD],
        ];
        let receiver = Receiver::start(manners.concat()).await?;
        let urls = receiver.urls();
        let (healthy, others) = (0..HEALTHY, HEALTHY..urls.len());
        let organization = self.stack.organization_with(&urls[healthy.clone()]).await?;
        let another = self.stack.organization("bench").await?;
        let owner = match beside {
            Beside::Nobody => None,
            Beside::AnothersHealthy | Beside::AnothersBad => Some(&another),
            Beside::TheirOwnBad => Some(&organization),
        };
        let are_bad = matches!(beside, Beside::AnothersBad | Beside::TheirOwnBad);
        self.upstream.warm_up(organization.alone(), &receiver, healthy.clone()).await?;
        if let Some(owner) = owner {
            receiver.are_well(others.clone(), true);
            owner.webhooks(&urls[others.clone()]).await?;
            self.upstream.warm_up(owner.alone(), &receiver, others.clone()).await?;
            receiver.are_well(others.clone(), !are_bad);
        }
        let rate = Rate { per_second: OTHERS_PER_SECOND, lasting };
        let second = Upstream::start(&self.stack.amqp_url);
        let run = receiver.begin();
        let (published, _) = tokio::join!(
            self.upstream.publish_steadily(run, organization.alone(), rate),
            second.publish_steadily(run, another.alone(), rate)
        );
        second.stop();
        receiver.wait(healthy.clone(), published.len(), PATIENCE).await;
        latencies.add(&receiver, healthy, &published)?;
        if beside == Beside::AnothersHealthy {
            receiver.wait(others.clone(), published.len(), PATIENCE).await;
            let _ = receiver.reconcile(others.clone(), published.len()).complete()?;
        }
        let mut recovered = None;
        if then == Then::TheyGetWell && are_bad {
            receiver.are_well(others.clone(), true);
            let well_at = Instant::now();
            receiver.wait(others.clone(), published.len(), AFTER_AN_OUTAGE).await;
            let what = format!(
                "{HEALTHY} healthy webhooks {}: these have everything, once they are well",
                beside.told()
            );
            recovered = Some(arrived_row(what, &receiver, others, published.len(), well_at)?);
        }
        organization.delete().await?;
        another.delete().await?;
        self.stack.clear_delayed_queues().await?;
        Ok(recovered)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_p99_of_each_quarter_is_that_of_its_events_to_all_webhooks() {
        let to_one =
            |slow: usize| (0..8).map(move |event| if event == slow { 50.0 } else { (event / 2) as f64 });
        let run: Vec<f64> = (0..HEALTHY).flat_map(|hook| to_one(if hook == 0 { 7 } else { 8 })).collect();
        assert_eq!(p99_by_quarters(&[run]), ["0", "1", "2", "50"]);
        assert_eq!(p99_by_quarters(&[Vec::new()]).map(|p99| p99 == "NaN"), [true; 4]);
    }
}
