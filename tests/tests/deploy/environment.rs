//! `deploy/.env.example`, where every variable is described.

use std::collections::{BTreeMap, BTreeSet};

use cuewire::config::{Common, Environment};

const EXAMPLE: &str = include_str!("../../../deploy/.env.example");
const BASE: &str = include_str!("../../../deploy/kubernetes/base/config.env");
const DEV: &str = include_str!("../../../deploy/kubernetes/overlays/dev/kustomization.yaml");
const COMPOSE: &str = include_str!("../../../deploy/compose.yaml");
/// With the scheme that CloudNativePG writes, and the port and vhost of `production`.
const MADE_BY_OPERATORS: [(&str, &str); 2] = [
    ("DATABASE_URL", "postgresql://cuewire:Aa0@postgres-rw.cuewire:5432/cuewire"),
    ("AMQP_URL", "amqp://default_user_x:Aa0-_@rabbitmq:5672/%2f"),
];
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

/// What the manifests set in plain: `NAME=value` of the base's configuration, `NAME: value` of compose's, both of all
/// four services; the secrets of `dev`; and a URL as each of the operators makes it.
fn shipped() -> Vec<(&'static str, &'static str)> {
    let base = BASE.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once('='));
    let block = COMPOSE.split_once("x-environment: &environment\n").expect("compose has what all are told").1;
    let compose = block.lines().map_while(|line| line.strip_prefix("  ")?.split_once(": "));
    let substituted =
        |(name, value)| (name, if str::contains(value, "${") { made_by_compose(name) } else { value });
    let dev = DEV.lines().filter_map(|line| line.strip_prefix("      - ")?.split_once('='));
    let secrets = dev.filter_map(|(key, value)| Some((variable_of(key)?, value)));
    base.chain(compose.map(substituted)).chain(secrets).chain(MADE_BY_OPERATORS).collect()
}

/// Which variable is set to a key of the secrets of `dev`.
fn variable_of(key: &str) -> Option<&'static str> {
    match key {
        "operator-key" => Some("CUEWIRE_OPERATOR_KEY"),
        "secrets-key" => Some("CUEWIRE_SECRETS_KEY"),
        "broker-url" => Some("AMQP_URL"),
        "database-url" => Some("DATABASE_URL"),
        _ => None, // the servers'
    }
}

/// What compose makes of a variable that has passwords in it.
fn made_by_compose(name: &str) -> &'static str {
    match name {
        "DATABASE_URL" => "postgres://cuewire:password@postgres:5432/cuewire",
        "AMQP_URL" => "amqp://cuewire:password@rabbitmq:5672/%2f",
        other => panic!("{other}: add what compose makes of it"),
    }
}

#[test]
fn what_the_manifests_set_is_understood_by_all_services() {
    let shipped = shipped();
    assert!(shipped.len() >= 13, "{shipped:?}");
    let example = example();
    for (name, value) in shipped {
        let mut variables = example.clone();
        assert!(variables.insert(name, value).is_some(), "{name} is not in .env.example");
        assert_eq!(configured(&variables).len(), 5, "{name}={value}");
    }
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
