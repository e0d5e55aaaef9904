//! `deploy/.env.example`, where every variable is described.

use std::collections::{BTreeMap, BTreeSet};

use cuewire::config::{Common, Environment};

const EXAMPLE: &str = include_str!("../../../deploy/.env.example");
const REQUIRED: [&str; 4] = ["DATABASE_URL", "AMQP_URL", "CUEWIRE_SECRETS_KEY", "CUEWIRE_OPERATOR_KEY"];

/// The only places that read variables.
const READERS: [&str; 5] = [
    include_str!("../../../shared/src/config.rs"),
    include_str!("../../../services/api/src/config.rs"),
    include_str!("../../../services/router/src/config.rs"),
    include_str!("../../../services/sender/src/config.rs"),
    include_str!("../../../services/dlq-reaper/src/config.rs"),
];

fn example() -> BTreeMap<&'static str, &'static str> {
    let lines = EXAMPLE.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    let pairs: Vec<_> = lines.map(|line| line.split_once('=').expect("every line is a variable")).collect();
    let variables: BTreeMap<_, _> = pairs.iter().copied().collect();
    assert_eq!(variables.len(), pairs.len(), "a variable is there twice");
    variables
}

/// What the four services make of these variables, as text.
fn configured(variables: &BTreeMap<&str, &str>) -> Vec<String> {
    let environment = Environment::of(variables.iter().map(|(name, value)| (*name, *value)));
    let common = |port| format!("{:?}", Common::read(&environment, port).expect("every service reads it"));
    vec![
        common(9101),
        format!("{:?}", cuewire_api::config::Config::read(&environment).expect("the api reads it")),
        format!("{:?}", cuewire_router::Config::read(&environment).expect("the router reads it")),
        format!("{:?}", cuewire_sender::Config::read(&environment).expect("the sender reads it")),
        format!("{:?}", cuewire_dlq_reaper::Config::read(&environment).expect("the reaper reads it")),
    ]
}

#[test]
fn the_example_of_the_environment_is_what_all_services_do_without_it() {
    let example = example();
    let required = example.clone().into_iter().filter(|(name, _)| REQUIRED.contains(name)).collect();
    assert_eq!(configured(&example), configured(&required));
}

#[test]
fn every_variable_that_a_service_reads_is_described_and_no_other() {
    let is_name = |text: &&str| {
        let name = text.strip_prefix("CUEWIRE_").unwrap_or(text);
        !name.is_empty()
            && name.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_')
            && (*text != name || REQUIRED.contains(text))
    };
    let read: BTreeSet<&str> =
        READERS.iter().flat_map(|source| source.split('"').skip(1).step_by(2)).filter(is_name).collect();
    // One is described and not set, since each service has its own default.
    let mentioned = EXAMPLE.lines().map(|line| line.strip_prefix("# ").unwrap_or(line));
    let described: BTreeSet<&str> =
        mentioned.filter_map(|line| line.split_once('=')).map(|(name, _)| name).filter(is_name).collect();
    assert_eq!(read, described);
}
