//! Circuit breakers, and what Cuewire tells of webhooks that fail.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cuewire_tests::event::{events, id};
use cuewire_tests::system::test;
use cuewire_tests::{Answer, Organization, Receiver, Request, Service, Setup, Webhook, until};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// In each of two senders the breaker opens after five, and three more may be in flight by then.
const AT_MOST_BEFORE_IT_OPENS: usize = 2 * (5 + 3);
/// The first probe comes after 30 s, and the rest at the pace of a receiver that answers at once.
const UNTIL_ALL_ARE_THERE: Duration = Duration::from_secs(60);

fn types(requests: &[Request]) -> Vec<String> {
    requests.iter().map(|request| request.json()["type"].as_str().unwrap().to_owned()).collect()
}

/// A webhook for Cuewire's own events of the organization, at this receiver.
async fn told(organization: &Organization<'_>, receiver: &Receiver) {
    organization.webhook(receiver.url("/")).types(&["webhook.*"]).create().await;
}

#[test]
fn a_receiver_that_breaks_off_is_left_alone_until_a_probe_finds_it_back() {
    Setup::default().replicas(Service::Sender, 2).run(async |system| {
        let is_back = Arc::new(AtomicBool::new(false));
        let back = Arc::clone(&is_back);
        let receiver = Receiver::start(move |_, _| match back.load(Ordering::Relaxed) {
            true => Answer::status(204),
            false => Answer::break_off(),
        })
        .await;
        let organization = system.organization().await;
        let ears = Receiver::healthy().await;
        told(&organization, &ears).await;
        let webhook = organization.webhook(receiver.url("/")).schedule(&["5s"; 9]).create().await;
        let path = format!("/v1/webhooks/{}", webhook.id);
        organization.in_effect().await;

        let events: Vec<_> = (0..40).map(|_| organization.event("feeds.started")).collect();
        system.amqp().await.publish_all(&events).await;
        let failing = until("the breaker is open", async || {
            let webhook = organization.admin.get(&path).await.expect(200);
            webhook["breaker"].is_object().then_some(webhook)
        })
        .await;
        assert_eq!((&failing["status"], &failing["enabled"]), (&json!("failing"), &json!(true)));
        assert_eq!(failing["breaker"]["failed_probes"], 0);
        let notice = ears.wait_for(1).await.remove(0).json();
        assert_eq!(notice["type"], "webhook.failing");
        assert_eq!((&notice["subject"], &notice["data"]["webhook_id"]), (&failing["id"], &failing["id"]));
        assert!(notice["data"]["failures_in_a_row"].as_u64() >= Some(5), "{notice}");

        let before = receiver.count();
        assert!(before <= AT_MOST_BEFORE_IT_OPENS, "{before} requests");
        is_back.store(true, Ordering::Relaxed);
        let all = |requests: &[Request]| {
            let arrived = |event: &Value| requests[before..].iter().any(|it| it.event_id() == id(event));
            requests.len() >= before && events.iter().all(arrived)
        };
        receiver.wait_until(UNTIL_ALL_ARE_THERE, "every event arrives", all).await;
        assert_eq!(receiver.count() - before, events.len(), "each of them once");
        let told = ears.wait_for(2).await;
        assert_eq!(types(&told), ["webhook.failing", "webhook.recovered"]);
        let well = organization.admin.get(&path).await.expect(200);
        assert_eq!((&well["status"], &well["breaker"]), (&json!("enabled"), &Value::Null));
        let stats = organization.admin.get(&format!("{path}/stats")).await.expect(200);
        let parked: u64 =
            stats["data"].as_array().unwrap().iter().filter_map(|minute| minute["parked"].as_u64()).sum();
        assert!(parked >= (events.len() - AT_MOST_BEFORE_IT_OPENS) as u64, "{stats}");
    });
}

