//! Publishing, over what a broker may do: say nothing, send messages back, refuse them.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use cuewire::amqp::{Publication, PublishError, Publisher};
use cuewire_tests::wait::output;
use cuewire_tests::{Parts, Proxy, Setup, System, until};
use futures_util::future::join_all;
use lapin::types::FieldTable;

const KEPT: &str = "parking.v1";
/// The id of the message by which a test knows that it is connected.
const FIRST: usize = usize::MAX;

/// A message to an exchange that leads to [`KEPT`], with this id.
fn message(id: usize) -> Publication {
    Publication {
        exchange: "parking".to_owned(),
        routing_key: "a.b".to_owned(),
        message_id: id.to_string(),
        content_type: "text/plain".to_owned(),
        headers: FieldTable::default(),
        reply: None,
        body: Bytes::from_static(b"x"),
    }
}

/// Waits until the publisher has a connection, and the broker every queue.
async fn connected(publisher: &Publisher) {
    output("a message is confirmed", publisher.publish_until_confirmed(&message(FIRST))).await;
}

/// Empties a queue; answers how often each message was in it, by its id.
async fn empty(system: &System, queue: &str) -> HashMap<String, usize> {
    let mut times = HashMap::new();
    while let Some(taken) = system.amqp().await.take(queue).await {
        let id = taken.properties.message_id().as_ref().unwrap().to_string();
        *times.entry(id).or_default() += 1;
    }
    times
}

#[test]
fn what_is_under_way_when_the_broker_falls_silent_is_published_again_on_another_connection() {
    const MESSAGES: usize = 50;
    const SILENCE: Duration = Duration::from_secs(1);
    Setup::default().nothing_running().run(async |system| {
        let proxy = Proxy::before(system.amqp_url()).await;
        let mut parts = Parts::on(proxy.url());
        parts.broker.timeouts.confirm = SILENCE;
        let publisher = parts.publisher();
        connected(&publisher).await;

        proxy.silence();
        let fell_silent = Instant::now();
        let publishing = tokio::spawn(async move {
            let messages: Vec<_> = (0..MESSAGES).map(message).collect();
            join_all(messages.iter().map(|message| publisher.publish_until_confirmed(message))).await;
        });
        until("the broker has all of them", async || {
            (system.amqp().await.depth(KEPT).await.unwrap() as usize == MESSAGES + 1).then_some(())
        })
        .await;
        until("the connection is given up", async || {
            parts.missing("publisher").filter(|reason| reason.contains("confirmed nothing for 1s"))
        })
        .await;
        assert!(fell_silent.elapsed() >= SILENCE, "given up after {:?}", fell_silent.elapsed());
        assert!(!publishing.is_finished(), "nobody was told of anything");
        until("another one is tried, and it is closed", async || {
            (proxy.connections() > 1 && proxy.open() == 1).then_some(())
        })
        .await;
        proxy.end_silence();
        output("each of them is confirmed", publishing).await.unwrap();
        let mut expected: HashMap<_, _> = (0..MESSAGES).map(|id| (id.to_string(), 2)).collect();
        expected.insert(FIRST.to_string(), 1);
        assert_eq!(empty(system, KEPT).await, expected);
    });
}

#[test]
fn of_hundreds_of_messages_under_way_those_that_no_queue_takes_are_told_so_and_no_others() {
    const MESSAGES: usize = 600;
    const ROUNDS: usize = 5;
    Setup::default().nothing_running().run(async |system| {
        let parts = Parts::on(system.amqp_url());
        let publisher = parts.publisher();
        connected(&publisher).await;
        // Alone, in runs, and together with others: the broker confirms several at once.
        let is_for_nobody = |id: usize| id.is_multiple_of(7) || id % 100 < 20;
        let to_nobody = |id: usize| Publication {
            exchange: String::new(),
            routing_key: "nobody".to_owned(),
            ..message(id)
        };
        for round in 0..ROUNDS {
            let publishing = (0..MESSAGES)
                .map(|id| publisher.publish(if is_for_nobody(id) { to_nobody(id) } else { message(id) }));
            let results = output("the broker answers for each", join_all(publishing)).await;
            for (id, result) in results.into_iter().enumerate() {
                let expected = if is_for_nobody(id) { Err(PublishError::Unroutable) } else { Ok(()) };
                assert_eq!(result, expected, "{id} in round {round}");
            }
        }
        let mut expected: HashMap<_, _> =
            (0..MESSAGES).filter(|id| !is_for_nobody(*id)).map(|id| (id.to_string(), ROUNDS)).collect();
        expected.insert(FIRST.to_string(), 1);
        assert_eq!(empty(system, KEPT).await, expected);
    });
}

#[test]
fn a_full_queue_refuses_its_own_messages_and_no_others_and_the_connection_stays() {
    const FULL: &str = "retry.6h";
    Setup::default().nothing_running().run(async |system| {
        let proxy = Proxy::before(system.amqp_url()).await;
        let parts = Parts::on(proxy.url());
        let publisher = parts.publisher();
        connected(&publisher).await;
        let queue = format!("{FULL}.v1");
        system.limit_queue(&queue, 5).await;
        let to_the_full_one = |id: usize| Publication { exchange: FULL.to_owned(), ..message(id) };
        let mut taken = 0;
        until("the queue is full", async || {
            let published = publisher.publish(to_the_full_one(0)).await;
            taken += usize::from(published.is_ok());
            published.is_err().then_some(())
        })
        .await;

        let connections = proxy.connections();
        let publishing =
            (0..400).map(|id| publisher.publish(if id % 2 == 0 { to_the_full_one(id) } else { message(id) }));
        let results = output("the broker answers for each", join_all(publishing)).await;
        for (id, result) in results.into_iter().enumerate() {
            let expected = if id % 2 == 0 { Err(PublishError::Refused) } else { Ok(()) };
            assert_eq!(result, expected, "{id}");
        }
        assert_eq!(proxy.connections(), connections, "a refusal concerns its message alone");
        assert_eq!(empty(system, &queue).await.values().sum::<usize>(), taken);
        assert_eq!(empty(system, KEPT).await.len(), 200 + 1);
    });
}

#[test]
fn no_more_than_a_thousand_messages_are_unconfirmed_at_a_time() {
    const MESSAGES: usize = 3_000;
    const UNCONFIRMED: usize = 1_000;
    Setup::default().nothing_running().run(async |system| {
        let proxy = Proxy::before(system.amqp_url()).await;
        let mut parts = Parts::on(proxy.url());
        // For this long the broker's confirms are withheld, in which all messages could be there.
        parts.broker.timeouts.confirm = Duration::from_secs(5);
        let publisher = parts.publisher();
        connected(&publisher).await;

        proxy.silence();
        let publishing = tokio::spawn(async move {
            let messages: Vec<_> = (0..MESSAGES).map(message).collect();
            join_all(messages.iter().map(|message| publisher.publish_until_confirmed(message))).await;
        });
        let kept = async || system.amqp().await.depth(KEPT).await.unwrap() as usize - 1;
        until("as many as may be are there", async || (kept().await >= UNCONFIRMED).then_some(())).await;
        until("the connection is given up", async || {
            parts.missing("publisher").filter(|reason| reason.contains("confirmed nothing for 5s"))
        })
        .await;
        assert_eq!(kept().await, UNCONFIRMED);

        proxy.end_silence();
        output("each of them is confirmed", publishing).await.unwrap();
        assert_eq!(empty(system, KEPT).await.len(), MESSAGES + 1, "each of them is there");
    });
}
