//! The router's process.

use std::process::ExitCode;

fn main() -> ExitCode {
    cuewire::service::main("router", 9102, cuewire_router::Config::read, cuewire_router::run)
}
