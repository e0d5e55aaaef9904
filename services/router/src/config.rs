//! What the router can be told, besides what all services are told.

use cuewire::config::{ConfigError, Environment};

/// The router's configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// `CUEWIRE_ROUTER_PREFETCH`: events under way at a time.
    pub prefetch: u16,
    /// `CUEWIRE_FRESH_SHARE_PER_SECOND`: deliveries of one organization that go by the fresh lane; 0: all.
    pub fresh_share_per_second: u32,
}

/// Two batches being written while as many fill.
const DEFAULT_PREFETCH: u16 = 1_024;

/// A tenth of what one sender carries: far above what one customer usually publishes.
const DEFAULT_FRESH_SHARE_PER_SECOND: u32 = 500;

impl Config {
    /// Reads the router's variables.
    pub fn read(environment: &Environment) -> Result<Self, ConfigError> {
        Ok(Self {
            prefetch: environment.number("CUEWIRE_ROUTER_PREFETCH", DEFAULT_PREFETCH, 1..=10_000)?,
            fresh_share_per_second: environment.number(
                "CUEWIRE_FRESH_SHARE_PER_SECOND",
                DEFAULT_FRESH_SHARE_PER_SECOND,
                0..=1_000_000,
            )?,
        })
    }
}
