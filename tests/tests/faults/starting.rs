//! Starting: in any order, all at once, and with a configuration that cannot be used.

use std::collections::BTreeSet;
use std::process::Stdio;

use cuewire_tests::{Receiver, Service, Setup, servers};
use tokio::net::TcpListener;
use tokio::process::Command;

/// Runs a program that ends by itself, with these variables alone; answers its exit code and what it said.
pub(crate) async fn run_to_its_end<'a>(
    program: &str,
    arguments: &[&str],
    variables: impl Iterator<Item = (&'a str, &'a str)>,
) -> (Option<i32>, String) {
    let mut command = Command::new(servers::binary(program));
    command.args(arguments).env_clear().envs(variables).stdin(Stdio::null());
    let output = command.output().await.unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn several_replicas_that_start_at_once_on_an_empty_database_and_broker_do_not_collide() {
    let setup = Service::ALL
        .into_iter()
        .fold(Setup::processes().empty_database(), |setup, service| setup.replicas(service, 3));
    setup.run(async |system| {
        let receiver = Receiver::healthy().await;
        let organization = system.organization().await;
        organization.webhook(receiver.url("/")).create().await;
        let events = cuewire_tests::event::events(200, "a.b", &organization.id);
        system.amqp().await.publish_all(&events).await;
        receiver.wait_for(200).await;
        system.stop_all().await;
        assert_eq!(receiver.count(), 200);
    });
}

/// What describes every variable.
const EXAMPLE: &str = include_str!("../../../deploy/.env.example");

/// Every variable, a value that it cannot have, and the services that read it.
const CANNOT_BE_USED: [(&str, &str, &[Service]); 24] = {
    use Service::{Api, DlqReaper, Router, Sender};
    const ALL: &[Service] = &Service::ALL;
    [
        ("DATABASE_URL", "mysql://u@127.0.0.1/x", ALL),
        ("AMQP_URL", "not a URL", ALL),
        ("CUEWIRE_SECRETS_KEY", "c2hvcnQ=", ALL),
        ("CUEWIRE_DATABASE_CONNECTIONS", "1", ALL),
        ("CUEWIRE_SENDER_QUEUES", "many", ALL),
        ("CUEWIRE_PUBLISHERS", "{", ALL),
        ("CUEWIRE_ALLOWED_NETWORKS", "10.0.0.0/33", &[Api, Sender]),
        ("CUEWIRE_SHUTDOWN_GRACE", "soon", ALL),
        ("CUEWIRE_LOG_FORMAT", "xml", ALL),
        ("CUEWIRE_LOG", "cuewire=loudly", ALL),
        ("CUEWIRE_HEALTH_LISTEN", "here", ALL),
        ("CUEWIRE_OPERATOR_KEY", "short", &[Api]),
        ("CUEWIRE_API_LISTEN", "localhost", &[Api]),
        ("CUEWIRE_INGEST_LIMIT_PER_SECOND", "1000001", &[Api]),
        ("CUEWIRE_ROUTER_PREFETCH", "0", &[Router]),
        ("CUEWIRE_FRESH_SHARE_PER_SECOND", "-1", &[Router]),
        ("CUEWIRE_PREFETCH_FRESH", "15", &[Sender]),
        ("CUEWIRE_PREFETCH_DUE", "10001", &[Sender]),
        ("CUEWIRE_PREFETCH_BULK", "all", &[Sender]),
        ("CUEWIRE_RETENTION_DAYS", "3", &[DlqReaper]),
        ("CUEWIRE_DEAD_LETTER_RETENTION_DAYS", "0", &[DlqReaper]),
        ("CUEWIRE_REDRIVE_AFTER", "10", &[DlqReaper]),
        ("CUEWIRE_DISABLE_FAILING_AFTER", "59m", &[DlqReaper]),
        ("CUEWIRE_DISABLE_FAILING_AFTER", "31d", &[DlqReaper]),
    ]
};

/// Those without which a service does not start.
const REQUIRED: [(&str, &[Service]); 4] = [
    ("DATABASE_URL", &Service::ALL),
    ("AMQP_URL", &Service::ALL),
    ("CUEWIRE_SECRETS_KEY", &Service::ALL),
    ("CUEWIRE_OPERATOR_KEY", &[Service::Api]),
];

#[test]
fn a_configuration_that_cannot_be_used_ends_the_process_with_one_line_that_names_the_variable() {
    let described = EXAMPLE.lines().filter_map(|line| line.trim_start_matches("# ").split_once('='));
    let is_name = |name: &&str| name.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_');
    let described: BTreeSet<&str> = described.map(|(name, _)| name).filter(is_name).collect();
    assert_eq!(CANNOT_BE_USED.map(|(name, ..)| name).into_iter().collect::<BTreeSet<_>>(), described);

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        // Whoever finds nothing wrong with its configuration ends over this.
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let taken = taken.local_addr().unwrap().to_string();
        let good = [
            ("DATABASE_URL", "postgres://u@127.0.0.1:1/x"),
            ("AMQP_URL", "amqp://u:p@127.0.0.1:1/x"),
            ("CUEWIRE_OPERATOR_KEY", "operator-key-of-the-tests"),
            ("CUEWIRE_SECRETS_KEY", "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="),
            ("CUEWIRE_HEALTH_LISTEN", &taken),
        ];
        let missing = REQUIRED.map(|(name, readers)| (name, "", readers));
        for (name, value, readers) in CANNOT_BE_USED.into_iter().chain(missing) {
            for service in Service::ALL {
                let variables = good.iter().copied().chain([(name, value)]);
                let (code, said) = run_to_its_end(service.name(), &[], variables).await;
                let with = format!("{} with {name}={value:?}: {said}", service.name());
                if readers.contains(&service) {
                    assert_eq!((code, said.lines().count()), (Some(2), 1), "{with}");
                    assert!(said.contains(&format!("{name} ")), "{with}");
                } else {
                    assert_eq!(code, Some(1), "{with}");
                    assert!(said.contains("CUEWIRE_HEALTH_LISTEN: cannot listen on"), "{with}");
                    assert!(!said.contains(name), "{with}");
                }
            }
        }
    });
}

