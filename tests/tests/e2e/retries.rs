//! Failing, trying again at the scheduled times, and giving up.

use std::time::Duration;

use cuewire_tests::amqp::Raw;
use cuewire_tests::event::id;
use cuewire_tests::system::test;
use cuewire_tests::{Answer, Receiver, Request, verify};
use serde_json::json;
use time::OffsetDateTime;
use time::format_description::well_known::{Rfc2822, Rfc3339};

/// Times travel in whole milliseconds.
const ROUNDING: Duration = Duration::from_millis(1);
/// As late as a delivery may be at low load.
const LATE: Duration = Duration::from_millis(500);

/// Each request came `delays` after the one before: never early, and at most half a second late.
#[track_caller]
pub(crate) fn assert_spaced(requests: &[Request], delays: &[f64]) {
    assert_eq!(requests.len(), delays.len() + 1);
    for (pair, delay) in requests.windows(2).zip(delays) {
        let (gap, delay) = (pair[1].at - pair[0].at, Duration::from_secs_f64(*delay));
        assert!(gap + ROUNDING >= delay, "{gap:?} is earlier than {delay:?}");
        assert!(gap <= delay + LATE, "{gap:?} is later than {delay:?} and half a second");
    }
}

#[test]
fn a_delivery_that_fails_twice_and_then_succeeds_is_sent_at_its_scheduled_times() {
    test(async |system| {
        let failure = Answer::status(500).body("not today");
        let receiver = Receiver::answering([failure, Answer::status(302), Answer::status(204)]).await;
        let organization = system.organization().await;
        let webhook = organization.webhook(receiver.url("/")).schedule(&["3s", "7s", "1h"]).create().await;
        let event = organization.event("recordings.completed");
        system.amqp().await.publish(&event).await;

        receiver.wait_for(1).await;
        let waiting = organization.delivery(id(&event), &webhook, "retrying").await;
        assert!(waiting["next_attempt_at"].is_string(), "{waiting}");
        let requests = receiver.wait_for(3).await;
        assert_spaced(&requests, &[3.0, 7.0]);
        for request in &requests {
            assert_eq!((request.id(), &request.body), (requests[0].id(), &requests[0].body));
            // Each attempt is signed anew, with its own time.
            verify::v1(&webhook.secret, request).unwrap();
            let stamp: i64 = request.header("webhook-timestamp").unwrap().parse().unwrap();
            assert!((stamp - request.time.unix_timestamp()).abs() <= 1);
        }
        organization.delivery(id(&event), &webhook, "delivered").await;
        let path = format!("/v1/deliveries/{}", requests[0].id());
        let attempts = organization.admin.get(&path).await.expect(200)["attempts"].clone();
        let told: Vec<_> = attempts
            .as_array()
            .unwrap()
            .iter()
            .map(|attempt| json!([attempt["number"], attempt["status"], attempt["state"]]))
            .collect();
        let expected =
            [json!([1, 500, "retrying"]), json!([2, 302, "retrying"]), json!([3, 204, "delivered"])];
        assert_eq!(told, expected);

        system.stop_all().await;
        assert_eq!(receiver.count(), 3);
    });
}

#[test]
fn a_delivery_that_fails_for_ever_is_dead_after_the_last_attempt() {
    test(async |system| {
        let receiver = Receiver::answering([Answer::status(503).body("still broken")]).await;
        let organization = system.organization().await;
        let webhook = organization.webhook(receiver.url("/")).schedule(&["1s", "1s"]).create().await;
        let event = organization.event("encodes.failed");
        system.amqp().await.publish(&event).await;

        let letter = organization.dead_letters(1).await.remove(0);
        let requests = receiver.requests();
        assert_spaced(&requests, &[1.0, 1.0]);
        assert_eq!(letter["reason"], "exhausted");
        assert_eq!(letter["category"], "encodes");
        assert_eq!(letter["event_id"], event["id"]);
        assert_eq!(letter["event_type"], "encodes.failed");
        assert_eq!(letter["webhook_id"], webhook.id.as_str());
        assert_eq!(letter["delivery_id"], requests[0].id());
        assert_eq!(letter["organization"], organization.id.as_str());
        assert_eq!(letter["last_attempt"]["number"], 3);
        assert_eq!(letter["last_attempt"]["status"], 503);
        assert_eq!(letter["redriven_at"], json!(null));
        let path = format!("/v1/dead-letters/{}", letter["id"].as_str().unwrap());
        let whole = organization.admin.get(&path).await.expect(200);
        assert_eq!(whole["event"]["id"], event["id"]);
        assert_eq!(whole["event"]["data"], event["data"]);
        organization.delivery(id(&event), &webhook, "dead").await;
        let webhook = organization.admin.get(&format!("/v1/webhooks/{}", webhook.id)).await.expect(200);
        assert_eq!((&webhook["status"], &webhook["enabled"]), (&json!("failing"), &json!(true)));

        system.stop_all().await;
        assert_eq!(receiver.count(), 3);
    });
}

