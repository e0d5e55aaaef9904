//! The router's process.

use std::process::ExitCode;

const USAGE: &str = "usage: router             fan events out to the webhooks that want them, until SIGTERM
       router ready           say whether the one that runs here is ready, and what it lacks
       router --help";

fn main() -> ExitCode {
    cuewire::service::main("router", USAGE, 9102, cuewire_router::Config::read, cuewire_router::run)
}
