//! Samples: the events that test calls send, and the sending.

use std::time::Duration;

use axum::body::Bytes;
use axum::http::StatusCode;
use cuewire::amqp::topology::Lane;
use cuewire::catalogue;
use cuewire::delivery::rfc3339;
use cuewire::event::{AttributeValue, Data, Event, EventType};
use cuewire::ids::Round;
use cuewire::message::DeliveryMessage;
use cuewire::message::delivery::NewDelivery;
use cuewire::webhook::{Subscription, Webhook};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::Api;
use crate::call::CallError;
use crate::error::Problem;

/// What a test call may take besides the request to the receiver: two queues, and the record.
const OVERHEAD: Duration = Duration::from_secs(5);
/// How the ids of sent samples begin.
const TEST_ID: &str = "test-";

impl Api {
    /// Sends a sample to a webhook now, whatever its filter says and whether it is enabled or not, and answers
    /// with the attempt as JSON.
    pub(crate) async fn send_sample(&self, webhook: &Webhook, sample: Event) -> Result<Bytes, Problem> {
        let now = OffsetDateTime::now_utc();
        let event = sent_now(sample, webhook, now);
        let new = NewDelivery {
            organization: webhook.organization,
            webhook: webhook.id,
            source: &event.source,
            event_id: &event.id,
            category: event.event_type.category(),
            event: event.to_json(),
        };
        let patience = webhook.timeout + OVERHEAD;
        let first = DeliveryMessage::first(new, Round::FIRST, Lane::Fresh, now);
        // A sample that comes when nobody waits for its answer any more would only startle the receiver.
        let delivery = DeliveryMessage { deadline: now + patience, ..first };
        let answer = self.calls.call(delivery, patience).await;
        let result = match &answer {
            Ok(_) => "answered",
            Err(CallError::Lost) => "lost",
            Err(CallError::TooMany | CallError::TooManyOwn) => "too_many",
            Err(CallError::Timeout) => "timeout",
        };
        self.metrics.test_calls.with_label_values(&[result]).inc();
        answer.map_err(|error| match error {
            CallError::Lost => Problem::unavailable("the broker cannot be reached now; try again"),
            CallError::TooMany => Problem::unavailable("too many test calls are under way; try again"),
            CallError::TooManyOwn => Problem::too_many(
                "too many of your test calls are under way; wait until one is answered",
                None,
            ),
            CallError::Timeout => {
                Problem::new(StatusCode::GATEWAY_TIMEOUT, "no sender answered in time; is one running?")
            }
        })
    }
}

/// The sample as an event of now, fresh each time, so that no receiver takes it for a repeat.
fn sent_now(mut sample: Event, webhook: &Webhook, now: OffsetDateTime) -> Event {
    sample.id = format!("{TEST_ID}{}", Uuid::now_v7());
    sample.time = Some(rfc3339(now));
    sample.set_extension("organization", AttributeValue::Text(webhook.organization.to_string()));
    sample
}

/// A sample of this type, or of the one that suits the webhook best.
pub(crate) fn sample(webhook: &Webhook, event_type: Option<EventType>) -> Event {
    let listed = match &event_type {
        Some(event_type) => catalogue::find(event_type.as_str()).and_then(listed_sample),
        None => suiting(webhook),
    };
    listed.unwrap_or_else(|| generic(event_type.unwrap_or_else(|| invented_type(webhook))))
}

/// What a test call sent, by the event's source, id and type as they are on record, since samples are not in
/// the event log; without its time, which was that of the call.
pub(crate) fn sent_sample(webhook: &Webhook, source: &str, id: &str, event_type: &str) -> Option<Event> {
    let sample = sample(webhook, EventType::parse(event_type).ok());
    let is_it = id.starts_with(TEST_ID) && source == sample.source;
    is_it.then_some(Event { time: None, ..sample })
}

/// The sample of an entry of the catalogue.
pub(crate) fn listed_sample(entry: &catalogue::EventType) -> Option<Event> {
    Event::from_json(&Bytes::copy_from_slice(entry.sample.get().as_bytes())).ok()
}

/// The first sample that the webhook takes and its format can carry, those of its format's platform before
/// others; where it can carry none, the first that the webhook takes: the attempt says what it lacks.
fn suiting(webhook: &Webhook) -> Option<Event> {
    let all = || catalogue::all().iter();
    let of_its_platform = all().filter(|entry| entry.platform == webhook.format.as_str());
    let mut taken =
        of_its_platform.chain(all()).filter(|entry| takes(webhook, &entry.name)).filter_map(listed_sample);
    let first = taken.next()?;
    if webhook.format.can_carry(&first).is_ok() {
        return Some(first);
    }
    taken.find(|event| webhook.format.can_carry(event).is_ok()).or(Some(first))
}