#[test]
fn an_event_without_a_time_says_the_same_in_every_attempt_in_the_log_and_after_a_redrive() {
    test(async |system| {
        let receiver = Receiver::answering([Answer::status(500)]).await;
        let organization = system.organization().await;
        organization.webhook(receiver.url("/")).schedule(&["1s"]).create().await;
        let data = r#"{"b" : 1.0, "a":1e2}"#;
        let body = format!(
            r#"{{"id":"undated","source":"/s","type":"a.b","organization":"{}","data":{data}}}"#,
            organization.id
        );
        system.amqp().await.publish_raw(&Raw::body("a.b", body)).await.unwrap();
        let letter = organization.dead_letters(1).await.remove(0);
        let path = format!("/v1/dead-letters/{}/redrive", letter["id"].as_str().unwrap());
        let _ = organization.admin.post(&path, &json!({})).await.expect(202);
        let requests = receiver.wait_for(3).await;
        let first = &requests[0];
        assert!(requests.iter().all(|request| request.body == first.body), "{requests:?}");
        assert!(String::from_utf8_lossy(&first.body).contains(data), "the data keeps its bytes");
        let timestamp = first.json()["timestamp"].clone();
        let at = OffsetDateTime::parse(timestamp.as_str().unwrap(), &Rfc3339).unwrap();
        assert!((first.time - at).abs() < Duration::from_secs(5), "{timestamp} is when it was routed");
        let logged = organization.admin.get("/v1/events/undated").await.expect(200);
        assert_eq!(logged["time"], timestamp, "{logged}");
        organization.dead_letters(2).await;
    });
}

#[test]
fn a_webhook_with_an_empty_schedule_is_never_retried() {
    test(async |system| {
        let receiver = Receiver::answering([Answer::status(500)]).await;
        let organization = system.organization().await;
        organization.webhook(receiver.url("/")).schedule(&[]).create().await;
        system.amqp().await.publish(&organization.event("a.b")).await;
        assert_eq!(organization.dead_letters(1).await[0]["reason"], "exhausted");
        system.stop_all().await;
        assert_eq!(receiver.count(), 1);
    });
}

#[test]
fn a_410_answer_disables_the_webhook() {
    test(async |system| {
        let receiver = Receiver::answering([Answer::status(410)]).await;
        let organization = system.organization().await;
        let webhook = organization.webhook(receiver.url("/")).schedule(&["1s"]).create().await;
        let other = Receiver::healthy().await;
        organization.webhook(other.url("/")).create().await;
        system.amqp().await.publish(&organization.event("a.b")).await;
        assert_eq!(organization.dead_letters(1).await[0]["reason"], "gone");
        let path = format!("/v1/webhooks/{}", webhook.id);
        let disabled = cuewire_tests::until("the webhook is disabled", async || {
            let webhook = organization.admin.get(&path).await.expect(200);
            (webhook["status"] == "disabled").then_some(webhook)
        })
        .await;
        assert_eq!(disabled["enabled"], false);
        assert!(disabled["disabled_reason"].as_str().unwrap().contains("410"), "{disabled}");

        // From now on it takes nothing, and the other one does.
        organization.in_effect().await;
        let next = organization.event("a.b");
        system.amqp().await.publish(&next).await;
        other.wait_for(2).await;
        system.stop_all().await;
        assert_eq!((receiver.count(), other.count()), (1, 2));
    });
}

#[test]
fn retry_after_moves_the_next_attempt_out() {
    test(async |system| {
        let receiver = Receiver::start(|_, before| match before.len() {
            0 => Answer::status(429).header("Retry-After", "4"),
            // A date has whole seconds: 4 to 5 of them from now.
            1 => {
                let at = OffsetDateTime::now_utc() + Duration::from_secs(5);
                let date = at.format(&Rfc2822).unwrap().replace("+0000", "GMT");
                Answer::status(503).header("retry-after", &date)
            }
            // Shorter than the schedule, which stays; and not honoured with a 500.
            2 => Answer::status(504).header("retry-after", "0"),
            3 => Answer::status(500).header("retry-after", "60"),
            _ => Answer::status(200),
        })
        .await;
        let organization = system.organization().await;
        let webhook =
            organization.webhook(receiver.url("/")).schedule(&["1s", "1s", "1s", "1s"]).create().await;
        let event = organization.event("a.b");
        system.amqp().await.publish(&event).await;
        let requests = receiver.wait_for(5).await;
        organization.delivery(id(&event), &webhook, "delivered").await;
        assert_spaced(&requests[..2], &[4.0]);
        let by_date = requests[2].at - requests[1].at;
        assert!(by_date + ROUNDING >= Duration::from_secs(4) && by_date <= Duration::from_secs(5) + LATE);
        assert_spaced(&requests[2..], &[1.0, 1.0]);
    });
}

