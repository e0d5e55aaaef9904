//! The reaper's metrics.

use cuewire::delivery::Reason;
use cuewire::metrics::{BATCH, SECONDS, counter, counters, gauge, histogram};
use prometheus::{Histogram, IntCounter, IntCounterVec, IntGauge, Registry};

/// Seconds until a dead letter is on record: milliseconds, or as long as something was away.
const AGE_SECONDS: &[f64] = &[0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0, 60.0, 300.0, 1_800.0, 3_600.0, 21_600.0];

/// What the reaper counts. Clones count the same.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    pub(crate) dead_letters: IntCounterVec,
    pub(crate) in_flight: IntGauge,
    pub(crate) batch_size: Histogram,
    pub(crate) record_seconds: Histogram,
    pub(crate) age_seconds: Histogram,
    pub(crate) parked: IntCounter,
    pub(crate) redriven: IntCounter,
    pub(crate) redrive_failures: IntCounter,
    pub(crate) notices: IntCounter,
    pub(crate) disabled: IntCounter,
    pub(crate) open_breakers: IntGauge,
    pub(crate) redrive_lateness: Histogram,
    pub(crate) partitions_ahead: IntGauge,
    pub(crate) partitions_dropped: IntCounterVec,
    pub(crate) rows_deleted: IntCounterVec,
    pub(crate) retention_runs: IntCounterVec,
}

impl Metrics {
    pub(crate) fn new(registry: &Registry) -> Self {
        let metrics = Self {
            dead_letters: counters(
                registry,
                "cuewire_dead_letters_total",
                "Dead letters put on record, by reason",
                &["reason"],
            ),
            in_flight: gauge(
                registry,
                "cuewire_reaper_messages_in_flight",
                "Messages that are being put on record",
            ),
            batch_size: histogram(
                registry,
                "cuewire_reaper_batch_size",
                "Messages put on record together",
                BATCH,
            ),
            record_seconds: histogram(
                registry,
                "cuewire_reaper_record_seconds",
                "Time until a batch was on record, with all tries",
                SECONDS,
            ),
            age_seconds: histogram(
                registry,
                "cuewire_reaper_age_seconds",
                "Time from a dead letter's death until it was on record",
                AGE_SECONDS,
            ),
            parked: counter(
                registry,
                "cuewire_reaper_parked_total",
                "Messages left in the parking queue because the database cannot hold them",
            ),
            redriven: counter(
                registry,
                "cuewire_reaper_redriven_total",
                "Dead letters sent again without being asked for",
            ),
            redrive_failures: counter(
                registry,
                "cuewire_reaper_redrive_failures_total",
                "Dead letters that the broker did not take, and that are due again",
            ),
            notices: counter(
                registry,
                "cuewire_reaper_notices_total",
                "Events of Cuewire's own that were published",
            ),
            disabled: counter(
                registry,
                "cuewire_reaper_webhooks_disabled_total",
                "Webhooks disabled because they had failed for days without a success",
            ),
            open_breakers: gauge(
                registry,
                "cuewire_reaper_open_breakers",
                "Enabled webhooks whose circuit breaker is open; every replica tells of all",
            ),
            redrive_lateness: histogram(
                registry,
                "cuewire_reaper_redrive_lateness_seconds",
                "From the time when a dead letter was due to be sent again without being asked for until it was",
                AGE_SECONDS,
            ),
            partitions_ahead: gauge(
                registry,
                "cuewire_partitions_ahead",
                "Daily partitions that every table has from tomorrow on",
            ),
            partitions_dropped: counters(
                registry,
                "cuewire_retention_partitions_dropped_total",
                "Partitions dropped because they were old",
                &["table"],
            ),
            rows_deleted: counters(
                registry,
                "cuewire_retention_rows_deleted_total",
                "Rows deleted because they were old",
                &["table"],
            ),
            retention_runs: counters(
                registry,
                "cuewire_retention_runs_total",
                "Runs of the retention, by result: done, incomplete, failed, or elsewhere (another replica was at it)",
                &["result"],
            ),
        };
        // At zero from the start, so that the first one shows as an increase.
        for reason in Reason::ALL {
            metrics.dead_letters.with_label_values(&[reason.as_str()]);
        }
        for result in ["done", "incomplete", "failed", "elsewhere"] {
            metrics.retention_runs.with_label_values(&[result]);
        }
        metrics
    }
}
