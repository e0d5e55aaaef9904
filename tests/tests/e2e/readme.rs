//! The README's programs and commands, as they stand there, in their own languages.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Stdio;

use cuewire_tests::amqp::{Amqp, Raw};
use cuewire_tests::api::Client;
use cuewire_tests::system::{System, test};
use cuewire_tests::{Receiver, Setup, event, until};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use url::Url;
use uuid::Uuid;

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

/// The commands that run whole stacks, and what runs them instead: a file, and what stands in it.
const RUN_ELSEWHERE: [(&str, &str, &str); 2] = [
    (
        "make demo",
        include_str!("../commands/demo.rs"),
        "#[test]\nfn the_demo_tells_each_step_and_where_everything_is_and_ends_well() {",
    ),
    ("make test", include_str!("../../../.ci/run"), "exec make test\n"),
];

/// The README's shell commands, block by block, each to be taken once.
struct Blocks(Vec<&'static str>);

impl Blocks {
    /// The only block that is left and has this in it.
    fn take(&mut self, part: &str) -> &'static str {
        let found: Vec<usize> = (0..self.0.len()).filter(|at| self.0[*at].contains(part)).collect();
        assert_eq!(found.len(), 1, "blocks with {part}");
        self.0.remove(found[0])
    }
}

/// A directory with a shell in it, as somebody has one who reads the README.
struct Shell(PathBuf);

impl Shell {
    /// With the file that `make up` writes, and the private broker's command line by its usual name.
    fn new(system: &System) -> Self {
        let directory = tools().join(format!("shell-{}", Uuid::new_v4().simple()));
        std::fs::create_dir_all(directory.join(".run")).unwrap();
        let key = system.operator().key().unwrap().to_owned();
        let env = format!("API_URL={}\nOPERATOR_KEY={key}\n", system.operator().base());
        std::fs::write(directory.join(".run/env"), env).unwrap();
        let script = directory.join("rabbitmqctl");
        let command = system.servers().rabbitmqctl_command();
        std::fs::write(&script, format!("#!/bin/sh\nexec {command} \"$@\"\n")).unwrap();
        std::fs::set_permissions(&script, PermissionsExt::from_mode(0o755)).unwrap();
        Self(directory)
    }

    /// Runs commands, and answers what they printed.
    async fn run(&self, commands: &str, variables: &[(&str, &str)]) -> String {
        let path = "PATH=$PWD:$PATH\n";
        let output = Command::new("bash")
            .args(["-euo", "pipefail", "-c", &format!("{path}{commands}")])
            .current_dir(&self.0)
            .envs(variables.iter().copied())
            .output()
            .await
            .unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{commands}\nended with {}: {errors}", output.status);
        String::from_utf8(output.stdout).unwrap()
    }

    /// The same for commands that print one JSON object, which is as the comment in them says.
    async fn ask(&self, commands: &str, variables: &[(&str, &str)]) -> Value {
        let output = self.run(commands, variables).await;
        let answer: Value = serde_json::from_str(&output).unwrap_or_else(|_| panic!("no JSON: {output}"));
        let comment = commands.lines().find(|line| line.starts_with("# {")).expect("it tells the answer");
        // Where it says …, there is more.
        let texts: Vec<&str> = comment.split('"').collect();
        for pair in texts.windows(3).filter(|pair| pair[1] == ":") {
            let (name, said) = (pair[0], pair[2]);
            let told = answer[name].as_str().unwrap_or_else(|| panic!("no {name} in {answer}"));
            match said.split_once('…') {
                // Ids begin with the time at which they were made.
                Some(_) if name == "id" => assert!(told.parse::<Uuid>().is_ok(), "{answer}"),
                Some((beginning, _)) => assert!(told.starts_with(beginning), "{name}: {answer}"),
                None => assert_eq!(told, said, "{name}: {answer}"),
            }
        }
        answer
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn text<'a>(answer: &'a Value, member: &str) -> &'a str {
    answer[member].as_str().unwrap()
}

/// The block by which an operator and an organization set up a webhook. Answers the organization's id and key.
async fn set_up_a_webhook(system: &System, shell: &Shell, block: &str) -> (String, String) {
    let parts: Vec<&str> = block.split("\n\n").collect();
    let [environment, organization, key, webhook] = parts[..] else { panic!("four parts: {parts:#?}") };
    let with_environment = |commands: &str| format!("{environment}\n{commands}");

    let made = shell.ask(&with_environment(organization), &[]).await;
    let organization = text(&made, "id").to_owned();
    let stored = system.operator().get(&format!("/v1/organizations/{organization}")).await.expect(200);
    assert_eq!((text(&stored, "name"), text(&stored, "external_id")), ("Acme", "acme"));

    let commands = with_environment(&key.replace("0199…", &organization));
    let made = shell.ask(&commands, &[]).await;
    let key = text(&made, "key").to_owned();
    // The key is only known now.
    let export = format!("export KEY={key}");
    let exported = commands.lines().find(|line| line.starts_with("export KEY=")).expect("it is exported");
    assert_eq!(exported.replace("cw_…", &key), export);

    let made = shell.ask(&with_environment(&format!("{export}\n{webhook}")), &[]).await;
    let admin = system.operator().with_key(Some(&key));
    let stored = admin.get(&format!("/v1/webhooks/{}", text(&made, "id"))).await.expect(200);
    assert_eq!(stored["url"], "https://example.com/hooks");
    assert_eq!(stored["event_types"], json!(["recordings.*", "feeds.started"]));
    assert_eq!(stored["filter"], "data.metadata.duration > 60");
    assert_eq!(stored["retry_schedule"], json!(["5s", "5m", "2h"]));
    (organization, key)
}

