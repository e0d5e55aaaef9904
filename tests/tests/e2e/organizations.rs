//! An organization that is deleted while its deliveries are under way.

use std::time::{Duration, Instant};

use cuewire_tests::system::test;
use cuewire_tests::{Answer, Receiver, Service, until};
use serde_json::{Value, json};

#[test]
fn what_is_under_way_when_its_organization_is_deleted_becomes_the_operators_dead_letters() {
    test(async |system| {
        let slow = Answer::status(500).after(Duration::from_secs(1));
        let (waiting, in_flight) =
            (Receiver::answering([Answer::status(500)]).await, Receiver::answering([slow]).await);
        let (operator, other) = (system.operator(), system.organization().await);
        let organization = system.organization_named("doomed").await;
        let keys = [&organization.admin, &organization.with_role("viewer").await];
        organization.webhook(waiting.url("/")).types(&["a.*"]).schedule(&["2s"]).create().await;
        organization.webhook(in_flight.url("/")).types(&["b.*"]).schedule(&["1s"]).create().await;
        other.webhook(waiting.url("/other")).types(&["a.*"]).schedule(&[]).create().await;
        let amqp = system.amqp().await;
        amqp.publish_all(&[organization.event("a.b"), organization.event("b.c")]).await;
        waiting.wait_for(1).await;
        in_flight.wait_for(1).await;

        let path = format!("/v1/organizations/{}", organization.id);
        assert_eq!(operator.delete(&path).await.status, 204);
        let deleted = Instant::now();
        for key in keys {
            while key.get("/v1/webhooks").await.status != 401 {
                assert!(deleted.elapsed() < Duration::from_secs(1), "its key still works");
            }
        }
        until("the router knows that it is gone", async || {
            (system.sum(Service::Router, "cuewire_router_organizations").await == 1.0).then_some(())
        })
        .await;
        assert!(deleted.elapsed() < Duration::from_secs(1), "{:?}", deleted.elapsed());
        let _ = operator.get(&path).await.problem(404);
        let _ = operator.delete(&path).await.problem(404);
        let _ = operator.get(&format!("{path}/api-keys")).await.problem(404);

        // By either of its names, and over HTTP, where only the operator can still speak of it.
        amqp.publish_all(&[organization.event("a.b"), cuewire_tests::event("a.b", "doomed")]).await;
        let _ = operator.post("/v1/events", &organization.event("a.b")).await.expect(202);
        amqp.publish(&other.event("a.b")).await;
        let of_the_other = other.dead_letters(1).await.remove(0);
        let letters = until("the operator has what nobody owns", async || {
            let letters = operator.get("/v1/dead-letters").await.expect(200);
            letters["data"].as_array().filter(|letters| letters.len() == 5).cloned()
        })
        .await;
        let mut told: Vec<_> =
            letters.iter().map(|it| (it["reason"].as_str(), &it["organization"])).collect();
        told.sort_by_key(|(reason, _)| *reason);
        let (its_own, none) = (json!(organization.id), json!(null));
        let expected = [("deleted", &its_own), ("deleted", &its_own), ("rejected", &none)];
        let [deleted, again, rejected] = expected.map(|(reason, whose)| (Some(reason), whose));
        assert_eq!(told, [deleted, again, rejected, rejected, rejected]);
        let paged = operator.get("/v1/dead-letters?limit=2").await.expect(200);
        let next = format!("/v1/dead-letters?limit=3&cursor={}", paged["next_cursor"].as_str().unwrap());
        let next = operator.get(&next).await.expect(200);
        let pages = [&paged, &next].into_iter().flat_map(|page| page["data"].as_array().unwrap());
        assert_eq!(pages.collect::<Vec<_>>(), letters.iter().collect::<Vec<_>>());

        let path = |letter: &Value| format!("/v1/dead-letters/{}", letter["id"].as_str().unwrap());
        // When all ends they must be there again, since every delivery ends as something.
        let database = system.database().await;
        database.batch_execute("CREATE TABLE kept AS SELECT * FROM dead_letters").await.unwrap();
        for letter in letters.iter().filter(|letter| letter["reason"] == "deleted") {
            let with_event = operator.get(&path(letter)).await.expect(200);
            assert_eq!(with_event["event"]["id"], letter["event_id"]);
            let problem = operator.post(&format!("{}/redrive", path(letter)), &json!({})).await.problem(409);
            assert!(problem.contains("deleted"), "{problem}");
            let _ = other.admin.get(&path(letter)).await.problem(404);
            assert_eq!(operator.delete(&path(letter)).await.status, 204);
        }
        let _ = operator.get(&path(&of_the_other)).await.problem(404);
        let _ = operator.delete(&path(&of_the_other)).await.problem(404);
        let left = operator.get("/v1/dead-letters").await.expect(200);
        assert_eq!(left["data"].as_array().unwrap().len(), 3, "{left}");
        let again = "INSERT INTO dead_letters SELECT * FROM kept ON CONFLICT DO NOTHING";
        assert_eq!(database.execute(again, &[]).await.unwrap(), 2);
        system.stop_all().await;
        let of_the_other = waiting.requests().iter().filter(|request| request.path == "/other").count();
        assert_eq!((waiting.count(), of_the_other, in_flight.count()), (2, 1, 1));
    });
}

#[test]
fn a_name_of_a_deleted_organization_may_be_taken_and_brings_nothing_of_the_old_one() {
    test(async |system| {
        let receiver = Receiver::healthy().await;
        let old = system.organization_named("acme").await;
        old.webhook(receiver.url("/old")).create().await;
        assert_eq!(system.operator().delete(&format!("/v1/organizations/{}", old.id)).await.status, 204);
        let new = system.organization_named("acme").await;
        let webhook = new.webhook(receiver.url("/new")).create().await;
        let event = cuewire_tests::event("a.b", "acme");
        system.amqp().await.publish(&event).await;
        new.delivery(cuewire_tests::event::id(&event), &webhook, "delivered").await;
        let listed = new.admin.get("/v1/webhooks").await.expect(200);
        assert_eq!(listed["data"].as_array().unwrap().len(), 1);
        assert_eq!(new.admin.get("/v1/dead-letters").await.expect(200)["data"], json!([]));
        system.stop_all().await;
        let paths: Vec<_> = receiver.requests().into_iter().map(|request| request.path).collect();
        assert_eq!(paths, ["/new"]);
    });
}