#[test]
fn a_service_that_is_configured_otherwise_than_the_others_refuses_to_start() {
    Setup::processes().run(async |system| {
        let other_key = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
        for (name, value) in [("CUEWIRE_SENDER_QUEUES", "5"), ("CUEWIRE_SECRETS_KEY", other_key)] {
            let environment = system.environment();
            let variables = environment.iter().map(|(name, value)| (name.as_str(), value.as_str()));
            let (code, said) = run_to_its_end("sender", &[], variables.chain([(name, value)])).await;
            assert_eq!(code, Some(1), "{said}");
            assert!(said.lines().last().unwrap().contains(name), "{said}");
        }
    });
}

#[test]
fn the_apis_commands_migrate_and_change_the_number_of_queues() {
    Setup::processes().run(async |system| {
        let api = async |arguments: &[&str], queues: &str| {
            let environment = system.environment();
            let variables = environment.iter().map(|(name, value)| (name.as_str(), value.as_str()));
            run_to_its_end("api", arguments, variables.chain([("CUEWIRE_SENDER_QUEUES", queues)])).await
        };
        let recorded = async || -> String {
            let sql = "SELECT value FROM settings WHERE name = 'sender_queues'";
            system.database().await.query_one(sql, &[]).await.unwrap().get(0)
        };
        let (code, said) = api(&["migrate"], "2").await;
        assert_eq!(code, Some(0), "{said}");
        for queues in ["3", "2"] {
            let (code, said) = api(&["topology", "apply"], queues).await;
            assert_eq!(code, Some(0), "{said}");
            assert_eq!(recorded().await, queues);
        }
        let (code, said) = api(&["frobnicate"], "2").await;
        assert_eq!(code, Some(2), "{said}");
        // The services still run, with as many queues as they began with: each event arrives once.
        let receiver = Receiver::healthy().await;
        let organization = system.organization().await;
        for _ in 0..20 {
            organization.webhook(receiver.url("/")).create().await;
        }
        system.amqp().await.publish(&organization.event("a.b")).await;
        receiver.wait_for(20).await;
        system.stop_all().await;
        assert_eq!(receiver.count(), 20);
    });
}

#[test]
fn each_program_says_how_it_is_used_and_what_it_does_not_understand() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        for service in Service::ALL {
            let mut command = Command::new(servers::binary(service.name()));
            let output = command.arg("--help").env_clear().output().await.unwrap();
            let text = String::from_utf8(output.stdout).unwrap();
            assert_eq!(output.status.code(), Some(0), "{}", service.name());
            assert!(text.starts_with(&format!("usage: {} ", service.name())), "{text}");
            assert!((4..12).contains(&text.lines().count()), "{text}");

            let (code, said) = run_to_its_end(service.name(), &["--frobnicate"], std::iter::empty()).await;
            assert_eq!(code, Some(2), "{said}");
            assert!(said.contains("--frobnicate") && said.contains("usage: "), "{said}");
        }
    });
}
