//! The process `dlq-reaper`.

use std::process::ExitCode;

const USAGE: &str =
    "usage: dlq-reaper             keep the dead letters, and remove what is old, until SIGTERM
       dlq-reaper ready       say whether the one that runs here is ready, and what it lacks
       dlq-reaper --help";

fn main() -> ExitCode {
    cuewire::service::main(
        "dlq-reaper",
        USAGE,
        9104,
        cuewire_dlq_reaper::Config::read,
        cuewire_dlq_reaper::run,
    )
}