#[test]
fn a_breaker_opens_when_half_of_20_requests_in_a_minute_have_failed_and_not_before() {
    test(async |system| {
        let every = |nth: usize| {
            Receiver::start(move |_, before| {
                Answer::status(if (before.len() + 1).is_multiple_of(nth) { 500 } else { 204 })
            })
        };
        let (half, third, ears) = (every(2).await, every(3).await, Receiver::healthy().await);
        let organization = system.organization().await;
        told(&organization, &ears).await;
        let webhook = async |receiver: &Receiver, types: &str| {
            // One after another, so that all know what came before.
            let webhook = organization.webhook(receiver.url("/")).types(&[types]).schedule(&[]);
            webhook.with("max_in_flight", 1).create().await
        };
        let failing = webhook(&half, "half.*").await;
        let flapping = webhook(&third, "third.*").await;
        organization.in_effect().await;
        let amqp = system.amqp().await;
        amqp.publish_all(&events(30, "third.failed", &organization.id)).await;
        third.wait_for(30).await;
        let breaker = async |webhook: &Webhook| {
            let path = format!("/v1/webhooks/{}", webhook.id);
            organization.admin.get(&path).await.expect(200)["breaker"].clone()
        };
        amqp.publish_all(&events(20, "half.failed", &organization.id)).await;
        until("the breaker is open", async || breaker(&failing).await.is_object().then_some(())).await;
        assert_eq!(half.count(), 20);
        assert_eq!(breaker(&flapping).await, Value::Null);
        let of_breakers = |request: &Request| request.json()["type"] == "webhook.failing";
        let told = ears.wait_until(UNTIL_ALL_ARE_THERE, "the organization is told", |requests| {
            requests.iter().any(of_breakers)
        });
        let told: Vec<Value> = told.await.iter().filter(|it| of_breakers(it)).map(Request::json).collect();
        assert_eq!(told.len(), 1, "{told:?}");
        assert_eq!(told[0]["data"]["webhook_id"], failing.id.as_str());
        assert_eq!(told[0]["data"]["failures_in_a_row"], 10, "half of the requests");
    });
}

#[test]
fn each_probe_that_fails_moves_the_next_one_further_away() {
    test(async |system| {
        let receiver = Receiver::answering([Answer::break_off()]).await;
        let organization = system.organization().await;
        let webhook = organization.webhook(receiver.url("/")).schedule(&[]).create().await;
        organization.in_effect().await;
        let amqp = system.amqp().await;
        amqp.publish_all(&events(5, "feeds.started", &organization.id)).await;
        let path = format!("/v1/webhooks/{}", webhook.id);
        let after_failed = async |probes: u64| {
            until(&format!("{probes} probes have failed"), async || {
                let breaker = organization.admin.get(&path).await.expect(200)["breaker"].clone();
                (breaker["failed_probes"] == probes).then_some(breaker)
            })
            .await
        };
        let database = system.database().await;
        let minutes = [0.5, 2.0, 10.0, 60.0, 60.0];
        for (failed, minutes) in (0..).zip(minutes) {
            let breaker = after_failed(failed).await;
            let next = OffsetDateTime::parse(breaker["next_probe_at"].as_str().unwrap(), &Rfc3339).unwrap();
            let (wait, expected) = (next - OffsetDateTime::now_utc(), time::Duration::minutes(1) * minutes);
            let late = time::Duration::seconds(10);
            assert!((expected - late..=expected).contains(&wait), "{wait} until the probe after {failed}");
            // It is time for it.
            let due = "UPDATE webhook_health SET next_probe_at = now() WHERE webhook_id = $1::text::uuid";
            assert_eq!(database.execute(due, &[&webhook.id]).await.unwrap(), 1);
            until("the sender has heard of it and forgotten what it knew", async || {
                (system.sum(Service::Sender, "cuewire_sender_webhooks").await == 0.0).then_some(())
            })
            .await;
            amqp.publish(&organization.event("feeds.started")).await;
        }
        after_failed(minutes.len() as u64).await;
        assert_eq!(receiver.count(), 5 + minutes.len(), "nothing but probes is sent");
        let counted = async |metric, labels| system.metric(Service::Sender, metric, labels).await;
        assert_eq!(counted("cuewire_sender_breakers_opened_total", &[]).await, Some(1.0));
        let failed = counted("cuewire_sender_probes_total", &[("state", "dead")]).await;
        assert_eq!(failed, Some(minutes.len() as f64));
        // The reaper looks when it starts, and once a minute.
        system.stop(Service::DlqReaper).await;
        system.start(Service::DlqReaper).await;
        until("the open breaker is counted", async || {
            let open = system.metric(Service::DlqReaper, "cuewire_reaper_open_breakers", &[]).await;
            (open == Some(1.0)).then_some(())
        })
        .await;
    });
}

