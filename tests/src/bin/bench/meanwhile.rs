//! What the services' own metrics say of the time while a section is measured: how long their batches take, and what
//! goes into the delayed queues.

use std::collections::BTreeMap;

use anyhow::Context;
use cuewire_tests::metrics::samples;

use crate::figures::{Row, thousands};
use crate::stack::Stack;

/// Batches, by their histograms.
const BATCHES: [(&str, &str); 2] = [
    ("the router's batches, from their arrival to the last confirm", "cuewire_router_batch_duration_seconds"),
    ("the sender's records of attempts", "cuewire_sender_record_duration_seconds"),
];
/// How often a sender put a delivery off, by the cause.
const PARKED: &str = "cuewire_sender_parked_total";

/// What they say at a moment.
#[derive(Debug)]
pub(crate) struct Meanwhile {
    batches: Vec<Histogram>,
    parked: Counts,
}

/// How many, by causes.
type Counts = BTreeMap<String, f64>;

/// How many took at most so many seconds, for each of its bounds.
#[derive(Debug, Clone, PartialEq)]
struct Histogram(Vec<(f64, f64)>);

impl Meanwhile {
    /// As it is now.
    pub(crate) async fn until_now(stack: &Stack) -> anyhow::Result<Self> {
        let metrics = stack.metrics("ROUTER").await? + &stack.metrics("SENDER").await?;
        let histogram = |(_, metric)| {
            Histogram::read(&metrics, metric).with_context(|| format!("no service has {metric}"))
        };
        let batches = BATCHES.into_iter().map(histogram).collect::<anyhow::Result<_>>()?;
        Ok(Self { batches, parked: counts(&metrics, PARKED, "cause") })
    }

    /// What was added since `before`, while this section was measured; no row for what did not happen.
    pub(crate) fn since(self, before: Self, section: &str) -> Vec<Row> {
        let mut rows = Vec::new();
        for ((what, _), (now, before)) in
            BATCHES.into_iter().zip(self.batches.into_iter().zip(before.batches))
        {
            let added = now.since(&before);
            if added.all() > 0.0 {
                let milliseconds = |share| 1_000.0 * added.percentile_s(share);
                let name = format!("{what}, meanwhile ({section}): p99, within its bucket by proportion");
                let note = format!("; {} of them, p50 {:.1}", added.all(), milliseconds(0.5));
                rows.push(Row::new(name, "ms", vec![milliseconds(0.99)]).note(note));
            }
        }
        let mut parked = self.parked;
        for (cause, count) in before.parked {
            *parked.entry(cause).or_default() -= count;
        }
        parked.retain(|_, count| *count > 0.0);
        if !parked.is_empty() {
            let all = parked.values().sum();
            let causes =
                parked.iter().map(|(cause, count)| format!("{cause} {}", thousands(*count as usize)));
            let note = format!(": {}", causes.collect::<Vec<_>>().join(", "));
            let name = format!("how often a sender put deliveries off, meanwhile ({section})");
            rows.push(Row::new(name, "times", vec![all]).note(note));
        }
        rows
    }
}

/// This counter by the values of a label; its series are added up.
fn counts(metrics: &str, name: &str, label: &str) -> Counts {
    let mut counts = Counts::new();
    for sample in samples(metrics).filter(|sample| sample.name == name) {
        *counts.entry(sample.label(label).unwrap_or_default().to_owned()).or_default() += sample.value;
    }
    counts
}

impl Histogram {
    /// Reads it from a service's metrics; its series are added up.
    fn read(metrics: &str, name: &str) -> Option<Self> {
        let mut buckets: Vec<(f64, f64)> = Vec::new();
        for sample in samples(metrics).filter(|sample| sample.name.strip_suffix("_bucket") == Some(name)) {
            let (bound, count) = (sample.label("le")?, sample.value);
            let bound = if bound == "+Inf" { f64::INFINITY } else { bound.parse().ok()? };
            match buckets.iter_mut().find(|(other, _)| *other == bound) {
                Some((_, all)) => *all += count,
                None => buckets.push((bound, count)),
            }
        }
        (!buckets.is_empty()).then_some(Self(buckets))
    }

    fn since(&self, before: &Self) -> Self {
        let added = self.0.iter().zip(&before.0).map(|((bound, now), (_, before))| (*bound, now - before));
        Self(added.collect())
    }

    /// How many there are.
    fn all(&self) -> f64 {
        self.0.last().map_or(0.0, |(_, count)| *count)
    }

    /// So many took no longer; between two bounds as if they were spread evenly.
    fn percentile_s(&self, share: f64) -> f64 {
        let (wanted, mut below) = (share * self.all(), (0.0, 0.0));
        for (bound, count) in &self.0 {
            if *count >= wanted {
                let part = if *count > below.1 { (wanted - below.1) / (count - below.1) } else { 1.0 };
                return if bound.is_finite() { below.0 + (bound - below.0) * part } else { below.0 };
            }
            below = (*bound, *count);
        }
        f64::NAN
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const METRICS: &str = "# HELP took_seconds Time.
took_seconds_bucket{service=\"router\",le=\"0.01\"} 50
took_seconds_bucket{service=\"router\",le=\"0.02\"} 100
took_seconds_bucket{service=\"router\",le=\"+Inf\"} 101
took_seconds_sum{service=\"router\"} 1.5
took_seconds_count{service=\"router\"} 101
took_seconds_bucket{service=\"other\",le=\"0.01\"} 0
took_seconds_bucket{service=\"other\",le=\"0.02\"} 0
took_seconds_bucket{service=\"other\",le=\"+Inf\"} 1
";

    #[test]
    fn a_histogram_is_read_with_all_its_series() {
        let histogram = Histogram::read(METRICS, "took_seconds").unwrap();
        assert_eq!(histogram, Histogram(vec![(0.01, 50.0), (0.02, 100.0), (f64::INFINITY, 102.0)]));
        assert_eq!(Histogram::read(METRICS, "took"), None);
    }

    #[test]
    fn a_counter_is_read_by_its_label() {
        let counts = counts(METRICS, "took_seconds_bucket", "service");
        assert_eq!(counts, Counts::from([("router".to_owned(), 251.0), ("other".to_owned(), 1.0)]));
    }

    #[test]
    fn a_percentile_is_between_the_bounds_of_its_bucket_and_of_what_was_added() {
        let before = Histogram(vec![(0.01, 7.0), (0.02, 7.0), (f64::INFINITY, 7.0)]);
        let now = Histogram(vec![(0.01, 57.0), (0.02, 107.0), (f64::INFINITY, 107.0)]);
        let added = now.since(&before);
        assert_eq!(added.all(), 100.0);
        for (share, expected) in [(0.25, 0.005), (0.5, 0.01), (0.75, 0.015)] {
            assert!((added.percentile_s(share) - expected).abs() < 1e-9, "{share}");
        }
        let endless = Histogram(vec![(0.01, 0.0), (f64::INFINITY, 10.0)]);
        assert_eq!(endless.percentile_s(0.99), 0.01, "at least");
    }
}
