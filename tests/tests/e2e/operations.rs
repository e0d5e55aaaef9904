//! What people do with the API while work goes on: test calls, sending again by hand, lists, listening.

use std::collections::BTreeSet;
use std::time::Duration;

use cuewire_tests::event::id;
use cuewire_tests::system::test;
use cuewire_tests::{Answer, Client, Receiver, Service, Webhook, until, verify};
use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::sync::watch;
use url::form_urlencoded;

#[test]
fn a_test_call_answers_with_what_the_receiver_said_and_is_not_repeated() {
    test(async |system| {
        let receiver =
            Receiver::answering([Answer::status(200).body("fine"), Answer::status(500).body("broken")]).await;
        let organization = system.organization().await;
        let webhook = organization.webhook(receiver.url("/")).types(&["recordings.*"]).create().await;
        let path = format!("/v1/webhooks/{}/test", webhook.id);
        let good = organization.admin.post(&path, &json!({})).await.expect(200);
        assert_eq!((&good["status"], &good["response_body"]), (&json!(200), &json!("fine")));
        let bad = organization.admin.post(&path, &json!({"type": "recordings.error"})).await.expect(200);
        assert_eq!((&bad["status"], &bad["response_body"]), (&json!(500), &json!("broken")));
        assert_eq!((&bad["state"], &bad["reason"]), (&json!("dead"), &json!("test")));
        let requests = receiver.wait_for(2).await;
        let event_type = requests[0].json()["type"].as_str().unwrap().to_owned();
        assert!(event_type.starts_with("recordings."), "{event_type}");
        assert_eq!(requests[1].json()["type"], "recordings.error");
        for request in &requests {
            verify::v1(&webhook.secret, request).unwrap();
        }
        system.stop_all().await;
        assert_eq!(receiver.count(), 2);
        let letters = "SELECT count(*) FROM dead_letters";
        let letters: i64 = system.database().await.query_one(letters, &[]).await.unwrap().get(0);
        assert_eq!(letters, 0, "a test that fails is no dead letter");
    });
}

#[test]
fn a_test_call_that_no_sender_took_in_time_is_not_sent_later() {
    test(async |system| {
        let receiver = Receiver::healthy().await;
        let organization = system.organization().await;
        let webhook = organization.webhook(receiver.url("/")).with("timeout_ms", 100).create().await;
        system.stop(Service::Sender).await;
        let path = format!("/v1/webhooks/{}/test", webhook.id);
        let problem = organization.admin.post(&path, &json!({})).await.problem(504);
        assert!(problem.contains("no sender"), "{problem}");
        system.start(Service::Sender).await;
        system.stop_all().await;
        assert_eq!(receiver.count(), 0);
    });
}

#[test]
fn an_organizations_test_calls_that_hang_take_up_a_bounded_part_also_when_their_callers_hang_up() {
    const MAX_OWN: usize = 32;
    test(async |system| {
        let (say, _) = watch::channel(false);
        let hangs = Receiver::answering([Answer::status(204).when(&say)]).await;
        let healthy = Receiver::healthy().await;
        let (organization, another) = (system.organization().await, system.organization().await);
        let hanging = organization.webhook(hangs.url("/")).with("timeout_ms", 30_000).create().await;
        let webhook = another.webhook(healthy.url("/")).create().await;
        let test_of = |webhook: &Webhook| format!("/v1/webhooks/{}/test", webhook.id);
        let path = test_of(&hanging);
        let no_answer = json!({});
        let calls = join_all((0..MAX_OWN).map(|_| organization.admin.post(&path, &no_answer)));
        tokio::select! {
            _ = calls => panic!("a receiver that hangs has answered"),
            requests = hangs.wait_for(MAX_OWN) => assert_eq!(requests.len(), MAX_OWN),
        }
        // Nobody waits for these any more, and they are in flight.
        let problem = organization.admin.post(&path, &json!({})).await.problem(429);
        assert!(problem.contains("your test calls"), "{problem}");
        assert_eq!(another.admin.post(&test_of(&webhook), &json!({})).await.expect(200)["status"], 200);
        assert_eq!(hangs.count(), MAX_OWN);
        say.send(true).unwrap();
        until("there is room again", async || {
            let answer = organization.admin.post(&path, &json!({})).await;
            (answer.status == 200).then_some(())
        })
        .await;
    });
}

#[test]
fn a_delivery_that_is_over_is_sent_again_by_hand_and_one_under_way_is_not() {
    test(async |system| {
        let receiver =
            Receiver::answering([Answer::status(200), Answer::status(500), Answer::status(200)]).await;
        let organization = system.organization().await;
        let webhook = organization.webhook(receiver.url("/")).schedule(&["3s"]).create().await;
        let event = organization.event("a.b");
        system.amqp().await.publish(&event).await;
        let delivery = organization.delivery(id(&event), &webhook, "delivered").await;
        let path = format!("/v1/deliveries/{}/retry", delivery["id"].as_str().unwrap());
        let _ = organization.admin.post(&path, &json!({})).await.expect(202);
        organization.delivery(id(&event), &webhook, "retrying").await;
        let _ = organization.admin.post(&path, &json!({})).await.problem(409);
        let requests = receiver.wait_for(3).await;
        assert!(requests.iter().all(|request| request.id() == delivery["id"]));
        organization.delivery(id(&event), &webhook, "delivered").await;
        system.stop_all().await;
        assert_eq!(receiver.count(), 3);
    });
}

