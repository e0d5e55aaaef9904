//! What travels from hop to hop: what Cuewire put into a message, and nothing else of it.

use std::time::Duration;

use cuewire_tests::amqp::Raw;
use cuewire_tests::event::id;
use cuewire_tests::system::test;
use cuewire_tests::{Answer, Receiver};
use lapin::Channel;
use lapin::message::BasicGetMessage;
use lapin::options::{BasicGetOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use serde_json::json;

use crate::headers::{table, text};

/// A queue of one's own, as operators may bind one to a category's messages. It goes with its connection.
#[allow(clippy::disallowed_methods, reason = "not a queue of Cuewire's")]
async fn bind(channel: &Channel, queue: &str, exchanges: &[&str], key: &str) {
    let options = QueueDeclareOptions { exclusive: true, ..Default::default() };
    channel.queue_declare(queue.into(), options, FieldTable::default()).await.unwrap();
    for exchange in exchanges {
        let (options, arguments) = (QueueBindOptions::default(), FieldTable::default());
        channel.queue_bind(queue.into(), (*exchange).into(), key.into(), options, arguments).await.unwrap();
    }
}

#[test]
fn stray_amqp_properties_of_an_event_are_ignored_and_not_passed_on() {
    test(async |system| {
        let receiver = Receiver::healthy().await;
        let organization = system.organization().await;
        organization.webhook(receiver.url("/")).create().await;
        let death = table(&[
            ("count", AMQPValue::LongLongInt(60)),
            ("reason", text("delivery_limit")),
            ("queue", text("router.events.v1")),
            ("exchange", text("events")),
            ("routing-keys", AMQPValue::FieldArray(vec![text("a.b")].into())),
        ]);
        let cc = AMQPValue::FieldArray(vec![text("b.c")].into());
        let headers = table(&[
            ("x-death", AMQPValue::FieldArray(vec![AMQPValue::FieldTable(death)].into())),
            ("x-delivery-count", AMQPValue::LongLongInt(49)),
            ("CC", cc),
        ]);
        let event = organization.event("a.b");
        let stray = Raw::event(&event).properties(|properties| {
            properties.with_headers(headers).with_expiration("60000".into()).with_priority(9)
        });
        let amqp = system.amqp().await;
        let (deliveries, channel) = ("deliveries-of-a", amqp.channel().await);
        bind(&channel, deliveries, &["deliveries"], "a.#").await;
        amqp.publish_raw(&stray).await.unwrap();
        assert_eq!(receiver.wait_for(1).await[0].event_id(), id(&event));

        let delivery = channel.basic_get(deliveries.into(), BasicGetOptions { no_ack: true }).await.unwrap();
        let properties = delivery.expect("a queue of one's own has the delivery too").properties.clone();
        assert_eq!((properties.expiration(), properties.priority()), (&None, &None));
        let headers = properties.headers().clone().unwrap_or_default();
        let names: Vec<&str> = headers.inner().keys().map(ShortString::as_str).collect();
        for stray in ["x-death", "x-delivery-count", "CC", "BCC"] {
            assert!(!names.contains(&stray), "{names:?}");
        }
        system.stop_all().await;
        assert_eq!(receiver.count(), 1);
    });
}

/// Every message of one's own queue, taken for good.
async fn take_all(channel: &Channel, queue: &str) -> Vec<BasicGetMessage> {
    let mut messages = Vec::new();
    while let Some(message) = channel.basic_get(queue.into(), BasicGetOptions { no_ack: true }).await.unwrap()
    {
        messages.push(message);
    }
    messages
}

/// The queues that a message died in, as the broker wrote into it, and how often in each.
fn deaths(message: &BasicGetMessage) -> Vec<(String, i64)> {
    let headers = message.properties.headers().clone().unwrap_or_default();
    let deaths = headers.inner().get("x-death").and_then(AMQPValue::as_array).cloned().unwrap_or_default();
    let death = |death: &AMQPValue| {
        let death = death.as_field_table().unwrap().inner();
        let queue = death["queue"].as_long_string().unwrap().to_string();
        (queue, death["count"].as_long_long_int().unwrap())
    };
    deaths.as_slice().iter().map(death).collect()
}

#[test]
fn a_delivery_has_the_brokers_word_of_its_last_wait_alone_after_several_tiers_and_a_redrive() {
    test(async |system| {
        let failure = || Answer::status(500);
        let receiver = Receiver::answering([failure(), failure(), failure(), Answer::status(200)]).await;
        let organization = system.organization().await;
        // Five seconds in one tier, one in another, and what is left with the sender, or in the second once more.
        organization.webhook(receiver.url("/")).schedule(&["7s"]).create().await;
        let (seen, channel) = ("seen", system.amqp().await.channel().await);
        bind(&channel, seen, &["deliveries", "dead"], "a.#").await;
        system.amqp().await.publish(&organization.event("a.b")).await;
        let letter = organization.dead_letters(1).await.remove(0);
        let path = format!("/v1/dead-letters/{}/redrive", letter["id"].as_str().unwrap());
        let _ = organization.admin.post(&path, &json!({})).await.expect(202);
        receiver.wait_within(Duration::from_secs(60), 4).await;

        let messages = take_all(&channel, seen).await;
        let (first, redriven): (Vec<_>, Vec<_>) = {
            let dead = messages.iter().position(|message| message.exchange.as_str() == "dead");
            let (first, rest) = messages.split_at(dead.expect("the dead letter passed by"));
            assert!(deaths(&rest[0]).is_empty(), "the dead letter: {:?}", deaths(&rest[0]));
            (first.iter().map(deaths).collect(), rest[1..].iter().map(deaths).collect())
        };
        for round in [first, redriven] {
            assert!(round[0].is_empty(), "a round begins without a word of the broker: {round:?}");
            let mut waits = round[1..].to_vec();
            waits.dedup();
            let waited = |queue: &str| vec![(queue.to_owned(), 1)];
            assert_eq!(waits, [waited("retry.5s.v1"), waited("retry.1s.v1")], "{round:?}");
        }
    });
}
