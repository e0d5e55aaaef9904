//! What is counted beside the happy path: what is under way, waits, is refused, repeated, dead, or removed.

use std::time::Duration;

use cuewire::message::DeliveryMessage;
use cuewire_tests::amqp::Raw;
use cuewire_tests::event::{events, first_delivery, id};
use cuewire_tests::system::test;
use cuewire_tests::{Answer, Receiver, Service, Setup, until};
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::{becomes, has};

#[test]
fn what_is_under_way_is_counted_for_as_long_as_it_is() {
    test(async |system| {
        let organization = system.organization().await;
        let gauges = [
            (Service::Api, "cuewire_api_requests_in_flight"),
            (Service::Router, "cuewire_router_batches_in_flight"),
            (Service::DlqReaper, "cuewire_reaper_messages_in_flight"),
        ];
        // Neither events nor dead letters can be written, nor webhooks be read.
        let lock = "BEGIN; LOCK TABLE events, dead_letters IN SHARE ROW EXCLUSIVE MODE;
                    LOCK TABLE webhooks IN ACCESS EXCLUSIVE MODE";
        system.database().await.batch_execute(lock).await.unwrap();
        let amqp = system.amqp().await;
        amqp.publish(&organization.event("a.b")).await;
        amqp.publish_raw(&Raw::body("a.b", "not JSON")).await.unwrap();
        let look = async {
            for (service, gauge) in gauges {
                becomes(system, service, gauge, &[], 1.0).await;
            }
            system.database().await.batch_execute("ROLLBACK").await.unwrap();
        };
        let (webhooks, ()) = tokio::join!(organization.admin.get("/v1/webhooks"), look);
        let _ = webhooks.expect(200);
        for (service, gauge) in gauges {
            becomes(system, service, gauge, &[], 0.0).await;
        }
    });
}

#[test]
fn what_the_api_looks_up_refuses_or_cannot_hand_on_is_counted() {
    // A bucket takes the largest batch, whatever the limit.
    const LARGEST: usize = 1_000;
    Setup::default().variable("CUEWIRE_INGEST_LIMIT_PER_SECOND", "100").run(async |system| {
        let receiver = Receiver::healthy().await;
        let organization = system.organization().await;
        let webhook = organization.webhook(receiver.url("/")).types(&["a.none"]).create().await;
        let api = &organization.admin;
        let many: Value = events(LARGEST, "a.b", &organization.id).into();
        let _ = api.post("/v1/events", &many).await.expect(202);
        let _ = api.post("/v1/events", &many).await.problem(429);
        let _ = api.with_key(Some(&format!("cw_{}", "x".repeat(43)))).get("/v1/webhooks").await.problem(401);
        let _ = api.post(&format!("/v1/webhooks/{}/test", webhook.id), &json!({})).await.expect(200);
        has(
            system,
            Service::Api,
            &[
                ("cuewire_api_events_refused_total", &[], LARGEST as f64),
                ("cuewire_api_key_lookups_total", &[("result", "unknown")], 1.0),
                ("cuewire_api_test_calls_total", &[("result", "answered")], 1.0),
            ],
        )
        .await;
        // Keys of an organization that has changed are looked up again.
        let found = [("result", "found")];
        for (metric, labels) in
            [("cuewire_api_key_lookups_total", &found[..]), ("cuewire_api_keys_cached", &[])]
        {
            let value = system.metric(Service::Api, metric, labels).await;
            assert!(value >= Some(1.0), "{metric}: {value:?}");
        }

        let stream = api.open(api.request(reqwest::Method::GET, "/v1/events/stream")).await;
        becomes(system, Service::Api, "cuewire_api_event_streams", &[], 1.0).await;
        drop(stream);
        becomes(system, Service::Api, "cuewire_api_event_streams", &[], 0.0).await;

        system.stop(Service::Router).await;
        system.limit_queue("router.events.v1", 1).await;
        until("the broker takes no more", async || {
            let reply = api.post("/v1/events", &organization.event("a.b")).await;
            (reply.status == 503).then_some(())
        })
        .await;
        let refused = [("error", "refused")];
        has(system, Service::Api, &[("cuewire_api_publish_failures_total", &refused, 1.0)]).await;
        system.start(Service::Router).await;
    });
}

#[test]
fn what_the_router_does_not_route_as_it_came_is_counted() {
    test(async |system| {
        let refuse = "ALTER TABLE events ADD CONSTRAINT refusal CHECK (id <> 'refused')";
        system.database().await.batch_execute(refuse).await.unwrap();
        let receiver = Receiver::healthy().await;
        let organization = system.organization().await;
        let webhook = organization.webhook(receiver.url("/")).create().await;
        let event = organization.event("a.b");
        let amqp = system.amqp().await;
        amqp.publish(&event).await;
        organization.delivery(id(&event), &webhook, "delivered").await;
        amqp.publish(&event).await;
        amqp.publish(&cuewire_tests::event("a.b", "nobody")).await;
        let mut refused = organization.event("a.b");
        refused["id"] = "refused".into();
        amqp.publish(&refused).await;
        for outcome in ["repeated", "rejected", "unlogged"] {
            let labels = [("outcome", outcome)];
            becomes(system, Service::Router, "cuewire_router_events_total", &labels, 1.0).await;
        }
        has(system, Service::Router, &[("cuewire_router_look_ups_total", &[], 1.0)]).await;
    });
}

