//! `make demo`: what it shows when it runs to its end, and how it ends by a Ctrl-C.

use std::sync::LazyLock;
use std::time::Duration;

use cuewire_tests::Client;
use serde_json::json;
use tokio::net::{TcpListener, TcpSocket};
use tokio::task::JoinSet;

use crate::run_dir::RunDir;
use crate::script::{Ended, Script};

/// Where its parts are when nobody is in their way, with the variables that name other places.
const USUAL_PORTS: [(&str, u16); 9] = [
    ("CUEWIRE_AMQP_PORT", 5673),
    ("CUEWIRE_POSTGRES_PORT", 5433),
    ("CUEWIRE_EPMD_PORT", 4370),
    ("CUEWIRE_DIST_PORT", 25673),
    ("CUEWIRE_API_PORT", 8080),
    ("CUEWIRE_API_HEALTH_PORT", 9101),
    ("CUEWIRE_ROUTER_HEALTH_PORT", 9102),
    ("CUEWIRE_SENDER_HEALTH_PORT", 9103),
    ("CUEWIRE_DLQ_REAPER_HEALTH_PORT", 9104),
];
const PARTS: [&str; 8] = ["api", "router", "sender", "dlq-reaper", "beam.smp", "epmd", "postgres", "demo"];

/// One that ran to its end, beside something on all of the usual ports: the same for all tests.
fn shown() -> &'static Ended {
    static SHOWN: LazyLock<Ended> = LazyLock::new(|| {
        RunDir::run(async |run_dir| {
            let mut others = JoinSet::new();
            for (_, port) in USUAL_PORTS {
                others.spawn(hold(port));
            }
            let mut demo = run_dir.script_on_usual_ports("demo", &[]);
            let demo = Script::start(demo.env("CUEWIRE_DEMO_ONCE", "1"));
            demo.says("the deliveries", |said| said.iter().any(|it| it.starts_with("5. ")).then_some(()))
                .await;
            let running = run_dir.traces();
            running.include(&PARTS, &[]);
            let ended = demo.ended().await;
            running.vanish().await;
            ended
        })
    });
    &SHOWN
}

/// Listens at a port for ever. Another run of these tests may do so too; anybody else who does is as good, and is
/// followed when they end.
async fn hold(port: u16) {
    let listen = || -> std::io::Result<TcpListener> {
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseport(true)?;
        socket.bind(([127, 0, 0, 1], port).into())?;
        socket.listen(1)
    };
    let _listening = loop {
        match listen() {
            Ok(listener) => break listener,
            Err(_) => tokio::time::sleep(Duration::from_millis(1)).await,
        }
    };
    std::future::pending::<()>().await;
}

/// A delivery as it is shown: its event's type, the path of its webhook, how the receiver answered, what it found of
/// the signature, and the milliseconds since the event was published.
#[derive(Debug)]
struct Delivery<'a> {
    event: &'a str,
    webhook: &'a str,
    status: u16,
    signature: String,
    millis: f64,
}

fn delivery(line: &str) -> Option<Delivery<'_>> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [event, webhook, status, signature @ .., millis, "ms"] = words.as_slice() else { return None };
    Some(Delivery {
        event,
        webhook,
        status: status.parse().ok()?,
        signature: signature.join(" "),
        millis: millis.parse().ok()?,
    })
}

/// The deliveries to a webhook, in their order.
fn deliveries<'a>(said: &'a [String], webhook: &str) -> Vec<Delivery<'a>> {
    said.iter().filter_map(|line| delivery(line)).filter(|delivery| delivery.webhook == webhook).collect()
}

#[test]
fn the_demo_tells_each_step_and_where_everything_is_and_ends_well() {
    let demo = shown();
    demo.expect(0);
    let mut lines = demo.said.iter();
    for step in [
        "1. An organization",
        "2. A receiver",
        "3. Webhooks",
        "4. Events",
        "5. Deliveries",
        "6. What failed for good",
    ] {
        assert!(lines.any(|line| line.starts_with(step)), "{step} in its turn:\n{}", demo.said.join("\n"));
    }
    for step in [
        "Starting RabbitMQ and Postgres",
        "Starting api, router, sender and dlq-reaper",
        "Up, at http://127.0.0.1:",
        "Stopping everything",
    ] {
        demo.line(step);
    }
}

