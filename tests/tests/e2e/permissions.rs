//! What broker users may do, as the documentation tells operators to set it.

use cuewire_tests::amqp::{Amqp, Raw};
use cuewire_tests::event::id;
use cuewire_tests::{Permissions, Receiver, Service, Setup, until};
use lapin::ExchangeKind;
use lapin::options::{BasicConsumeOptions, BasicGetOptions, QueueDeclareOptions};
use lapin::types::FieldTable;

/// `rabbitmqctl set_permissions -p <vhost> <user> '^$' '.*' '.*'`.
const SERVICES: Permissions = Permissions { configure: "^$", write: ".*", read: ".*" };
/// `rabbitmqctl set_permissions -p <vhost> <user> '^$' '^events\.in\.encoder$' '^$'`.
const ENCODER: Permissions = Permissions { configure: "^$", write: r"^events\.in\.encoder$", read: "^$" };

#[test]
fn services_that_may_not_declare_wait_for_the_command_that_does_and_go_on() {
    Setup::default().permissions(SERVICES).nothing_running().run(async |system| {
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
        let url = system.amqp_user("encoder", ENCODER).await;
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
        let table = FieldTable::default;
        let amqp = open().await;
        let channel = amqp.channel().await;
        let queue = channel.queue_declare("mine".into(), QueueDeclareOptions::durable(), table());
        refused(queue.await.map(drop), "declaring a queue");
        let channel = amqp.channel().await;
        let exchange =
            channel.exchange_declare("mine".into(), ExchangeKind::Fanout, Default::default(), table());
        refused(exchange.await, "declaring an exchange");
        let channel = amqp.channel().await;
        let (events, own, key) = ("events".into(), "events.in.encoder".into(), "#".into());
        refused(
            channel.exchange_bind(events, own, key, Default::default(), table()).await,
            "binding exchanges",
        );
        let channel = amqp.channel().await;
        let (queue, own, key) = ("router.events.v1".into(), "events.in.encoder".into(), "#".into());
        refused(channel.queue_bind(queue, own, key, Default::default(), table()).await, "binding a queue");
        let channel = amqp.channel().await;
        refused(
            channel.queue_purge("router.events.v1".into(), Default::default()).await.map(drop),
            "purging",
        );
        let channel = amqp.channel().await;
        refused(
            channel.queue_delete("router.events.v1".into(), Default::default()).await.map(drop),
            "deleting",
        );
        let channel = amqp.channel().await;
        let own = "events.in.encoder".into();
        refused(channel.exchange_delete(own, Default::default()).await, "deleting its exchange");
        let channel = amqp.channel().await;
        let got = channel.basic_get("router.events.v1".into(), BasicGetOptions::default()).await;
        refused(got.map(drop), "reading");
        let channel = amqp.channel().await;
        let options = BasicConsumeOptions::default();
        let consumed = channel.basic_consume("dlq-reaper.dead.v1".into(), "".into(), options, table()).await;
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
