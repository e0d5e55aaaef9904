//! What a sender can be told, besides what all services are told.

use cuewire::amqp::topology::Lane;
use cuewire::config::{ConfigError, Environment};
use cuewire::guard::Guard;

/// A sender's configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// `CUEWIRE_ALLOWED_NETWORKS`: private networks that deliveries may go to.
    pub guard: Guard,
    /// Unsettled messages in each lane, over all of its queues.
    pub prefetch: Prefetch,
}

/// Unsettled messages by lane, in one process.
#[derive(Debug, Clone, Copy)]
pub struct Prefetch {
    fresh: u16,
    due: u16,
    bulk: u16,
}

impl Prefetch {
    /// That of a lane.
    #[must_use]
    pub fn of(self, lane: Lane) -> u16 {
        match lane {
            Lane::Fresh => self.fresh,
            Lane::Due => self.due,
            Lane::Bulk => self.bulk,
        }
    }
}

impl Config {
    /// Reads a sender's variables.
    pub fn read(environment: &Environment) -> Result<Self, ConfigError> {
        Ok(Self {
            guard: environment.optional("CUEWIRE_ALLOWED_NETWORKS", Guard::read)?.unwrap_or_default(),
            prefetch: Prefetch {
                fresh: environment.number("CUEWIRE_PREFETCH_FRESH", 512, 16..=10_000)?,
                due: environment.number("CUEWIRE_PREFETCH_DUE", 128, 16..=10_000)?,
                bulk: environment.number("CUEWIRE_PREFETCH_BULK", 256, 16..=10_000)?,
            },
        })
    }
}