#[test]
fn a_delivered_delivery_is_sent_again_once_however_often_that_is_asked_for_at_once() {
    test(async |system| {
        let receiver = Receiver::healthy().await;
        let organization = system.organization().await;
        let webhook = organization.webhook(receiver.url("/")).create().await;
        let event = organization.event("a.b");
        system.amqp().await.publish(&event).await;
        let delivery = organization.delivery(id(&event), &webhook, "delivered").await;
        let path = format!("/v1/deliveries/{}/retry", delivery["id"].as_str().unwrap());
        // What is asked for waits until there is a sender again.
        system.stop(Service::Sender).await;
        let body = json!({});
        let clicks = join_all((0..10).map(|_| organization.admin.post(&path, &body))).await;
        let statuses: Vec<u16> = clicks.iter().map(|reply| reply.status.as_u16()).collect();
        assert_eq!(statuses.iter().filter(|status| **status == 202).count(), 1, "{statuses:?}");
        let problem = organization.admin.post(&path, &body).await.problem(409);
        assert!(problem.contains("under way"), "{problem}");
        organization.delivery(id(&event), &webhook, "pending").await;

        system.start(Service::Sender).await;
        organization.delivery(id(&event), &webhook, "delivered").await;
        let _ = organization.admin.post(&path, &body).await.expect(202);
        receiver.wait_for(3).await;
        system.stop_all().await;
        assert_eq!(receiver.count(), 3);
    });
}

#[test]
fn events_are_found_by_type_category_subject_and_time() {
    test(async |system| {
        let organization = system.organization().await;
        for (event_type, subject) in
            [("recordings.completed", "r-1"), ("recordings.failed", "r-2"), ("feeds.started", "f-1")]
        {
            let mut event = organization.event(event_type);
            (event["id"], event["subject"]) = (subject.into(), subject.into());
            system.amqp().await.publish(&event).await;
        }
        let list = async |query: &str| {
            let found = organization.admin.get(&format!("/v1/events?{query}")).await.expect(200);
            let ids = found["data"].as_array().unwrap().iter();
            ids.map(|event| event["id"].as_str().unwrap().to_owned()).collect::<BTreeSet<_>>()
        };
        until("all are logged", async || (list("").await.len() == 3).then_some(())).await;
        let set = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect::<BTreeSet<_>>();
        assert_eq!(list("type=recordings.failed").await, set(&["r-2"]));
        assert_eq!(list("category=recordings").await, set(&["r-1", "r-2"]));
        assert_eq!(list("subject=f-1").await, set(&["f-1"]));
        assert_eq!(list("from=2020-01-01T00:00:00Z&to=2020-01-02T00:00:00Z").await, set(&[]));
        assert_eq!(list("from=2020-01-01T00:00:00Z").await.len(), 3);
    });
}

#[test]
fn an_event_is_read_by_its_id_whatever_that_is() {
    test(async |system| {
        let organization = system.organization().await;
        let ids = ["stream", ".", "..", " ", "_", "a/b?c#d", "%2F", "ü+&="];
        for (number, id) in ids.into_iter().enumerate() {
            let mut event = organization.event("a.b");
            (event["id"], event["source"], event["subject"]) =
                (id.into(), " ".into(), format!("s-{number}").into());
            system.amqp().await.publish(&event).await;
        }
        until("all are logged", async || {
            let list = organization.admin.get("/v1/events").await.expect(200);
            (list["data"].as_array().unwrap().len() == ids.len()).then_some(())
        })
        .await;
        for (number, id) in ids.into_iter().enumerate() {
            let query = form_urlencoded::Serializer::new(String::new())
                .append_pair("id", id)
                .append_pair("source", " ")
                .finish();
            let event = organization.admin.get(&format!("/v1/events/_?{query}")).await.expect(200);
            assert_eq!((&event["id"], &event["subject"]), (&json!(id), &json!(format!("s-{number}"))));
        }
        let event = organization.admin.get("/v1/events/%20").await.expect(200);
        assert_eq!(event["id"], " ");
        let _ = organization.admin.get("/v1/events/other?id=stream").await.problem(422);
    });
}

