//! The api's process: serves the API, or runs one of its commands.

use std::process::ExitCode;

use cuewire_api::commands;
use cuewire_api::config::Config;

const USAGE: &str = "\
usage: api                    serve the API until SIGTERM
       api migrate            bring the database's schema up to date, and make its partitions
       api topology apply     declare the exchanges and queues, and change the number of the senders' queues
                              to CUEWIRE_SENDER_QUEUES
       api ready              say whether the one that runs here is ready, and what it lacks
       api --help";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["migrate"] => cuewire::service::command("api", commands::migrate),
        ["topology", "apply"] => cuewire::service::command("api", commands::apply_topology),
        _ => cuewire::service::main("api", USAGE, 9101, Config::read, cuewire_api::run),
    }
}
