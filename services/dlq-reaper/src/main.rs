//! The process `dlq-reaper`.

use std::process::ExitCode;

fn main() -> ExitCode {
    cuewire::service::main("dlq-reaper", 9104, cuewire_dlq_reaper::Config::read, cuewire_dlq_reaper::run)
}
