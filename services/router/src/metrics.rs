//! What the router counts.

use cuewire::metrics;
use prometheus::{Histogram, IntCounter, IntCounterVec, IntGauge, Registry};

/// The router's metrics.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// Events by what became of them: `routed`, `repeated`, `rejected`, `unlogged`.
    pub events: IntCounterVec,
    /// Events that were routed, by the categories of the catalogue.
    pub categories: IntCounterVec,
    /// Deliveries published by lane: fresh, or bulk for what exceeds an organization's share.
    pub deliveries: IntCounterVec,
    /// Events in a batch.
    pub batch: Histogram,
    /// From a batch's arrival to its last confirm.
    pub duration: Histogram,
    /// Batches under way.
    pub in_flight: IntGauge,
    /// Webhooks that take events.
    pub webhooks: IntGauge,
    /// Organizations.
    pub organizations: IntGauge,
    /// Questions to the database about organizations that were not known.
    pub look_ups: IntCounter,
}

impl Metrics {
    /// Registers them.
    #[must_use]
    pub fn new(registry: &Registry) -> Self {
        Self {
            events: metrics::counters(
                registry,
                "cuewire_router_events_total",
                "Events by what became of them: routed, repeated (dropped as a duplicate) or rejected; and \
                 those of the routed that the database refused to log",
                &["outcome"],
            ),
            categories: metrics::counters(
                registry,
                "cuewire_router_routed_events_total",
                "Events that were routed, by category: those of the platforms, or other",
                &["category"],
            ),
            deliveries: metrics::counters(
                registry,
                "cuewire_router_deliveries_total",
                "Deliveries published to the senders, by lane: fresh, or bulk for what exceeds an organization's share",
                &["lane"],
            ),
            batch: metrics::histogram(
                registry,
                "cuewire_router_batch_events",
                "Events that were routed together",
                metrics::BATCH,
            ),
            duration: metrics::histogram(
                registry,
                "cuewire_router_batch_duration_seconds",
                "From the arrival of a batch to the last confirm and the commit of its log",
                metrics::SECONDS,
            ),
            in_flight: metrics::gauge(registry, "cuewire_router_batches_in_flight", "Batches being routed"),
            webhooks: metrics::gauge(registry, "cuewire_router_webhooks", "Enabled webhooks in the index"),
            organizations: metrics::gauge(
                registry,
                "cuewire_router_organizations",
                "Organizations in the directory",
            ),
            look_ups: metrics::counter(
                registry,
                "cuewire_router_look_ups_total",
                "Questions to the database about organizations that were not known",
            ),
        }
    }
}