#[test]
fn a_viewer_sees_which_headers_a_webhook_has_and_the_database_holds_none_of_their_values() {
    test(async |system| {
        let organization = system.organization().await;
        let receiver = Receiver::healthy().await;
        let headers = json!({"authorization": "Bearer of-the-receiver", "x-two": "zwei"});
        let webhook = organization.webhook(receiver.url("/")).with("headers", headers.clone()).create().await;
        assert_eq!(webhook.json["headers"], headers);
        let path = format!("/v1/webhooks/{}", webhook.id);
        for (role, seen) in [
            ("admin", headers.clone()),
            ("editor", headers.clone()),
            ("viewer", json!({"authorization": "***", "x-two": "***"})),
        ] {
            let api = organization.with_role(role).await;
            assert_eq!(api.get(&path).await.expect(200)["headers"], seen, "{role}");
            assert_eq!(api.get("/v1/webhooks").await.expect(200)["data"][0]["headers"], seen, "{role}");
        }
        let row =
            "SELECT encode(headers, 'escape') || to_jsonb(webhooks)::text FROM webhooks WHERE url LIKE '%/'";
        let row: String = system.database().await.query_one(row, &[]).await.unwrap().get(0);
        assert!(
            row.contains(&webhook.id) && !row.contains("of-the-receiver") && !row.contains("zwei"),
            "{row}"
        );

        organization.change(&webhook, &json!({"name": "changed"})).await;
        system.amqp().await.publish(&organization.event("a.b")).await;
        let request = receiver.wait_for(1).await.remove(0);
        assert_eq!(request.header("authorization"), Some("Bearer of-the-receiver"));
        organization.change(&webhook, &json!({"headers": null})).await;
        assert_eq!(organization.admin.get(&path).await.expect(200)["headers"], json!({}));
    });
}

#[test]
fn whoever_listens_is_told_of_the_events_of_its_own_organization() {
    test(async |system| {
        let (one, other) = (system.organization().await, system.organization().await);
        let request = one.admin.request(Method::GET, "/v1/events/stream").build().unwrap();
        let mut stream = reqwest::Client::new().execute(request).await.unwrap();
        assert_eq!(stream.status(), 200);
        // One event after another, since listening begins at some moment.
        let (mine, theirs) = (one.event("a.mine"), other.event("a.theirs"));
        let told = async {
            let mut told = String::new();
            while !told.contains(id(&mine)) {
                told += &String::from_utf8_lossy(&stream.chunk().await.unwrap().expect("it goes on"));
            }
            told
        };
        system.amqp().await.publish_all(&[theirs.clone(), mine.clone()]).await;
        let told = tokio::time::timeout(Duration::from_secs(15), told).await.expect("it is told in time");
        assert!(!told.contains(id(&theirs)), "{told}");
        let line = told.lines().find_map(|line| line.strip_prefix("data:")).unwrap();
        let event: Value = serde_json::from_str(line.trim()).unwrap();
        assert_eq!((&event["id"], &event["type"]), (&mine["id"], &json!("a.mine")));
        drop(stream);
    });
}

#[test]
fn an_organization_may_listen_ten_times_at_once() {
    test(async |system| {
        let (one, other) = (system.organization().await, system.organization().await);
        let listen =
            async |client: &Client| client.open(client.request(Method::GET, "/v1/events/stream")).await;
        let mut listening = Vec::new();
        for _ in 0..10 {
            listening.push(listen(&one.admin).await);
        }
        assert!(listening.iter().all(|stream| stream.status() == 200));
        assert_eq!(listen(&one.admin).await.status(), 429);
        assert_eq!(listen(&other.admin).await.status(), 200);
        listening.pop();
        until("there is room again", async || (listen(&one.admin).await.status() == 200).then_some(())).await;
    });
}

#[test]
fn a_message_that_was_not_understood_is_shown_to_the_operator_whole() {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD as BASE64;
    use cuewire_tests::amqp::Raw;
    test(async |system| {
        let body = b"\x00\xff not an event".to_vec();
        system.amqp().await.publish_raw(&Raw::body("a.b", body.clone())).await.unwrap();
        let operator = system.operator();
        let letter = until("there is a dead letter", async || {
            let letters = operator.get("/v1/dead-letters").await.expect(200);
            letters["data"].as_array().unwrap().first().cloned()
        })
        .await;
        let path = format!("/v1/dead-letters/{}", letter["id"].as_str().unwrap());
        let whole = operator.get(&path).await.expect(200);
        assert_eq!(whole["payload_base64"], BASE64.encode(body));
        assert_eq!((&whole["event"], &whole["reason"]), (&json!(null), &json!("poison")));
        assert_eq!(operator.delete(&path).await.status, 204);
        let _ = operator.get(&path).await.problem(404);
    });
}

#[test]
fn a_partition_that_is_missing_today_is_made_by_router_and_sender() {
    test(async |system| {
        let receiver = Receiver::healthy().await;
        let organization = system.organization().await;
        let webhook = organization.webhook(receiver.url("/")).create().await;
        let database = system.database().await;
        for table in ["events", "attempts", "delivery_stats"] {
            let today = "SELECT to_char(now() AT TIME ZONE 'utc', 'YYYYMMDD')";
            let today: String = database.query_one(today, &[]).await.unwrap().get(0);
            database.batch_execute(&format!("DROP TABLE {table}_{today}")).await.unwrap();
        }
        let event = organization.event("a.b");
        system.amqp().await.publish(&event).await;
        organization.delivery(id(&event), &webhook, "delivered").await;
        system.stop_all().await;
        assert_eq!(receiver.count(), 1);
    });
}