#[test]
fn what_a_sender_puts_off_gives_up_or_finds_done_is_counted() {
    test(async |system| {
        let slow = Receiver::answering([Answer::status(200).after(Duration::from_millis(700))]).await;
        let broken = Receiver::answering([Answer::status(500)]).await;
        let organization = system.organization().await;
        let one_at_a_time =
            organization.webhook(slow.url("/")).types(&["slow.event"]).with("max_in_flight", 1);
        let webhook = one_at_a_time.create().await;
        organization.webhook(broken.url("/")).types(&["dead.event"]).schedule(&[]).create().await;
        let amqp = system.amqp().await;
        let pair = events(2, "slow.event", &organization.id);
        amqp.publish_all(&pair).await;
        becomes(system, Service::Sender, "cuewire_sender_waiting", &[], 1.0).await;
        for event in &pair {
            organization.delivery(id(event), &webhook, "delivered").await;
        }
        let copy = first_delivery(&pair[0], &webhook);
        amqp.publish_raw(&copy.publication().into()).await.unwrap();
        let left = [("action", "left")];
        becomes(system, Service::Sender, "cuewire_sender_copies_total", &left, 1.0).await;

        let early = |milliseconds| {
            let first = first_delivery(&organization.event("slow.event"), &webhook);
            let not_before = OffsetDateTime::now_utc() + Duration::from_millis(milliseconds);
            DeliveryMessage { not_before: Some(not_before), ..first }
        };
        amqp.publish_raw(&early(700).publication().into()).await.unwrap();
        becomes(system, Service::Sender, "cuewire_sender_held", &[], 1.0).await;
        amqp.publish_raw(&early(1_500).publication().into()).await.unwrap();
        let parked = [("cause", "early")];
        becomes(system, Service::Sender, "cuewire_sender_parked_total", &parked, 1.0).await;

        amqp.publish(&organization.event("dead.event")).await;
        let reason = [("reason", "exhausted")];
        becomes(system, Service::Sender, "cuewire_sender_dead_letters_total", &reason, 1.0).await;
        let dead = [("state", "dead"), ("format", "standard")];
        has(system, Service::Sender, &[("cuewire_sender_attempts_total", &dead, 1.0)]).await;
        slow.wait_for(4).await;
    });
}

#[test]
fn what_the_reaper_sends_again_parks_and_removes_is_counted() {
    Setup::default().variable("CUEWIRE_REDRIVE_AFTER", "1s").run(async |system| {
        let organization = system.organization().await;
        system.stop(Service::DlqReaper).await;
        // The reaper looks after the calendar when it starts.
        let old = "CREATE TABLE events_20200101 PARTITION OF events FOR VALUES FROM ('2020-01-01') TO ('2020-01-02');
                   UPDATE changes SET changed_at = now() - interval '25 h';
                   ALTER TABLE dead_letters ADD CONSTRAINT refusal CHECK (event_id <> 'refused')";
        let database = system.database().await;
        let changes = database.query_one("SELECT count(*) FROM changes", &[]).await.unwrap().get::<_, i64>(0);
        database.batch_execute(old).await.unwrap();
        system.start(Service::DlqReaper).await;
        becomes(system, Service::DlqReaper, "cuewire_retention_runs_total", &[("result", "done")], 1.0).await;
        becomes(system, Service::DlqReaper, "cuewire_partitions_ahead", &[], 14.0).await;
        has(
            system,
            Service::DlqReaper,
            &[
                ("cuewire_retention_partitions_dropped_total", &[("table", "events")], 1.0),
                ("cuewire_retention_rows_deleted_total", &[("table", "changes")], changes as f64),
            ],
        )
        .await;

        let amqp = system.amqp().await;
        let mut refused = cuewire_tests::event("a.b", "nobody");
        refused["id"] = "refused".into();
        amqp.publish(&refused).await;
        becomes(system, Service::DlqReaper, "cuewire_reaper_parked_total", &[], 1.0).await;
        until("it is in the parking queue", async || amqp.take("parking.v1").await).await;

        system.stop(Service::Router).await;
        let short_lived = Raw::event(&organization.event("a.b"));
        let short_lived = short_lived.properties(|properties| properties.with_expiration("1".into()));
        amqp.publish_raw(&short_lived).await.unwrap();
        becomes(system, Service::DlqReaper, "cuewire_reaper_redriven_total", &[], 1.0).await;
        let lateness = "cuewire_reaper_redrive_lateness_seconds";
        has(system, Service::DlqReaper, &[(&format!("{lateness}_count"), &[], 1.0)]).await;
        let late = system.metric(Service::DlqReaper, &format!("{lateness}_sum"), &[]).await.unwrap();
        assert!((0.0..10.0).contains(&late), "{late} s");
        system.start(Service::Router).await;
    });
}
