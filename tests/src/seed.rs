//! Where what a test makes up begins.

use cuewire::config::Environment;

/// A new beginning in each run, or the one that `CUEWIRE_TEST_SEED` says. A test names it when it fails.
#[must_use]
pub fn seed() -> u64 {
    let told = Environment::of_process().text("CUEWIRE_TEST_SEED").map(str::parse);
    told.map_or_else(rand::random, |told| told.expect("CUEWIRE_TEST_SEED is a whole number"))
}
