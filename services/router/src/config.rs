//! What the router can be told, besides what all services are told.

use cuewire::config::{ConfigError, Environment};

/// The router's configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// `CUEWIRE_ROUTER_PREFETCH`: events under way at a time.
    pub prefetch: u16,
}

/// Two batches being written while as many fill.
const DEFAULT_PREFETCH: u16 = 1_024;

impl Config {
    /// Reads the router's variables.
    pub fn read(environment: &Environment) -> Result<Self, ConfigError> {
        Ok(Self { prefetch: environment.number("CUEWIRE_ROUTER_PREFETCH", DEFAULT_PREFETCH, 1..=10_000)? })
    }
}
