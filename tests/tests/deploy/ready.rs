//! The health check of a container: each image has one program, which asks the one that runs.

use std::process::Stdio;

use cuewire_tests::{Permissions, Service, Setup, servers};
use tokio::process::Command;

/// What `<service> ready` ends with, and what it says, when the service tells its health at that address.
async fn ask(service: Service, address: &str) -> (Option<i32>, String) {
    let mut command = Command::new(servers::binary(service.name()));
    command.arg("ready").env_clear().env("CUEWIRE_HEALTH_LISTEN", address).stdin(Stdio::null());
    let output = command.output().await.unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn each_program_says_whether_the_one_that_runs_is_ready() {
    Setup::processes().run(async |system| {
        for service in Service::ALL {
            let address = system.health_address(service).await;
            assert_eq!(ask(service, &address).await, (Some(0), String::new()));
            // In a container it listens on all addresses.
            let (_, port) = address.rsplit_once(':').unwrap();
            assert_eq!(ask(service, &format!("0.0.0.0:{port}")).await, (Some(0), String::new()));
        }
    });
}

#[test]
fn each_program_says_what_the_one_that_runs_lacks_or_that_none_runs() {
    let nothing = Permissions { configure: "^$", write: "^$", read: "^$" };
    Setup::processes().permissions(nothing).nothing_running().run(async |system| {
        for service in Service::ALL {
            system.start_unready(service).await;
            let (code, said) = ask(service, &system.health_address(service).await).await;
            assert_eq!(code, Some(1), "{said}");
            assert!(said.contains("not ready: {\"missing\":{"), "{said}");
            system.kill(service).await;

            let (code, said) = ask(service, "127.0.0.1:1").await;
            assert_eq!(code, Some(1), "{said}");
            assert!(said.contains("nobody answers at 127.0.0.1:1"), "{said}");
            let (code, said) = ask(service, "here").await;
            assert_eq!(code, Some(2), "{said}");
            assert!(said.contains("CUEWIRE_HEALTH_LISTEN"), "{said}");
        }
        system.apply_topology().await;
    });
}
