//! What the api counts; the text of each is what Prometheus shows as its help.

use cuewire::metrics::{BATCH, SECONDS, counter, counters, gauge, histogram, histograms};
use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, Registry};

/// Why the broker did not confirm a message.
const PUBLISH_FAILURES: [&str; 4] = ["timeout", "lost", "refused", "unroutable"];

/// The api's metrics.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    /// Requests by route, method and status.
    pub(crate) requests: IntCounterVec,
    /// Until the answer's head, by route and method.
    pub(crate) duration: HistogramVec,
    /// Requests whose answer has not begun.
    pub(crate) in_flight: IntGauge,
    /// Events that were accepted over HTTP.
    pub(crate) events_accepted: IntCounter,
    /// Events of organizations that publish more than they may.
    pub(crate) events_refused: IntCounter,
    /// Events that could not be handed to the broker.
    pub(crate) publish_failures: IntCounterVec,
    /// Events that a request published together.
    pub(crate) batch: Histogram,
    /// From publishing a request's events to the last confirm.
    pub(crate) publish_duration: Histogram,
    /// Keys that need no look-up.
    pub(crate) keys_cached: IntGauge,
    /// Look-ups of keys in the database.
    pub(crate) key_lookups: IntCounterVec,
    /// Clients that listen to the stream of events.
    pub(crate) streams: IntGauge,
    /// Test calls by what became of them.
    pub(crate) test_calls: IntCounterVec,
}

impl Metrics {
    /// Registers them all.
    pub(crate) fn new(registry: &Registry) -> Self {
        let metrics = Self {
            requests: counters(
                registry,
                "cuewire_api_requests_total",
                "HTTP requests answered",
                &["route", "method", "status"],
            ),
            duration: histograms(
                registry,
                "cuewire_api_request_duration_seconds",
                "Time from a request's head to the head of its answer",
                &["route", "method"],
                SECONDS,
            ),
            in_flight: gauge(
                registry,
                "cuewire_api_requests_in_flight",
                "HTTP requests whose answer has not begun",
            ),
            events_accepted: counter(
                registry,
                "cuewire_api_events_accepted_total",
                "Events accepted over HTTP: the broker has confirmed them",
            ),
            events_refused: counter(
                registry,
                "cuewire_api_events_refused_total",
                "Events refused over HTTP, since their organization published more than it may",
            ),
            publish_failures: counters(
                registry,
                "cuewire_api_publish_failures_total",
                "Messages that the broker did not confirm",
                &["error"],
            ),
            batch: histogram(
                registry,
                "cuewire_api_publish_batch_events",
                "Events that one request published together",
                BATCH,
            ),
            publish_duration: histogram(
                registry,
                "cuewire_api_publish_duration_seconds",
                "Time from publishing a request's events to the last confirm",
                SECONDS,
            ),
            keys_cached: gauge(
                registry,
                "cuewire_api_keys_cached",
                "API keys that are known without asking the database",
            ),
            key_lookups: counters(
                registry,
                "cuewire_api_key_lookups_total",
                "API keys looked up in the database",
                &["result"],
            ),
            streams: gauge(
                registry,
                "cuewire_api_event_streams",
                "Clients that listen to the stream of events",
            ),
            test_calls: counters(
                registry,
                "cuewire_api_test_calls_total",
                "Test calls by what became of them",
                &["result"],
            ),
        };
        // At zero from the start, so that the first one shows as an increase.
        for error in PUBLISH_FAILURES {
            metrics.publish_failures.with_label_values(&[error]);
        }
        metrics
    }
}
