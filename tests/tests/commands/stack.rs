//! `make up` and `make down`.

use std::collections::HashMap;
use std::path::Path;

use cuewire_tests::amqp::Amqp;
use cuewire_tests::event::id;
use cuewire_tests::{Client, Receiver, event, until};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_postgres::NoTls;

use crate::run_dir::RunDir;
use crate::script::Script;

/// A stack that is up, as its file `env` tells of it.
struct Up(HashMap<String, String>);

impl Up {
    fn value(&self, name: &str) -> &str {
        self.0.get(name).unwrap_or_else(|| panic!("no {name} in {:?}", self.0))
    }

    fn operator(&self) -> Client {
        Client::new(self.value("API_URL"), Some(self.value("OPERATOR_KEY")))
    }

    async fn amqp(&self) -> Amqp {
        Amqp::open(self.value("AMQP_URL")).await.unwrap()
    }

    /// The pid of each part is that of a process of this name.
    fn names_processes(&self) {
        for (name, program) in [
            ("API_PID", "api"),
            ("ROUTER_PID", "router"),
            ("SENDER_PID", "sender"),
            ("DLQ_REAPER_PID", "dlq-reaper"),
            ("RABBITMQ_PID", "beam.smp"),
            ("POSTGRES_PID", "postgres"),
        ] {
            let comm = Path::new("/proc").join(self.value(name)).join("comm");
            assert_eq!(std::fs::read_to_string(comm).unwrap().trim_end(), program, "{name}");
        }
    }

    /// The broker's user may do anything there.
    async fn broker_is_ours(&self) {
        let amqp = self.amqp().await;
        let queue = "made-by-a-test";
        let channel = amqp.channel().await;
        channel.queue_declare(queue.into(), Default::default(), Default::default()).await.unwrap();
        amqp.delete_queue(queue).await;
    }

    async fn events_on_record(&self) -> i64 {
        let (client, connection) = tokio_postgres::connect(self.value("DATABASE_URL"), NoTls).await.unwrap();
        tokio::spawn(connection);
        client.query_one("SELECT count(*) FROM events", &[]).await.unwrap().get(0)
    }

    /// A new organization's id, and the API by an admin's key of it.
    async fn organization(&self) -> (String, Client) {
        let operator = self.operator();
        let organization = operator.post("/v1/organizations", &json!({"name": "Up"})).await.expect(201);
        let organization = organization["id"].as_str().unwrap().to_owned();
        let keys = format!("/v1/organizations/{organization}/api-keys");
        let key = operator.post(&keys, &json!({"name": "test", "role": "admin"})).await.expect(201);
        (organization, operator.with_key(key["key"].as_str()))
    }

    async fn router_knows_a_webhook(&self) {
        let router = Client::new(self.value("ROUTER_HEALTH_URL"), None);
        until("the router knows the webhook", async || {
            let metrics = router.get("/metrics").await.text;
            let is_known = |line: &str| line.starts_with("cuewire_router_webhooks") && line.ends_with(" 1");
            metrics.lines().any(is_known).then_some(())
        })
        .await;
    }

    /// An event that is published to the broker arrives.
    async fn delivers(&self, organization: &str, receiver: &Receiver) -> Value {
        self.router_knows_a_webhook().await;
        let (event, before) = (event("a.b", organization), receiver.count());
        self.amqp().await.publish(&event).await;
        let requests = receiver.wait_for(before + 1).await;
        assert_eq!(requests[before].event_id(), id(&event));
        event
    }
}

#[test]
fn a_stack_comes_up_ready_goes_down_without_a_trace_and_comes_up_again_with_its_data() {
    RunDir::run(async |run_dir| {
        let ended = run_dir.stack("up").await;
        ended.expect(0);
        let up = Up(run_dir.env());
        ended.line(&format!(
            "Up, at {}; where everything is: {}/env",
            up.value("API_URL"),
            run_dir.path.display()
        ));
        up.names_processes();
        up.broker_is_ours().await;
        let (organization, admin) = up.organization().await;
        let receiver = Receiver::healthy().await;
        let _ = admin.post("/v1/webhooks", &json!({"url": receiver.url("/")})).await.expect(201);
        let event = up.delivers(&organization, &receiver).await;
        until("the event is on record", async || (up.events_on_record().await == 1).then_some(())).await;
        let running = run_dir.traces();
        let port = |url: &str| up.value(url).rsplit_once(':').unwrap().1.parse().unwrap();
        running.include(&["epmd"], &["API_URL", "ROUTER_HEALTH_URL", "SENDER_HEALTH_URL"].map(port));

        let again = run_dir.stack("up").await;
        again.expect(0);
        again.line(&format!("Already up, at {}", up.value("API_URL")));
        up.names_processes();

        run_dir.stack("down").await.expect(0);
        running.vanish().await;
        assert!(!run_dir.path.join("env").exists());
        run_dir.stack("down").await.expect(0);

        run_dir.stack("up").await.expect(0);
        let anew = Up(run_dir.env());
        assert_eq!(anew.value("OPERATOR_KEY"), up.value("OPERATOR_KEY"));
        let admin = anew.operator().with_key(admin.key());
        let _ = admin.get(&format!("/v1/events/{}", id(&event))).await.expect(200);
        anew.delivers(&organization, &receiver).await;
        let running = run_dir.traces();
        run_dir.stack("down").await.expect(0);
        running.vanish().await;
        assert_eq!(receiver.count(), 2);
    });
}

#[test]
fn a_named_port_that_is_taken_is_an_error_that_tells_who_has_it_and_nothing_is_started() {
    RunDir::run(async |run_dir| {
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = taken.local_addr().unwrap().port();
        let holder = std::fs::read_to_string("/proc/self/comm").unwrap();
        let holder = format!("{} (pid {})", holder.trim_end(), std::process::id());
        for (name, what) in [("CUEWIRE_SENDER_HEALTH_PORT", ""), ("CUEWIRE_POSTGRES_PORT", ", for Postgres,")]
        {
            let up =
                Script::start(run_dir.script("stack", &["up"]).env(name, port.to_string())).ended().await;
            up.expect(1);
            let error = format!(
                "error: port {port}{what} is taken by {holder}. End that, or choose another port with {name}"
            );
            assert_eq!(up.line("error: "), error);
            assert_eq!(up.said.iter().filter(|line| line.starts_with("error: ")).count(), 1, "{:?}", up.said);
            assert!(!run_dir.path.join("env").exists());
            let left = run_dir.traces().processes;
            assert!(left.is_empty(), "{left:?}");
        }
    });
}

#[test]
fn going_down_where_nothing_was_ever_up_is_no_error() {
    RunDir::run(async |run_dir| {
        run_dir.stack("down").await.expect(0);
        assert!(!run_dir.path.exists());
    });
}
