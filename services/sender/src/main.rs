//! The sender's process.

use std::process::ExitCode;

const USAGE: &str = "usage: sender             deliver to webhooks, and retry, until SIGTERM
       sender ready           say whether the one that runs here is ready, and what it lacks
       sender --help";

fn main() -> ExitCode {
    cuewire::service::main("sender", USAGE, 9103, cuewire_sender::Config::read, cuewire_sender::run)
}
