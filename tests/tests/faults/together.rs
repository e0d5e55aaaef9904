//! Several deliveries in one message, and a sender that stops or dies in the middle of it.

use std::collections::HashMap;

use cuewire_tests::event::{events, id};
use cuewire_tests::{Answer, Organization, Receiver, Service, Setup, System};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::load::ARRIVES_WITHIN;

const QUICK: usize = 6;
const EVENTS: usize = 60;
/// Few enough for the failing webhook's breaker to stay closed.
const FAILING: usize = 5;
const ATTEMPTS: usize = 3;

/// Events that all webhooks of an organization want; one answers only when told to, one fails.
struct FanOut<'a> {
    receiver: Receiver,
    organization: Organization<'a>,
    events: Vec<Value>,
    told: watch::Sender<bool>,
}

impl<'a> FanOut<'a> {
    async fn publish(system: &'a System) -> Self {
        let told = watch::Sender::new(false);
        let when = told.clone();
        let receiver = Receiver::start(move |request, _| match request.path.as_str() {
            "/slow" => Answer::status(200).when(&when),
            "/fails" => Answer::status(500),
            _ => Answer::status(200),
        })
        .await;
        let organization = system.organization().await;
        for quick in 0..QUICK {
            organization.webhook(receiver.url(&format!("/quick/{quick}"))).create().await;
        }
        organization.webhook(receiver.url("/slow")).with("max_in_flight", 1).create().await;
        let fails = organization.webhook(receiver.url("/fails")).with("filter", "data.size = 2");
        fails.schedule(&["1s", "1s"]).create().await;
        organization.in_effect().await;
        let mut events = events(EVENTS, "a.b", &organization.id);
        for event in events.iter_mut().take(FAILING) {
            event["data"] = json!({"size": 2});
        }
        system.amqp().await.publish_all(&events).await;
        Self { receiver, organization, events, told }
    }

    /// Waits until everything has been sent as often as it is to be, and answers how often each was, by path and event.
    async fn arrives(&self) -> HashMap<(String, String), usize> {
        self.told.send_replace(true);
        let expected = self.expected();
        let counts = |requests: &[cuewire_tests::Request]| {
            let mut counts: HashMap<(String, String), usize> = HashMap::new();
            for request in requests {
                *counts.entry((request.path.clone(), request.event_id())).or_default() += 1;
            }
            counts
        };
        let all = |requests: &[cuewire_tests::Request]| {
            let counts = counts(requests);
            expected.iter().all(|(key, times)| counts.get(key).is_some_and(|count| count >= times))
        };
        self.receiver.wait_until(ARRIVES_WITHIN, "every delivery is sent", all).await;
        self.organization.dead_letters(FAILING).await;
        counts(&self.receiver.requests())
    }

    fn expected(&self) -> HashMap<(String, String), usize> {
        let mut expected = HashMap::new();
        for (number, event) in self.events.iter().enumerate() {
            let key = |path: &str| (path.to_owned(), id(event).to_owned());
            expected.extend((0..QUICK).map(|quick| (key(&format!("/quick/{quick}")), 1)));
            expected.insert(key("/slow"), 1);
            if number < FAILING {
                expected.insert(key("/fails"), ATTEMPTS);
            }
        }
        expected
    }
}

#[test]
fn of_several_deliveries_in_a_message_none_is_sent_twice_when_the_sender_stops_among_them() {
    Setup::processes().run(async |system| {
        let load = FanOut::publish(system).await;
        // The failing ones wait for their retry while others of their messages wait for the slow webhook.
        let failed = |requests: &[cuewire_tests::Request]| {
            requests.iter().filter(|request| request.path == "/fails").count() >= FAILING
        };
        load.receiver.wait_until(ARRIVES_WITHIN, "all failing deliveries have failed", failed).await;
        system.signal(Service::Sender, "TERM").await;
        system.until_said(Service::Sender, "stopping: finishing what is in flight").await;
        load.told.send_replace(true);
        let ended = system.ended(Service::Sender).await;
        assert_eq!(ended.code, Some(0), "{}", ended.said);
        system.start(Service::Sender).await;
        assert_eq!(load.arrives().await, load.expected());
    });
}

#[test]
fn of_several_deliveries_in_a_message_none_is_lost_when_the_sender_is_killed_among_them() {
    Setup::processes().run(async |system| {
        let load = FanOut::publish(system).await;
        load.receiver.wait_for(EVENTS).await;
        system.kill(Service::Sender).await;
        system.start(Service::Sender).await;
        let arrived = load.arrives().await;
        assert_eq!(arrived.len(), load.expected().len(), "something came that was never sent");
    });
}
