//! A webhook's statistics: its attempts counted by the minute.

use cuewire_tests::system::test;
use cuewire_tests::{Answer, Organization, Receiver, System, Webhook, event, until};
use serde_json::{Value, json};
use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};

/// Attempts that were delivered, that failed, and that were the last in vain.
type Counts = [u64; 3];

async fn stats(organization: &Organization<'_>, webhook: &Webhook, query: &str) -> Value {
    organization.admin.get(&format!("/v1/webhooks/{}/stats?{query}", webhook.id)).await.expect(200)
}

fn minutes(stats: &Value) -> &[Value] {
    stats["data"].as_array().unwrap()
}

fn counts(minute: &Value) -> Counts {
    ["delivered", "failed", "dead"].map(|count| minute[count].as_u64().unwrap())
}

fn sum(stats: &Value) -> Counts {
    let add = |one: Counts, two: Counts| std::array::from_fn(|at| one[at] + two[at]);
    minutes(stats).iter().map(counts).fold([0; 3], add)
}

fn time(text: &Value) -> OffsetDateTime {
    OffsetDateTime::parse(text.as_str().unwrap(), &Rfc3339).unwrap()
}

/// A query for what was from one time to before another.
fn between(from: OffsetDateTime, to: OffsetDateTime) -> String {
    let text = |at: OffsetDateTime| at.format(&Rfc3339).unwrap();
    format!("from={}&to={}", text(from), text(to))
}

/// Publishes as many events, and waits until the webhook's attempts of the last day come to this.
async fn publish(
    system: &System,
    (organization, webhook): (&Organization<'_>, &Webhook),
    events: usize,
    all: Counts,
) {
    system.amqp().await.publish_all(&event::events(events, "a.b", &organization.id)).await;
    until(&format!("the attempts come to {all:?}"), async || {
        (sum(&stats(organization, webhook, "").await) == all).then_some(())
    })
    .await;
}

#[test]
fn attempts_are_counted_by_the_minute() {
    test(async |system| {
        let receiver = Receiver::answering([Answer::status(500), Answer::status(200)]).await;
        let organization = system.organization().await;
        let webhook = organization.webhook(receiver.url("/")).schedule(&["1s"]).create().await;
        publish(system, (&organization, &webhook), 1, [1, 1, 0]).await;
        // What was until now is an hour older, and goes on there.
        let age = "UPDATE delivery_stats SET minute = minute - interval '1 hour'";
        system.database().await.execute(age, &[]).await.unwrap();
        publish(system, (&organization, &webhook), 10, [11, 1, 0]).await;
        organization.change(&webhook, &json!({"url": "http://127.0.0.1:9/", "retry_schedule": []})).await;
        publish(system, (&organization, &webhook), 3, [11, 4, 3]).await;

        let all = stats(&organization, &webhook, "").await;
        let times: Vec<_> = minutes(&all).iter().map(|minute| time(&minute["minute"])).collect();
        assert!(times.is_sorted() && times.iter().all(|at| at.second() == 0), "{all}");
        assert_eq!(time(&all["to"]) - time(&all["from"]), Duration::DAY);
        let (first, end) = (times[0], *times.last().unwrap() + Duration::MINUTE);
        let half_an_hour_later = first + Duration::minutes(30);
        for (from, to, expected) in [
            (first, half_an_hour_later, [1, 1, 0]),
            (half_an_hour_later, end, [10, 3, 3]),
            (first, end, [11, 4, 3]),
            (end - Duration::WEEK, end, [11, 4, 3]),
            // From the minute that is named, to before the one that is.
            (first, first + Duration::SECOND, counts(&minutes(&all)[0])),
            (first + Duration::SECOND, first + Duration::MINUTE, [0, 0, 0]),
            (first - Duration::HOUR, first, [0, 0, 0]),
            (end, end + Duration::HOUR, [0, 0, 0]),
            (first, first, [0, 0, 0]),
        ] {
            let query = between(from, to);
            assert_eq!(sum(&stats(&organization, &webhook, &query).await), expected, "{query}: {all}");
        }

        // What they took is what each of them took.
        let attempts = format!("/v1/webhooks/{}/attempts?limit=100", webhook.id);
        let attempts = organization.admin.get(&attempts).await.expect(200);
        let number = |value: &Value| value.as_f64().unwrap();
        let took = attempts["data"].as_array().unwrap().iter().map(|it| number(&it["duration_ms"]));
        let counted = minutes(&all).iter().map(|minute| {
            let [delivered, failed, _] = counts(minute);
            number(&minute["mean_duration_ms"]) * (delivered + failed) as f64
        });
        let (took, counted): (f64, f64) = (took.sum(), counted.sum());
        assert!((took - counted).abs() < 0.1, "{counted} ms of {took} ms");
    });
}

#[test]
fn a_span_that_there_cannot_be_is_refused_with_the_end_that_is_wrong() {
    test(async |system| {
        let organization = system.organization().await;
        let webhook = organization.webhook("http://127.0.0.1:9/").types(&["none.such"]).create().await;
        for (query, field) in [
            ("from=yesterday", "from"),
            ("to=1800000000", "to"),
            ("from=", "from"),
            ("from=2026-01-31", "from"),
            ("from=2026-02-30T00:00:00Z", "from"),
            ("to=0000-01-01T00:00:00Z", "to"),
            ("to=9999-12-31T23:59:59Z", "to"),
            ("from=2026-02-01T00:00:00Z&to=2026-01-31T23:59:59Z", "from"),
            ("from=2026-01-01T00:00:00Z&to=2026-01-08T00:00:01Z", "from"),
            ("from=2026-01-01T00:00:00Z", "from"),
        ] {
            let path = format!("/v1/webhooks/{}/stats?{query}", webhook.id);
            let reply = organization.admin.get(&path).await;
            assert_eq!(reply.json["field"], field, "{query}: {}", reply.text);
            let _ = reply.problem(422);
        }
    });
}