/// Whether the webhook takes events of this type, whatever its filter says.
pub(crate) fn takes(webhook: &Webhook, event_type: &str) -> bool {
    let Ok(event_type) = EventType::parse(event_type) else { return false };
    let subscription = Subscription {
        webhook: webhook.id,
        organization: webhook.organization,
        event_types: webhook.event_types.clone(),
        // The sample is sent whatever the filter says: it is the call that is tested.
        filter: None,
    };
    let event = generic(event_type.clone());
    subscription.wants(&event_type, &cuewire::event::Fields::new(&event))
}

/// A type that the webhook takes, though the catalogue has none: its first pattern, a word for each `*`.
fn invented_type(webhook: &Webhook) -> EventType {
    let pattern = webhook.event_types.first().map_or("test.sample", |pattern| pattern.as_str());
    let words: Vec<_> = pattern.split('.').map(|word| if word == "*" { "sample" } else { word }).collect();
    EventType::parse(&words.join("."))
        .unwrap_or_else(|_| EventType::parse("test.sample").expect("words joined by dots"))
}

fn generic(event_type: EventType) -> Event {
    Event {
        id: String::new(),
        source: "/samples/test".to_owned(),
        event_type,
        subject: None,
        time: None,
        datacontenttype: Some("application/json".to_owned()),
        dataschema: None,
        extensions: Vec::new(),
        data: Data::Json(Bytes::from_static(br#"{"message":"This is a test of your webhook."}"#)),
    }
}

#[cfg(test)]
mod tests {
    use cuewire::formats::Format;
    use cuewire::ids::{OrganizationId, WebhookId};
    use cuewire::signature::Scheme;
    use cuewire::webhook::Pattern;
    use time::macros::datetime;

    use super::*;

    const NOW: OffsetDateTime = datetime!(2026-01-31 09:30:00 UTC);

    fn webhook(event_types: &[&str]) -> Webhook {
        Webhook {
            id: WebhookId::new(),
            number: 1,
            organization: OrganizationId::new(),
            name: "test".to_owned(),
            description: None,
            url: "http://example.com/".to_owned(),
            enabled: true,
            disabled_reason: None,
            first_failed_at: None,
            breaker: None,
            format: Format::Standard,
            event_types: event_types.iter().map(|text| Pattern::parse(text).unwrap()).collect(),
            filter: None,
            sealed_headers: Vec::new(),
            signature: Scheme::V1,
            own_rate_limit: None,
            max_in_flight: 1,
            timeout: Duration::from_secs(1),
            retry_schedule: None,
            created_at: NOW,
            updated_at: NOW,
        }
    }

    #[test]
    fn a_sample_is_of_a_type_that_the_webhook_takes() {
        let first = catalogue::all()[0].name.as_str();
        for (event_types, expected) in [
            (&[][..], first),
            (&["*"], first),
            (&["webhook.*"], "webhook.disabled"),
            (&["nobody.*.knows"], "nobody.sample.knows"),
            (&["nobody.knows"], "nobody.knows"),
        ] {
            let webhook = webhook(event_types);
            let event = sent_now(sample(&webhook, None), &webhook, NOW);
            assert_eq!(event.event_type.as_str(), expected);
            assert_eq!(event.extension("organization"), Some(webhook.organization.to_string().as_str()));
            assert!(Event::from_json(&event.to_json()).is_ok());
            assert_ne!(event.id, sent_now(sample(&webhook, None), &webhook, NOW).id);
        }
        for (format, event_types, expected) in [
            (Format::Aioz, &[][..], "file.received"),
            (Format::Quortex, &["*"], "input.creation"),
            (Format::Quortex, &["*.status_change"], "input.status_change"),
            (Format::Millicast, &["input.*"], "input.status_change"),
            (Format::Iconik, &["video.*"], "video.process_failed"),
            (Format::Slack, &[], first),
        ] {
            let webhook = Webhook { format, ..webhook(event_types) };
            assert_eq!(sample(&webhook, None).event_type.as_str(), expected, "{}", format.as_str());
        }
        let named = EventType::parse("my.own").unwrap();
        assert_eq!(sample(&webhook(&[]), Some(named.clone())).event_type, named);
    }
}
