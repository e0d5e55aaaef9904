//! What a sender counts.

use cuewire::metrics;
use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry};

/// A sender's metrics.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// Attempts by the catalogue's category, format, and the delivery's state after them.
    pub attempts: IntCounterVec,
    /// Answers by the class of their status, and failures by kind.
    pub outcomes: IntCounterVec,
    /// Duration of requests by category and format.
    pub duration: HistogramVec,
    /// From the time when an attempt was due to its request, by lane and category.
    pub lateness: HistogramVec,
    /// Requests in flight.
    pub in_flight: IntGauge,
    /// Deliveries that wait for their webhook's turn.
    pub waiting: IntGauge,
    /// Deliveries that are held for less than a second.
    pub held: IntGauge,
    /// Deliveries put into the delayed queues, by cause.
    pub parked: IntCounterVec,
    /// Webhooks of which deliveries had to stay away of late, by what their statistics call it.
    pub put_off: IntGaugeVec,
    /// Circuit breakers that this sender opened.
    pub breakers_opened: IntCounter,
    /// Probes by the delivery's state after them.
    pub probes: IntCounterVec,
    /// Senders among which rate limits are divided.
    pub senders: IntGauge,
    /// Dead letters by reason.
    pub dead: IntCounterVec,
    /// Deliveries that another copy of the work had done.
    pub copies: IntCounterVec,
    /// Attempts in a recorded batch.
    pub record_batch: Histogram,
    /// How long recording took.
    pub record_duration: Histogram,
    /// Webhooks in the cache.
    pub targets: IntGauge,
}

impl Metrics {
    /// Registers them.
    #[must_use]
    pub fn new(registry: &Registry) -> Self {
        let counters =
            |name: &str, help: &str, labels: &[&str]| metrics::counters(registry, name, help, labels);
        let gauge = |name: &str, help: &str| metrics::gauge(registry, name, help);
        let metrics = Self {
            attempts: counters(
                "cuewire_sender_attempts_total",
                "Attempts by category (those of the platforms, or other), format, and the delivery's state after them",
                &["category", "format", "state"],
            ),
            outcomes: counters(
                "cuewire_sender_outcomes_total",
                "Requests by the class of their answer's status (2xx, 3xx, 4xx, 5xx) or by how they failed",
                &["outcome"],
            ),
            duration: metrics::histograms(
                registry,
                "cuewire_sender_request_duration_seconds",
                "From the start of a request to the end of its answer, or to its failure",
                &["category", "format"],
                metrics::SECONDS,
            ),
            lateness: metrics::histograms(
                registry,
                "cuewire_sender_lateness_seconds",
                "From the time when an attempt was due to the start of its request",
                &["lane", "category"],
                metrics::SECONDS,
            ),
            in_flight: gauge("cuewire_sender_requests_in_flight", "Requests in flight"),
            waiting: gauge("cuewire_sender_waiting", "Deliveries waiting for their webhook's turn"),
            held: gauge("cuewire_sender_held", "Deliveries held until they are due, for less than a second"),
            parked: counters(
                "cuewire_sender_parked_total",
                "Deliveries put into the delayed queues: for a retry, because they came early, because their \
                 webhook or organization was busy, its rate limit reached (limited), or its breaker open",
                &["cause"],
            ),
            put_off: metrics::gauges(
                registry,
                "cuewire_sender_webhooks_put_off",
                "Webhooks of which deliveries had to stay away between the last two records of that, five seconds \
                 apart, by what their statistics call it: parked (busy, or the breaker open) or limited",
                &["cause"],
            ),
            breakers_opened: metrics::counter(
                registry,
                "cuewire_sender_breakers_opened_total",
                "Circuit breakers that requests of this sender opened",
            ),
            probes: counters(
                "cuewire_sender_probes_total",
                "Deliveries sent to find out whether a receiver is back, by the delivery's state afterwards",
                &["state"],
            ),
            senders: gauge("cuewire_sender_peers", "Senders among which rate limits are divided"),
            dead: counters("cuewire_sender_dead_letters_total", "Dead letters by reason", &["reason"]),
            copies: counters(
                "cuewire_sender_copies_total",
                "Deliveries whose attempt was on record already, by what was done: left to its owner, or \
                 taken a step further",
                &["action"],
            ),
            record_batch: metrics::histogram(
                registry,
                "cuewire_sender_record_batch_attempts",
                "Attempts that were recorded together",
                metrics::BATCH,
            ),
            record_duration: metrics::histogram(
                registry,
                "cuewire_sender_record_duration_seconds",
                "How long recording a batch of attempts took",
                metrics::SECONDS,
            ),
            targets: gauge("cuewire_sender_webhooks", "Webhooks in the cache"),
        };
        // At zero from the start, so that the first one shows as an increase.
        for state in ["delivered", "retrying", "dead"] {
            metrics.probes.with_label_values(&[state]);
        }
        metrics
    }
}
