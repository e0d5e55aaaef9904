//! Trying a property on cases that are made up, for a while; each run begins elsewhere.
//!
//! `CUEWIRE_TEST_FUZZ_TIME=5m cargo test -p cuewire --lib filter::properties` tries each property for that long,
//! and `CUEWIRE_TEST_SEED=…`, which a failure names, begins with the case that failed.

use std::time::{Duration, Instant};

use proptest::strategy::Strategy;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseResult, TestRng, TestRunner};

use crate::config::Environment;
use crate::retry::parse_duration;

/// For each property: seven of them take half a minute of one core.
const TIME: Duration = Duration::from_secs(4);
/// Of one seed.
const CASES: u32 = 256;

/// Tries a property until its time is over.
pub(super) fn fuzz<S: Strategy>(cases: &S, property: impl Fn(S::Value) -> TestCaseResult) {
    let environment = Environment::of_process();
    let time = environment.text("CUEWIRE_TEST_FUZZ_TIME").map_or(TIME, |text| parse_duration(text).unwrap());
    let seed = environment.text("CUEWIRE_TEST_SEED").map(|text| text.parse::<u64>().unwrap());
    let begun = Instant::now();
    let mut tried: u64 = 0;
    for seed in seed.unwrap_or_else(rand::random).. {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        let random = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
        let config = Config { cases: CASES, failure_persistence: None, ..Config::default() };
        if let Err(error) = TestRunner::new_with_rng(config, random).run(cases, &property) {
            panic!("with CUEWIRE_TEST_SEED={seed}: {error}");
        }
        tried += u64::from(CASES);
        if begun.elapsed() >= time {
            break;
        }
    }
    println!("{tried} cases in {:?}", begun.elapsed());
}
