//! Ingest over HTTP under load that is nobody's friend: slow bodies, floods, batches full of faults.

use cuewire_tests::amqp::Raw;
use cuewire_tests::system::test;
use cuewire_tests::{Client, Organization, Service, Setup, event, until};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

const BATCH: &str = "application/cloudevents-batch+json";

#[test]
fn bodies_that_arrive_slowly_keep_nobody_from_publishing() {
    test(async |system| {
        let (slow, other) = (system.organization().await, system.organization().await);
        let address = slow.admin.base().strip_prefix("http://").unwrap().to_owned();
        let head = format!(
            "POST /v1/events HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {}\r\n\
             Content-Type: {BATCH}\r\nContent-Length: 8388608\r\n\r\n[",
            slow.admin.key().unwrap()
        );
        let mut bodies = Vec::new();
        for _ in 0..100 {
            let mut stream = TcpStream::connect(&address).await.unwrap();
            stream.write_all(head.as_bytes()).await.unwrap();
            bodies.push(stream);
        }
        for organization in [&other, &slow] {
            let _ = organization.admin.post("/v1/events", &organization.event("a.b")).await.expect(202);
        }
        drop(bodies);
    });
}

#[test]
fn an_organization_that_publishes_more_than_it_may_is_told_when_to_come_back() {
    Setup::default().variable("CUEWIRE_INGEST_LIMIT_PER_SECOND", "2").run(async |system| {
        let (greedy, other) = (system.organization().await, system.organization().await);
        // As many as the bucket holds, which takes it 500 s to hold again.
        let publish = async |api: &Client, organization: &Organization<'_>| {
            let batch = Value::from(event::events(1_000, "a.b", &organization.id));
            api.body(Method::POST, "/v1/events", BATCH, batch.to_string()).await
        };
        let _ = publish(&greedy.admin, &greedy).await.expect(202);
        let refused = publish(&greedy.admin, &greedy).await;
        let wait: u64 = refused.headers["retry-after"].to_str().unwrap().parse().unwrap();
        assert!((300..=500).contains(&wait), "{wait} s");
        let problem = refused.problem(429);
        assert!(problem.contains("more than it may"), "{problem}");
        let _ = publish(&other.admin, &other).await.expect(202);
        // The operator publishes for many, and is bounded for each of them.
        let operator = system.operator();
        let third = system.organization().await;
        let _ = publish(&operator, &greedy).await.problem(429);
        let _ = publish(&operator, &third).await.expect(202);

        until("the organization may publish again", async || {
            let reply = greedy.admin.post("/v1/events", &greedy.event("a.b")).await;
            (reply.status == 202).then_some(())
        })
        .await;
    });
}

#[test]
fn what_the_broker_does_not_take_costs_nothing_of_what_an_organization_may_publish() {
    const QUEUE: &str = "router.events.v1";
    Setup::default().variable("CUEWIRE_INGEST_LIMIT_PER_SECOND", "1").run(async |system| {
        let organization = system.organization().await;
        system.stop(Service::Router).await;
        system.limit_queue(QUEUE, 1).await;
        let amqp = system.amqp().await;
        until("the queue takes no more", async || {
            amqp.publish_raw(&Raw::event(&organization.event("a.b"))).await.err()
        })
        .await;
        // As many as the bucket holds, again and again under the same ids.
        let batch = Value::from(event::events(1_000, "a.b", &organization.id)).to_string();
        let publish =
            async || organization.admin.body(Method::POST, "/v1/events", BATCH, batch.clone()).await;
        for _ in 0..3 {
            let _ = publish().await.problem(503);
        }
        system.limit_queue(QUEUE, 100_000).await;
        until("the queue takes them", async || {
            let reply = publish().await;
            assert!(reply.status == 503 || reply.status == 202, "{}", reply.text);
            (reply.status == 202).then_some(())
        })
        .await;
        let _ = publish().await.problem(429);
        system.start(Service::Router).await;
    });
}

#[test]
fn a_batch_is_refused_with_every_fault_that_it_has_up_to_a_bound() {
    test(async |system| {
        let organization = system.organization().await;
        let publish = async |events: Vec<Value>| {
            let body = Value::from(events).to_string();
            organization.admin.body(Method::POST, "/v1/events", BATCH, body).await
        };
        let good = || organization.event("a.b");
        let without_source = json!({"id": "1", "type": "a.b"});
        let large = json!({"id": "1", "source": "s", "type": "a.b", "data": "x".repeat(256 * 1024)});
        let foreign = json!({"id": "1", "source": "s", "type": "a.b", "organization": "another"});

        let reply = publish(vec![good(), without_source.clone(), good(), json!(7), large.clone()]).await;
        let told = reply.json["errors"].as_array().unwrap().iter();
        let told: Vec<_> = told.map(|it| (it["index"].as_u64(), it["field"].as_str())).collect();
        assert_eq!(told, [(Some(1), Some("source")), (Some(3), Some("event")), (Some(4), Some("event"))]);
        let _ = reply.problem(422);

        let reply = publish(vec![foreign.clone(), good(), foreign]).await;
        assert_eq!(
            (&reply.json["errors"][1]["index"], &reply.json["field"]),
            (&json!(2), &json!("organization"))
        );
        let _ = reply.problem(403);
        let _ = publish(vec![good(), large]).await.problem(413);

        let reply = publish(vec![without_source; 1_000]).await;
        assert_eq!(reply.json["errors"].as_array().unwrap().len(), 20);
        let problem = reply.problem(422);
        assert!(problem.ends_with("and 980 more"), "{problem}");
        assert_eq!(organization.admin.get("/v1/events").await.expect(200)["data"], json!([]));
    });
}

#[test]
fn a_head_that_is_too_long_is_refused_with_a_sentence() {
    test(async |system| {
        let api = system.organization().await.admin;
        let _ = api.get(&format!("/v1/events?subject={}", "x".repeat(30_000))).await.problem(414);
        let mut request = api.request(Method::GET, "/v1/events");
        for number in 0..200 {
            request = request.header(format!("x-{number}"), "1");
        }
        let _ = api.send(request).await.problem(431);
        let request = api.request(Method::GET, "/v1/events").header("x-long", "x".repeat(300_000));
        let _ = api.send(request).await.problem(431);
    });
}
