//! The README's programs, as they stand there, in their own languages.

use std::path::PathBuf;
use std::process::Stdio;

use cuewire_tests::Receiver;
use cuewire_tests::api::Client;
use cuewire_tests::system::{System, test};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

const README: &str = include_str!("../../../README.md");

/// The README's code in a language, in the order in which it stands there.
fn code(language: &str) -> Vec<&'static str> {
    let fence = format!("```{language}\n");
    README.split(&fence).skip(1).map(|rest| rest.split("```").next().unwrap()).collect()
}

/// Where `make test` has put Python with `pika` and Node's `amqplib`.
#[allow(clippy::disallowed_methods, reason = "a test, without the services' configuration")]
fn tools() -> PathBuf {
    let tools = std::env::var("CUEWIRE_TEST_README_TOOLS");
    tools.expect("CUEWIRE_TEST_README_TOOLS names no directory; `make test` sets it").into()
}

/// Runs a program with its standard input, and answers what it printed.
async fn run(system: &System, key: &str, program: &str, file: &str, source: &str, input: &[u8]) -> String {
    let path = tools().join(file);
    std::fs::write(&path, source).unwrap();
    let mut child =
        Command::new(if program == "node" { "node".into() } else { tools().join("venv/bin/python") })
            .arg(&path)
            .env("AMQP_URL", system.amqp_url())
            .env("API_URL", system.operator().base())
            .env("KEY", key)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
    child.stdin.take().unwrap().write_all(input).await.unwrap();
    let output = child.wait_with_output().await.unwrap();
    assert!(output.status.success(), "{program} ended with {}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

fn key_of(client: &Client) -> String {
    client.key().expect("an organization's client has a key").to_owned()
}

#[test]
fn the_readmes_programs_publish_receive_and_verify() {
    test(async |system| {
        let receiver = Receiver::healthy().await;
        let organization = system.organization_named("acme").await;
        let webhook = organization.webhook(receiver.url("/")).types(&["recordings.*"]).create().await;
        let key = key_of(&organization.admin);
        let (python, javascript) = (code("python"), code("javascript"));
        assert_eq!((python.len(), javascript.len()), (3, 2));

        run(system, &key, "python", "publish_amqp.py", python[0], b"").await;
        run(system, &key, "node", "publish_amqp.mjs", javascript[0], b"").await;
        let answer = run(system, &key, "python", "publish_http.py", python[1], b"").await;
        assert_eq!(answer.trim(), "{'accepted': 1, 'ids': ['rec-7975']}");
        let answer = run(system, &key, "node", "publish_http.mjs", javascript[1], b"").await;
        assert_eq!(answer.trim(), "202 { accepted: 1, ids: [ 'rec-7976' ] }");

        for request in receiver.wait_for(4).await {
            assert_eq!(request.json()["data"]["metadata"]["duration"], 95);
            let headers: serde_json::Value = ["webhook-id", "webhook-timestamp", "webhook-signature"]
                .iter()
                .map(|name| ((*name).to_owned(), request.header(name).into()))
                .collect::<serde_json::Map<_, _>>()
                .into();
            let driver = format!(
                "{}\nimport json, sys\nprint(verify({:?}, json.loads({:?}), sys.stdin.buffer.read()))\n",
                python[2],
                webhook.secret,
                headers.to_string()
            );
            let verified = run(system, &key, "python", "verify_delivery.py", &driver, &request.body).await;
            assert_eq!(verified.trim(), "True");
            let forged = [request.body.as_ref(), b" "].concat();
            let verified = run(system, &key, "python", "verify_delivery.py", &driver, &forged).await;
            assert_eq!(verified.trim(), "False");
        }
    });
}

#[test]
fn the_tests_that_the_readme_names_for_each_platform_exist() {
    let sources = [
        include_str!("../dialects/aioz.rs"),
        include_str!("../dialects/iconik.rs"),
        include_str!("../dialects/millicast.rs"),
        include_str!("../dialects/omegastream.rs"),
        include_str!("../dialects/quortex.rs"),
        include_str!("formats.rs"),
    ]
    .concat();
    let table: Vec<&str> = README
        .lines()
        .skip_while(|line| !line.starts_with("| | create |"))
        .skip(2)
        .take_while(|line| line.starts_with('|'))
        .collect();
    assert_eq!(table.len(), 5);
    for row in table {
        let named: Vec<&str> = row.split('`').skip(1).step_by(2).collect();
        assert_eq!(named.len(), 7, "{row}");
        for test in named {
            assert!(sources.contains(&format!("#[test]\nfn {test}() {{")), "there is no test {test}");
        }
    }
}
