//! Metrics: how they are made and registered. Which there are, each service says in its own `metrics.rs`.
//!
//! Names follow Prometheus' conventions (base units, `_total`), labels are bounded.

use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

/// Seconds, from half a millisecond to the longest request.
pub const SECONDS: &[f64] = &[
    0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
    10.0, 30.0, 60.0,
];
/// Sizes of batches.
pub const BATCH: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0];

const CONSTANT: &str = "a metric's name, labels and buckets are constants, and each is registered once";

/// A counter.
#[must_use]
pub fn counter(registry: &Registry, name: &str, help: &str) -> IntCounter {
    let counter = IntCounter::new(name, help).expect(CONSTANT);
    registry.register(Box::new(counter.clone())).expect(CONSTANT);
    counter
}

/// A counter for each combination of labels.
#[must_use]
pub fn counters(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    let counters = IntCounterVec::new(Opts::new(name, help), labels).expect(CONSTANT);
    registry.register(Box::new(counters.clone())).expect(CONSTANT);
    counters
}

/// A gauge.
#[must_use]
pub fn gauge(registry: &Registry, name: &str, help: &str) -> IntGauge {
    let gauge = IntGauge::new(name, help).expect(CONSTANT);
    registry.register(Box::new(gauge.clone())).expect(CONSTANT);
    gauge
}

/// A gauge for each combination of labels.
#[must_use]
pub fn gauges(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
    let gauges = IntGaugeVec::new(Opts::new(name, help), labels).expect(CONSTANT);
    registry.register(Box::new(gauges.clone())).expect(CONSTANT);
    gauges
}

/// A histogram.
#[must_use]
pub fn histogram(registry: &Registry, name: &str, help: &str, buckets: &[f64]) -> Histogram {
    let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
    let histogram = Histogram::with_opts(options).expect(CONSTANT);
    registry.register(Box::new(histogram.clone())).expect(CONSTANT);
    histogram
}

/// A histogram for each combination of labels.
#[must_use]
pub fn histograms(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
    buckets: &[f64],
) -> HistogramVec {
    let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
    let histograms = HistogramVec::new(options, labels).expect(CONSTANT);
    registry.register(Box::new(histograms.clone())).expect(CONSTANT);
    histograms
}

/// A registry with what every service tells: its version, and its process's memory, CPU and files.
#[must_use]
pub fn registry(service: &str) -> Registry {
    let registry = Registry::new();
    gauges(
        &registry,
        "cuewire_build_info",
        "Always 1; the labels tell what is running",
        &["service", "version"],
    )
    .with_label_values(&[service, env!("CARGO_PKG_VERSION")])
    .set(1);
    let process = prometheus::process_collector::ProcessCollector::for_self();
    registry.register(Box::new(process)).expect(CONSTANT);
    registry
}

/// Counts something in a gauge for as long as this is there, whatever ends it.
#[derive(Debug)]
pub struct Counted {
    gauge: IntGauge,
    count: i64,
}

impl Counted {
    /// Counts as many.
    #[must_use]
    pub fn new(gauge: &IntGauge, count: usize) -> Self {
        let (gauge, count) = (gauge.clone(), i64::try_from(count).unwrap_or(i64::MAX));
        gauge.add(count);
        Self { gauge, count }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.gauge.sub(self.count);
    }
}