#[test]
fn no_answer_and_a_broken_connection_are_failures_that_are_tried_again() {
    test(async |system| {
        let receiver = Receiver::answering([Answer::never(), Answer::break_off(), Answer::status(200)]).await;
        let organization = system.organization().await;
        let webhook = organization
            .webhook(receiver.url("/"))
            .with("timeout_ms", 1_000)
            .schedule(&["1s", "1s"])
            .create()
            .await;
        let event = organization.event("a.b");
        system.amqp().await.publish(&event).await;
        let requests = receiver.wait_for(3).await;
        organization.delivery(id(&event), &webhook, "delivered").await;
        // The timeout counts before the delay.
        assert_spaced(&requests, &[2.0, 1.0]);
        let attempts = organization.admin.get(&format!("/v1/webhooks/{}/attempts", webhook.id)).await;
        let attempts = attempts.expect(200)["data"].as_array().unwrap().clone();
        let failed: Vec<_> = attempts.iter().filter(|attempt| attempt["status"].is_null()).collect();
        assert_eq!(failed.len(), 2, "{attempts:?}");
        assert!(failed.iter().all(|attempt| !attempt["error"].as_str().unwrap().is_empty()), "{failed:?}");
    });
}

#[test]
fn a_receiver_that_is_not_there_yet_gets_its_delivery_later() {
    test(async |system| {
        let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let organization = system.organization().await;
        let webhook = organization.webhook(format!("http://{address}/")).schedule(&["1s"]).create().await;
        let event = organization.event("a.b");
        system.amqp().await.publish(&event).await;
        let waiting = organization.delivery(id(&event), &webhook, "retrying").await;
        let receiver = Receiver::healthy().await;
        organization.change(&webhook, &json!({"url": receiver.url("/moved")})).await;
        let request = receiver.wait_for(1).await.remove(0);
        assert_eq!((request.path.as_str(), json!(request.id())), ("/moved", waiting["id"].clone()));
        organization.delivery(id(&event), &webhook, "delivered").await;
    });
}

#[test]
fn a_webhook_deleted_while_its_delivery_waits_makes_a_dead_letter_and_no_loop() {
    test(async |system| {
        let receiver = Receiver::answering([Answer::status(500)]).await;
        let organization = system.organization().await;
        let webhook = organization.webhook(receiver.url("/")).schedule(&["2s"]).create().await;
        system.amqp().await.publish(&organization.event("a.b")).await;
        receiver.wait_for(1).await;
        let path = format!("/v1/webhooks/{}", webhook.id);
        assert_eq!(organization.admin.delete(&path).await.status, 204);
        let letter = organization.dead_letters(1).await.remove(0);
        assert_eq!((&letter["reason"], &letter["webhook_id"]), (&json!("deleted"), &json!(webhook.id)));
        system.stop_all().await;
        assert_eq!(receiver.count(), 1);
    });
}

#[test]
fn a_webhook_disabled_while_its_delivery_waits_makes_a_dead_letter() {
    test(async |system| {
        let receiver = Receiver::answering([Answer::status(500)]).await;
        let organization = system.organization().await;
        let webhook = organization.webhook(receiver.url("/")).schedule(&["2s"]).create().await;
        system.amqp().await.publish(&organization.event("a.b")).await;
        receiver.wait_for(1).await;
        organization.change(&webhook, &json!({"enabled": false})).await;
        assert_eq!(organization.dead_letters(1).await[0]["reason"], "disabled");
        system.stop_all().await;
        assert_eq!(receiver.count(), 1);
    });
}

#[test]
fn one_webhooks_failures_do_not_delay_another() {
    test(async |system| {
        // As many as may be in flight take long, and more of them wait.
        let stuck = Receiver::answering([Answer::status(500).after(Duration::from_secs(2))]).await;
        let healthy = Receiver::healthy().await;
        let organization = system.organization().await;
        let slow = organization.webhook(stuck.url("/")).types(&["slow.*"]).schedule(&[]);
        slow.with("max_in_flight", 4).create().await;
        organization.webhook(healthy.url("/")).types(&["quick.*"]).create().await;
        let amqp = system.amqp().await;
        amqp.publish_all(&cuewire_tests::event::events(12, "slow.event", &organization.id)).await;
        stuck.wait_for(4).await;
        let published = std::time::Instant::now();
        amqp.publish_all(&cuewire_tests::event::events(50, "quick.event", &organization.id)).await;
        let last = healthy.wait_for(50).await.pop().unwrap();
        assert!(last.at - published < Duration::from_secs(1), "{:?}", last.at - published);
        organization.dead_letters(12).await;
        assert!(stuck.requests().iter().all(|request| request.in_flight <= 4));
        system.stop_all().await;
        assert_eq!(stuck.count(), 12, "what waited was sent, too, and cost no attempt");
    });
}