#[test]
fn another_url_closes_a_webhooks_breaker_at_once_and_what_waits_behind_it_comes_before_its_time() {
    test(async |system| {
        let receiver = Receiver::answering([Answer::break_off()]).await;
        let organization = system.organization().await;
        let webhook = organization.webhook(receiver.url("/")).schedule(&[]).create().await;
        organization.in_effect().await;
        let events: Vec<_> = (0..5).map(|_| organization.event("feeds.started")).collect();
        system.amqp().await.publish_all(&events).await;
        let path = format!("/v1/webhooks/{}", webhook.id);
        until("the breaker is open", async || {
            organization.admin.get(&path).await.expect(200)["breaker"].is_object().then_some(())
        })
        .await;

        let later = "UPDATE webhook_health SET next_probe_at = now() + interval '55 s' WHERE webhook_id = $1::text::uuid";
        assert_eq!(system.database().await.execute(later, &[&webhook.id]).await.unwrap(), 1);
        until("the sender has heard of it and forgotten what it knew", async || {
            (system.sum(Service::Sender, "cuewire_sender_webhooks").await == 0.0).then_some(())
        })
        .await;
        let parked = organization.event("feeds.started");
        system.amqp().await.publish(&parked).await;
        system.wait_until_parked("open", 1).await;

        let healthy = Receiver::healthy().await;
        let changed = organization.change(&webhook, &json!({"url": healthy.url("/")})).await;
        assert_eq!((&changed["status"], &changed["breaker"]), (&json!("enabled"), &Value::Null));
        let event = organization.event("feeds.started");
        system.amqp().await.publish(&event).await;
        assert_eq!(healthy.wait_for(1).await[0].event_id(), id(&event));
        // After its first 30 s in a delayed queue, and not behind the probe.
        let requests = healthy.wait_within(Duration::from_secs(45), 2).await;
        assert_eq!(requests[1].event_id(), id(&parked));
    });
}

#[test]
fn a_success_ends_a_failing_that_another_sender_has_noted() {
    test(async |system| {
        let receiver = Receiver::healthy().await;
        let organization = system.organization().await;
        let webhook = organization.webhook(receiver.url("/")).create().await;
        organization.in_effect().await;
        let amqp = system.amqp().await;
        amqp.publish(&organization.event("feeds.started")).await;
        receiver.wait_for(1).await;
        let noted = "INSERT INTO webhook_health (webhook_id, first_failed_at, last_error)
                     VALUES ($1::text::uuid, now(), 'the receiver answered 500')";
        assert_eq!(system.database().await.execute(noted, &[&webhook.id]).await.unwrap(), 1);
        // The first one's success may be noted only now, and end it already.
        until("a success is noted", async || {
            amqp.publish(&organization.event("feeds.started")).await;
            let path = format!("/v1/webhooks/{}", webhook.id);
            (organization.admin.get(&path).await.expect(200)["status"] == "enabled").then_some(())
        })
        .await;
    });
}

#[test]
fn an_organization_is_told_of_dead_letters_and_of_a_webhook_that_is_disabled_but_not_of_what_tells_it() {
    test(async |system| {
        let organization = system.organization().await;
        let ears = Receiver::healthy().await;
        told(&organization, &ears).await;
        // One that is deaf causes a dead letter for each event that it does not hear, and is disabled at the third; of
        // neither anybody is told.
        let deaf = Receiver::answering([Answer::status(500), Answer::status(500), Answer::status(410)]).await;
        let unheard = organization.webhook(deaf.url("/")).types(&["webhook.*"]).schedule(&[]).create().await;
        let broken = Receiver::answering([Answer::status(500), Answer::status(410)]).await;
        let webhook = organization.webhook(broken.url("/")).schedule(&[]).create().await;
        organization.in_effect().await;

        let first = organization.event("encodes.failed");
        system.amqp().await.publish(&first).await;
        let notice = ears.wait_for(1).await.remove(0).json();
        assert_eq!(
            (&notice["type"], &notice["source"]),
            (&json!("webhook.delivery_failed"), &json!("/cuewire"))
        );
        let expected = json!({
            "webhook_id": webhook.id, "url": broken.url("/"), "reason": "exhausted",
            "detail": "the receiver answered 500", "event_id": id(&first), "event_type": "encodes.failed",
            "delivery_id": broken.requests()[0].id()
        });
        assert_eq!(notice["data"], expected);

        let second = organization.event("encodes.failed");
        system.amqp().await.publish(&second).await;
        let mut told = types(&ears.wait_for(3).await);
        told[1..].sort();
        assert_eq!(told, ["webhook.delivery_failed", "webhook.delivery_failed", "webhook.disabled"]);
        deaf.wait_for(3).await;
        // Two of the broken one's, three of the deaf one's.
        organization.dead_letters(5).await;
        until("the deaf one is disabled", async || {
            let path = format!("/v1/webhooks/{}", unheard.id);
            (organization.admin.get(&path).await.expect(200)["enabled"] == false).then_some(())
        })
        .await;

        // What is told next is of what happens next.
        organization
            .webhook(Receiver::answering([Answer::status(500)]).await.url("/"))
            .schedule(&[])
            .create()
            .await;
        organization.in_effect().await;
        system.amqp().await.publish(&organization.event("encodes.failed")).await;
        let told = ears.wait_for(4).await;
        assert_eq!(types(&told)[3], "webhook.delivery_failed");
        system.stop_all().await;
        assert_eq!((ears.count(), deaf.count()), (4, 3));
    });
}