/// An upstream has a broker user who may publish to its own exchange and to no other.
async fn upstream_may_publish(system: &System, admin: &Client, password: &str) {
    let receiver = Receiver::healthy().await;
    let _ = admin.post("/v1/webhooks", &json!({"url": receiver.url("/")})).await.expect(201);
    system.organization().await.in_effect().await;
    let mut url: Url = system.amqp_url().parse().unwrap();
    url.set_username("encoder").unwrap();
    url.set_password(Some(password)).unwrap();
    let upstream = Amqp::open(url.as_str()).await.expect("the user is there");
    // Too short for the webhook of the README, which leads out of this machine.
    let mut short = event("recordings.completed", "acme");
    short["data"] = json!({"metadata": {"duration": 30}});
    upstream.publish_raw(&Raw::event(&short).to("events.in.encoder")).await.expect("it may");
    assert_eq!(receiver.wait_for(1).await[0].event_id(), text(&short, "id"));
    let refused = upstream.publish_raw(&Raw::event(&short)).await.unwrap_err();
    assert!(refused.to_string().contains("ACCESS_REFUSED"), "{refused}");
}

/// An event that does not fit is refused with the place, and one that does is accepted.
async fn schema_is_in_force(
    admin: &Client,
    event_type: &str,
    unfit: &Value,
    place: &str,
    fit: Option<&Value>,
) {
    let event = |data: &Value| {
        let mut event = json!({"source": "/test", "type": event_type});
        event["data"] = data.clone();
        event
    };
    until(&format!("a schema of {event_type} is in force"), async || {
        let reply = admin.post("/v1/events", &event(unfit)).await;
        (reply.status == 422 && reply.text.contains(place)).then_some(())
    })
    .await;
    if let Some(fit) = fit {
        let _ = admin.post("/v1/events", &event(fit)).await.expect(202);
    }
}

#[test]
fn the_readmes_commands_do_what_it_says_and_each_of_them_is_run() {
    let mut blocks = Blocks(code("sh"));
    Setup::default().own_servers().variable("CUEWIRE_PUBLISHERS", "encoder=recordings@acme").run(
        async |system| {
            let shell = Shell::new(system);
            let (organization, key) =
                set_up_a_webhook(system, &shell, blocks.take("$API_URL/v1/organizations")).await;
            let admin = system.operator().with_key(Some(&key));
            assert_eq!(
                admin.get("/v1/webhooks").await.expect(200)["data"][0]["url"],
                "https://example.com/hooks"
            );
            assert!(!organization.is_empty());

            shell.run(blocks.take("rabbitmqctl add_user"), &[("PASSWORD", "of-the-upstream")]).await;
            upstream_may_publish(system, &admin, "of-the-upstream").await;

            let variables = [("API_URL", admin.base()), ("KEY", key.as_str())];
            let answers = shell.run(blocks.take("$API_URL/v1/event-types"), &variables).await;
            assert!(answers.contains("slate.shown") && answers.contains("feeds.ended"), "{answers}");
            let fit = json!({"slateId": "s1"});
            schema_is_in_force(&admin, "slate.shown", &json!({"slate": 1}), "data.slateId", Some(&fit)).await;
            schema_is_in_force(&admin, "feeds.ended", &json!("text"), "data", None).await;
        },
    );
    let commands: Vec<&str> = blocks.0.iter().flat_map(|block| block.lines()).collect();
    for (command, source, part) in RUN_ELSEWHERE {
        assert!(source.contains(part), "nothing runs {command}");
        assert!(commands.iter().any(|line| line.starts_with(command)), "the README no more says {command}");
    }
    for line in commands {
        let is_run = |(command, ..): &(&str, _, _)| line.starts_with(command);
        assert!(RUN_ELSEWHERE.iter().any(is_run), "no test runs what the README says: {line}");
    }
}

#[test]
fn the_tests_that_the_readme_names_for_each_platform_exist() {
    let sources = [
        include_str!("../dialects/aioz.rs"),
        include_str!("../dialects/iconik.rs"),
        include_str!("../dialects/millicast.rs"),
        include_str!("../dialects/millicast/selection.rs"),
        include_str!("../dialects/millicast/test_calls.rs"),
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
