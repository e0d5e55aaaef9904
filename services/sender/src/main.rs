//! The sender's process.

use std::process::ExitCode;

fn main() -> ExitCode {
    cuewire::service::main("sender", 9103, cuewire_sender::Config::read, cuewire_sender::run)
}