#[test]
fn a_breaker_that_opens_upon_what_tells_of_other_webhooks_is_told_to_nobody() {
    test(async |system| {
        let organization = system.organization().await;
        let ears = Receiver::healthy().await;
        told(&organization, &ears).await;
        let deaf = Receiver::start(|_, _| Answer::break_off()).await;
        let unheard = organization.webhook(deaf.url("/")).types(&["webhook.*"]).schedule(&[]).create().await;
        let broken = Receiver::answering([Answer::status(500)]).await;
        organization.webhook(broken.url("/")).schedule(&[]).create().await;
        organization.in_effect().await;
        // A dead letter for each, which the deaf one does not hear of.
        let events: Vec<_> = (0..5).map(|_| organization.event("encodes.failed")).collect();
        system.amqp().await.publish_all(&events).await;
        until("the deaf one's breaker is open", async || {
            let path = format!("/v1/webhooks/{}", unheard.id);
            organization.admin.get(&path).await.expect(200)["breaker"].is_object().then_some(())
        })
        .await;
        system.stop_all().await;
        assert_eq!(types(&ears.requests()), ["webhook.delivery_failed"; 5]);
    });
}

#[test]
fn a_webhook_that_has_failed_for_days_is_disabled_and_its_organization_is_told() {
    Setup::default().variable("CUEWIRE_DISABLE_FAILING_AFTER", "1h").run(async |system| {
        let organization = system.organization().await;
        let ears = Receiver::healthy().await;
        told(&organization, &ears).await;
        let receiver = Receiver::answering([Answer::status(500)]).await;
        let webhook = organization.webhook(receiver.url("/")).schedule(&[]).create().await;
        organization.in_effect().await;
        // Slow enough for its breaker to stay closed would take long; so the account is made to tell it.
        let event = organization.event("feeds.ended");
        system.amqp().await.publish(&event).await;
        organization.delivery(id(&event), &webhook, "dead").await;
        let database = system.database().await;
        let of_days = "UPDATE delivery_stats SET failed = 50 WHERE webhook_id = $1::text::uuid";
        assert_eq!(database.execute(of_days, &[&webhook.id]).await.unwrap(), 1);
        let begun = "UPDATE webhook_health SET first_failed_at = now() - interval '2 h'
                     WHERE webhook_id = $1::text::uuid";
        until("it is noted as failing, after its attempt", async || {
            (database.execute(begun, &[&webhook.id]).await.unwrap() == 1).then_some(())
        })
        .await;
        // It looks once a minute, and when it starts.
        system.stop(Service::DlqReaper).await;
        system.start(Service::DlqReaper).await;

        let told = ears.wait_until(Duration::from_secs(20), "it is told", |requests| {
            types(requests).contains(&"webhook.disabled".to_owned())
        });
        let notice =
            told.await.iter().map(Request::json).find(|it| it["type"] == "webhook.disabled").unwrap();
        assert_eq!(notice["data"]["webhook_id"], webhook.id.as_str());
        let disabled = organization.admin.get(&format!("/v1/webhooks/{}", webhook.id)).await.expect(200);
        assert_eq!(disabled["status"], "disabled");
        assert!(
            disabled["disabled_reason"].as_str().unwrap().starts_with("all 50 attempts since"),
            "{disabled}"
        );
    });
}
