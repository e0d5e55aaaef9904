//! A load of events, and the reckoning afterwards.

use std::collections::HashMap;
use std::time::Duration;

use cuewire_tests::event::{events, id};
use cuewire_tests::{Answer, Organization, Receiver, System};
use serde_json::Value;

/// A receiver takes as long as this, so that there always is something in flight.
const ANSWER_AFTER: Duration = Duration::from_millis(20);
/// For all of it to arrive, with whatever is broken on the way.
pub(crate) const ARRIVES_WITHIN: Duration = Duration::from_secs(120);

/// Events to one webhook of one organization.
pub(crate) struct Load<'a> {
    pub(crate) receiver: Receiver,
    pub(crate) organization: Organization<'a>,
    pub(crate) events: Vec<Value>,
}

impl<'a> Load<'a> {
    pub(crate) async fn new(system: &'a System, count: usize) -> Self {
        let receiver = Receiver::answering([Answer::status(200).after(ANSWER_AFTER)]).await;
        Self::to(system, count, receiver).await
    }

    /// To this receiver.
    pub(crate) async fn to(system: &'a System, count: usize, receiver: Receiver) -> Self {
        let organization = system.organization().await;
        organization.webhook(receiver.url("/")).types(&["feeds.started"]).create().await;
        let events = events(count, "feeds.started", &organization.id);
        Self { receiver, organization, events }
    }

    /// Waits until every event has arrived.
    pub(crate) async fn arrives(&self) {
        let events = self.events.len();
        self.receiver
            .wait_until(ARRIVES_WITHIN, &format!("{events} events arrive"), |requests| {
                // Counting is cheap, and comparing is done once there are enough.
                requests.len() >= events && by_event(requests).len() == events
            })
            .await;
    }

    /// How many requests there were beyond one for each event. Fails the test if one is missing, if one came
    /// that was never sent, or if a repeat has another `webhook-id`.
    pub(crate) fn duplicates(&self) -> usize {
        let requests = self.receiver.requests();
        let arrived = by_event(&requests);
        for event in &self.events {
            assert!(arrived.contains_key(id(event)), "{} is lost", id(event));
        }
        assert_eq!(arrived.len(), self.events.len(), "something came that was never sent");
        for ids in arrived.values() {
            assert!(ids.iter().all(|id| *id == ids[0]), "one event under several ids: {ids:?}");
        }
        requests.len() - self.events.len()
    }
}

fn by_event(requests: &[cuewire_tests::Request]) -> HashMap<String, Vec<&str>> {
    let mut by_event: HashMap<_, Vec<_>> = HashMap::new();
    for request in requests {
        by_event.entry(request.event_id()).or_default().push(request.id());
    }
    by_event
}
