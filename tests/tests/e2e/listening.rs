//! The stream of events: who comes back goes on where they were.

use std::collections::BTreeSet;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use cuewire_tests::event::{events, id};
use cuewire_tests::system::test;
use cuewire_tests::{Client, Organization, until};
use reqwest::Method;
use serde_json::{Value, json};

const LAST_EVENT_ID: &str = "Last-Event-ID";
/// An event is told of a second or two after it was taken.
const PATIENCE: Duration = Duration::from_secs(15);

/// One connection of a listener.
struct Stream {
    response: reqwest::Response,
    text: String,
}

/// Listens from now on, or from the place of the last message that was seen.
async fn listen(api: &Client, last: Option<&str>) -> Stream {
    let request = api.request(Method::GET, "/v1/events/stream");
    let request = match last {
        Some(last) => request.header(LAST_EVENT_ID, last),
        None => request,
    };
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), 200);
    Stream { response, text: String::new() }
}

impl Stream {
    /// The next message: its place, and the event's id.
    async fn next(&mut self) -> (String, String) {
        let whole = async {
            while !self.text.contains("\n\n") {
                let chunk = self.response.chunk().await.unwrap().expect("it goes on");
                self.text += std::str::from_utf8(&chunk).unwrap();
            }
        };
        tokio::time::timeout(PATIENCE, whole).await.expect("a message comes in time");
        let (message, rest) = self.text.split_once("\n\n").unwrap();
        let field = |name: &str| {
            let line = message.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            line.map(|value| value.trim().to_owned())
        };
        let event = field("data").map(|data| serde_json::from_str::<Value>(&data).unwrap());
        let found = (field("id"), event);
        self.text = rest.to_owned();
        match found {
            (Some(place), Some(event)) => (place, id(&event).to_owned()),
            // A comment, by which the connection is kept.
            _ => Box::pin(self.next()).await,
        }
    }

    /// The events of the next messages.
    async fn events(&mut self, count: usize) -> Vec<String> {
        let mut events = Vec::new();
        for _ in 0..count {
            events.push(self.next().await.1);
        }
        events
    }
}

/// Waits until all that was published is on record.
async fn logged(organization: &Organization<'_>, count: usize) {
    until(&format!("{count} events are logged"), async || {
        let list = organization.admin.get("/v1/events?limit=1000").await.expect(200);
        (list["data"].as_array().unwrap().len() == count).then_some(())
    })
    .await;
}

#[test]
fn who_comes_back_with_the_last_place_goes_on_after_it_without_a_gap_or_a_repeat() {
    test(async |system| {
        let organization = system.organization().await;
        let (amqp, admin) = (system.amqp().await, &organization.admin);
        let mut stream = listen(admin, None).await;
        let first = organization.event("a.first");
        amqp.publish(&first).await;
        let (place, event) = stream.next().await;
        assert_eq!(event, id(&first));
        drop(stream);
        // More than are read at a time, and all at the same moment, while nobody listens.
        let many = events(250, "a.many", &organization.id);
        amqp.publish_all(&many).await;
        logged(&organization, 251).await;
        let at_once =
            "UPDATE events SET received_at = (SELECT max(received_at) FROM events) WHERE type = 'a.many'";
        system.database().await.execute(at_once, &[]).await.unwrap();

        let (mut last, mut seen) = (place.clone(), Vec::new());
        while seen.len() < many.len() {
            let mut stream = listen(admin, Some(&last)).await;
            for _ in 0..70.min(many.len() - seen.len()) {
                let (place, event) = stream.next().await;
                (last, seen) = (place, [seen, vec![event]].concat());
            }
        }
        let distinct: BTreeSet<_> = seen.iter().map(String::as_str).collect();
        assert_eq!(distinct.len(), seen.len(), "none is told of twice");
        assert!(many.iter().all(|event| distinct.contains(id(event))), "all are told of");
        // Whoever saw nothing since the first sees the same in the same order, and then what comes.
        let mut stream = listen(admin, Some(&place)).await;
        assert!(stream.events(many.len()).await == seen, "the order is another one");
        let next = organization.event("a.next");
        amqp.publish(&next).await;
        assert_eq!(stream.next().await.1, id(&next));
        assert_eq!(listen(admin, Some(&last)).await.next().await.1, id(&next));
    });
}

#[test]
fn a_place_whose_event_is_gone_leads_to_what_follows_and_one_that_was_never_told_is_refused() {
    test(async |system| {
        let organization = system.organization().await;
        let (amqp, admin) = (system.amqp().await, &organization.admin);
        let mut stream = listen(admin, None).await;
        amqp.publish_all(&events(3, "a.b", &organization.id)).await;
        // Of events that are taken at the same time any may be the first.
        let (first, event) = stream.next().await;
        let rest = stream.events(2).await;
        let gone = "DELETE FROM events WHERE id = $1";
        assert_eq!(system.database().await.execute(gone, &[&event]).await.unwrap(), 1);
        assert_eq!(listen(admin, Some(&first)).await.events(2).await, rest);

        let place = |place: Value| BASE64.encode(place.to_string());
        for never_told in [
            "x".to_owned(),
            "7".to_owned(),
            "***".to_owned(),
            place(json!(7)),
            place(json!([2_461_005, 1_769_851_800_000_000_i64, "/s"])),
            place(json!([2_461_005, 1_769_851_800_000_000_i64, "/s", "\0"])),
            place(json!([-1, i64::MAX, "/s", "1"])),
        ] {
            let request = admin.request(Method::GET, "/v1/events/stream").header(LAST_EVENT_ID, &never_told);
            let detail = admin.send(request.timeout(PATIENCE)).await.problem(422);
            assert!(detail.contains("last-event-id"), "{never_told}: {detail}");
        }
        // With nothing in it, it is as if it was left out.
        let mut stream = listen(admin, Some("")).await;
        let next = organization.event("a.next");
        amqp.publish(&next).await;
        assert_eq!(stream.next().await.1, id(&next));
    });
}