#[test]
fn the_demo_shows_a_verified_delivery_to_each_platform_and_chat_service() {
    let demo = shown();
    for (event, webhook, signature) in [
        ("recordings.completed", "/millicast", "sha1 yes"),
        ("encoding.finished", "/aioz", "v1 yes"),
        ("assets.update", "/iconik", "v1 yes"),
        ("input.status_change", "/quortex", "v1 yes"),
        ("video.process_succeeded", "/omegastream", "v1 yes"),
        ("recordings.completed", "/slack", "none needed"),
        ("assets.update", "/google_chat", "none needed"),
        ("input.status_change", "/teams", "none needed"),
        ("encoding.finished", "/cloudevents", "v1a yes"),
    ] {
        let deliveries = deliveries(&demo.said, webhook);
        let [only] = deliveries.as_slice() else { panic!("{webhook}: {deliveries:?}") };
        assert_eq!((only.event, only.status, only.signature.as_str()), (event, 200, signature), "{webhook}");
        assert!(only.millis > 0.0, "{only:?}");
    }
    let all = deliveries(&demo.said, "/all");
    assert!(all.iter().all(|it| it.status == 200 && it.signature == "v1 yes"), "{all:?}");
    assert_eq!(all.len(), 7, "{all:?}");
}

#[test]
fn in_the_demo_one_delivery_fails_twice_and_succeeds_and_one_becomes_a_dead_letter() {
    let demo = shown();
    for (event, webhook, statuses, after) in [
        ("feeds.started", "/flaky", [503, 503, 200].as_slice(), [0.0, 1_000.0, 3_000.0].as_slice()),
        ("media.errored", "/broken", &[500, 500], &[0.0, 1_000.0]),
    ] {
        let deliveries = deliveries(&demo.said, webhook);
        assert_eq!(deliveries.iter().map(|it| it.status).collect::<Vec<_>>(), statuses, "{deliveries:?}");
        assert!(deliveries.iter().all(|it| it.event == event && it.signature == "v1 yes"), "{deliveries:?}");
        assert!(deliveries.iter().zip(after).all(|(it, after)| it.millis >= *after), "{deliveries:?}");
    }
    let dead = demo.said.iter().skip_while(|line| !line.starts_with("6. ")).nth(1).unwrap();
    assert!(dead.contains(" media.errored exhausted: "), "{dead}");
    assert!(demo.line("its last attempt: ").contains(r#""status":500"#));
}

#[test]
fn where_something_is_at_its_usual_ports_the_demo_takes_others_and_says_so() {
    let demo = shown();
    for (name, usual) in USUAL_PORTS {
        let line = demo.line(&format!("({name})"));
        assert!(line.starts_with(&format!("port {usual} is taken by ")), "{line}");
        let taken = line.split_once("; using ").unwrap().1.split_once(' ').unwrap().0;
        assert!(taken.parse::<u16>().unwrap() > usual, "{line}");
        if name == "CUEWIRE_API_PORT" {
            demo.line(&format!("Up, at http://127.0.0.1:{taken};"));
        }
    }
}

#[test]
fn ctrl_c_ends_the_demo_in_good_order_and_leaves_nothing_running() {
    RunDir::run(async |run_dir| {
        let demo = Script::start(&mut run_dir.script("demo", &[]));
        demo.says("that it stays", |said| {
            said.iter().any(|it| it.ends_with("Ctrl-C ends everything.")).then_some(())
        })
        .await;
        let said = demo.said();
        let told = |label: &str| {
            let line = said.iter().find_map(|line| line.trim_start().strip_prefix(label));
            line.unwrap_or_else(|| panic!("no {label:?} in:\n{}", said.join("\n")))
                .split_whitespace()
                .next()
                .unwrap()
        };
        // The API and the keys are where it says.
        let operator = Client::new(told("The API is at"), Some(told("operator's key")));
        let admin = operator.with_key(Some(told("admin's key")));
        let _ = operator.get("/v1/organizations").await.expect(200);
        assert!(operator.get("/docs/").await.status.is_success());
        assert_eq!(told("documentation"), format!("{}/docs/", operator.base()));
        let event = json!({"type": "recordings.completed", "source": "/me", "data": {"size": 1}});
        let _ = admin.post("/v1/events", &event).await.expect(202);
        demo.says("the delivery of an event that somebody has published", |said| {
            let all = deliveries(said, "/all");
            let further = all.iter().filter(|it| it.event == "recordings.completed").nth(1)?;
            assert_eq!((further.status, further.signature.as_str()), (200, "v1 yes"));
            Some(())
        })
        .await;

        let running = run_dir.traces();
        let api_port = operator.base().rsplit_once(':').unwrap().1.parse().unwrap();
        running.include(&PARTS, &[api_port]);
        demo.interrupt().await;
        let ended = demo.ended().await;
        ended.expect(0);
        ended.line("Stopping everything");
        running.vanish().await;
    });
}
