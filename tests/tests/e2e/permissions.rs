//! What broker users may do, as the documentation tells operators to set it.

use cuewire_tests::amqp::{Amqp, Raw};
use cuewire_tests::event::id;
use cuewire_tests::{Permissions, Receiver, Service, Setup, until};
use lapin::ExchangeKind;
use lapin::options::{
    BasicConsumeOptions, BasicGetOptions, ExchangeBindOptions, ExchangeDeclareOptions, ExchangeDeleteOptions,
    QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions, QueuePurgeOptions,
};
use lapin::types::FieldTable;

const README: &str = include_str!("../../../README.md");

/// What `rabbitmqctl set_permissions` gives this user in the README.
fn documented(user: &str) -> Permissions {
    let command = format!("rabbitmqctl set_permissions -p / {user} ");
    let patterns = README.split(&command).nth(1).expect("the README has the command");
    let mut patterns = patterns.split('\'').skip(1).step_by(2);
    let mut next = || patterns.next().expect("the command has three patterns");
    Permissions { configure: next(), write: next(), read: next() }
}

#[test]
fn services_that_may_not_declare_wait_for_the_command_that_does_and_go_on() {
    Setup::default().permissions(documented("cuewire")).nothing_running().run(async |system| {
        for service in Service::ALL {
            system.start_unready(service).await;
        }
        for service in Service::ALL {
            until(&format!("the {} says what it waits for", service.name()), async || {
                let missing = system.missing(service).await?;
                missing.contains("`api topology apply`").then_some(())
            })
            .await;
        }
        crate::queues::apply_as(system, system.amqp_url(), 2).await;
        system.ready().await;
        let receiver = Receiver::healthy().await;
        let organization = system.organization().await;
        let webhook = organization.webhook(receiver.url("/")).create().await;
        let event = organization.event("a.b");
        system.amqp().await.publish(&event).await;
        assert_eq!(receiver.wait_for(1).await[0].event_id(), id(&event));
        // A test call's answer comes by the broker, to nobody's queue.
        let path = format!("/v1/webhooks/{}/test", webhook.id);
        let attempt = organization.admin.post(&path, &serde_json::json!({})).await.expect(200);
        assert_eq!(attempt["status"], 200, "{attempt}");
        // Another number of queues, with nobody but the administrator to declare them.
        crate::queues::apply_as(system, system.amqp_url(), 3).await;
        system.amqp().await.publish(&organization.event("a.b")).await;
        receiver.wait_for(3).await;
        crate::queues::apply_as(system, system.amqp_url(), 2).await;
        system.stop_all().await;
        assert_eq!(receiver.count(), 3);
    });
}

#[test]
fn a_publishers_broker_user_may_write_to_its_own_exchange_and_do_nothing_else() {
    let grants = "encoder=encodes; billing=payments";
    Setup::default().variable("CUEWIRE_PUBLISHERS", grants).run(async |system| {
        let receiver = Receiver::healthy().await;
        let organization = system.organization().await;
        organization.webhook(receiver.url("/")).create().await;
        let url = system.amqp_user("encoder", documented("encoder")).await;
        let open = async || Amqp::open(&url).await.expect("the user may connect");

        let event = organization.event("encodes.finished");
        open().await.publish_raw(&Raw::event(&event).to("events.in.encoder")).await.unwrap();
        assert_eq!(receiver.wait_for(1).await[0].event_id(), id(&event));

        for exchange in
            ["events", "deliveries", "dead", "unrouted", "parking", "retry.1s", "events.in.billing", ""]
        {
            // The default exchange leads to every queue by its name.
            let key = if exchange.is_empty() { "router.events.v1" } else { "encodes.finished" };
            let mut raw = Raw::event(&organization.event("encodes.finished")).to(exchange);
            raw.routing_key = key.to_owned();
            refused(open().await.publish_raw(&raw).await.map(drop), exchange);
        }
        // Each on a channel of its own, since a refusal closes it.
        let amqp = open().await;
        let (table, key) = (FieldTable::default, || "#".into());
        let (own, queue) = (|| "events.in.encoder".into(), || "router.events.v1".into());
        let mine =
            amqp.channel().await.queue_declare("mine".into(), QueueDeclareOptions::durable(), table()).await;
        refused(mine.map(drop), "declaring a queue");
        let exchange = (ExchangeKind::Fanout, ExchangeDeclareOptions::default());
        let mine =
            amqp.channel().await.exchange_declare("mine".into(), exchange.0, exchange.1, table()).await;
        refused(mine, "declaring an exchange");
        let options = ExchangeBindOptions::default();
        let bound = amqp.channel().await.exchange_bind("events".into(), own(), key(), options, table()).await;
        refused(bound, "binding an exchange to its own");
        let options = QueueBindOptions::default();
        let bound = amqp.channel().await.queue_bind(queue(), own(), key(), options, table()).await;
        refused(bound, "binding a queue to its own");
        let unbound = amqp.channel().await.queue_unbind(queue(), "events".into(), key(), table()).await;
        refused(unbound, "unbinding the router");
        let purged = amqp.channel().await.queue_purge(queue(), QueuePurgeOptions::default()).await;
        refused(purged.map(drop), "purging");
        let deleted = amqp.channel().await.queue_delete(queue(), QueueDeleteOptions::default()).await;
        refused(deleted.map(drop), "deleting a queue");
        let deleted = amqp.channel().await.exchange_delete(own(), ExchangeDeleteOptions::default()).await;
        refused(deleted, "deleting its own exchange");
        let got = amqp.channel().await.basic_get(queue(), BasicGetOptions::default()).await;
        refused(got.map(drop), "reading");
        let options = BasicConsumeOptions::default();
        let consumed = amqp.channel().await.basic_consume(queue(), "".into(), options, table()).await;
        refused(consumed.map(drop), "consuming");
        system.stop_all().await;
        assert_eq!(receiver.count(), 1);
    });
}

/// The broker has said 403, and nothing else.
#[track_caller]
fn refused(result: lapin::Result<()>, what: &str) {
    let error = result.expect_err(what).to_string();
    assert!(error.contains("ACCESS_REFUSED"), "{what}: {error}");
}
