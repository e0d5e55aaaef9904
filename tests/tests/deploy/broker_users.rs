//! The services' broker users, with the rights that `production` gives them: they do for all that services do.

use std::time::Duration;

use cuewire_tests::amqp::Raw;
use cuewire_tests::event::id;
use cuewire_tests::{Answer, Permissions, Receiver, Service, Setup, System, until};
use serde_json::{Value, json};

const USERS: &str = include_str!("../../../deploy/kubernetes/overlays/production/broker-users.yaml");

/// What the manifest gives a user.
fn shipped(user: &str) -> Permissions {
    let is_its = |document: &&str| {
        document.contains("\nkind: Permission\n") && document.contains(&format!("\n  name: {user}\n"))
    };
    let document: &'static str = USERS.split("---\n").find(is_its).expect("each user has permissions");
    let pattern = |right: &str| {
        let line = document.lines().find_map(|line| line.trim().strip_prefix(right)?.strip_prefix(": "));
        line.expect("each right is there").trim_matches('\'')
    };
    Permissions { configure: pattern("configure"), write: pattern("write"), read: pattern("read") }
}

/// Makes a message expire in the router's queue, so that the reaper sends it again by itself.
async fn expire_in_the_routers_queue(system: &System, event: &Value) {
    system.stop(Service::Router).await;
    let short_lived = Raw::event(event).properties(|properties| properties.with_expiration("1".into()));
    system.amqp().await.publish_raw(&short_lived).await.unwrap();
    // Its queue tells nothing: soon it is there again.
    until("the reaper has sent it again", async || {
        let redriven = system.metric(Service::DlqReaper, "cuewire_reaper_redriven_total", &[]).await;
        (redriven == Some(1.0)).then_some(())
    })
    .await;
    system.start(Service::Router).await;
}

#[test]
fn the_services_broker_users_may_do_what_the_services_do() {
    let setup = Setup::default().nothing_running().variable("CUEWIRE_REDRIVE_AFTER", "1s");
    let setup = Service::ALL.into_iter().fold(setup, |setup, service| {
        let permissions = shipped(service.name());
        assert_eq!(permissions.configure, "^$", "the {} declares nothing", service.name());
        setup.broker_user(service, permissions)
    });
    setup.run(async |system| {
        system.apply_topology().await;
        for service in Service::ALL {
            system.start_unready(service).await;
        }
        system.ready().await;
        let hang = Answer::status(200).after(Duration::from_millis(300));
        let receiver = Receiver::answering([Answer::status(500), hang, Answer::status(200)]).await;
        let organization = system.organization().await;
        let webhook =
            organization.webhook(receiver.url("/")).types(&["a.*"]).schedule(&["1s"]).create().await;

        // Events over HTTP, a retry, and one sent again on demand.
        let event = organization.event("a.b");
        let _ = organization.admin.post("/v1/events", &event).await.expect(202);
        let delivery = organization.delivery(id(&event), &webhook, "delivered").await;
        let path = format!("/v1/deliveries/{}/retry", delivery["id"].as_str().unwrap());
        let _ = organization.admin.post(&path, &json!({})).await.expect(202);
        receiver.wait_for(3).await;

        // A test call, whose answer comes by the broker.
        let path = format!("/v1/webhooks/{}/test", webhook.id);
        let attempt = organization.admin.post(&path, &json!({})).await.expect(200);
        assert_eq!(attempt["status"], 200, "{attempt}");

        // Dead letters of the router, the sender and the consumer, and one that is sent again.
        let refusing = Receiver::answering([Answer::status(500), Answer::status(200)]).await;
        organization.webhook(refusing.url("/")).types(&["c.d"]).schedule(&[]).create().await;
        system.amqp().await.publish(&organization.event("c.d")).await;
        let letter = organization.dead_letters(1).await.remove(0);
        let path = format!("/v1/dead-letters/{}/redrive", letter["id"].as_str().unwrap());
        let _ = organization.admin.post(&path, &json!({})).await.expect(202);
        refusing.wait_for(2).await;
        system.amqp().await.publish(&cuewire_tests::event("a.b", "nobody")).await;
        system.amqp().await.publish_raw(&Raw::body("a.b", "not JSON")).await.unwrap();
        for reason in ["rejected", "poison"] {
            until(&format!("a dead letter is {reason}"), async || {
                let labels = [("reason", reason)];
                let found = system.metric(Service::DlqReaper, "cuewire_dead_letters_total", &labels).await;
                (found == Some(1.0)).then_some(())
            })
            .await;
        }

        // What the reaper sends again by itself.
        expire_in_the_routers_queue(system, &organization.event("a.b")).await;
        receiver.wait_for(5).await;

        // What the database does not take.
        let refuse = "ALTER TABLE dead_letters ADD CONSTRAINT refused CHECK (event_id <> 'refused')";
        system.database().await.batch_execute(refuse).await.unwrap();
        let mut refused = cuewire_tests::event("a.b", "nobody");
        refused["id"] = "refused".into();
        system.amqp().await.publish(&refused).await;
        until("it is parked", async || system.amqp().await.take("parking.v1").await).await;
    });
}
