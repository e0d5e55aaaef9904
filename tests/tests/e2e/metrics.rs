//! What Prometheus reads: the value of each metric when an event and a retry have gone through.

mod trouble;

use std::time::Duration;

use cuewire_tests::amqp::Raw;
use cuewire_tests::event::id;
use cuewire_tests::system::test;
use cuewire_tests::{Answer, Receiver, Service, System, until};

/// A metric's name, some of its labels, and its value.
type Sample<'a> = (&'a str, &'a [(&'a str, &'a str)], f64);

async fn has(system: &System, service: Service, expected: &[Sample<'_>]) {
    for (metric, labels, value) in expected {
        let found = system.metric(service, metric, labels).await;
        assert_eq!(found, Some(*value), "{} {metric} {labels:?}", service.name());
    }
}

async fn becomes(system: &System, service: Service, metric: &str, labels: &[(&str, &str)], value: f64) {
    until(&format!("{metric} {labels:?} is {value}"), async || {
        (system.metric(service, metric, labels).await == Some(value)).then_some(())
    })
    .await;
}

#[test]
fn each_service_counts_and_times_an_event_and_its_retry() {
    test(async |system| {
        let slow = Answer::status(500).after(Duration::from_millis(700));
        let receiver = Receiver::answering([slow, Answer::status(200)]).await;
        let organization = system.organization().await;
        let webhook = organization.webhook(receiver.url("/")).schedule(&["1s"]).create().await;
        let event = organization.event("a.b");
        let _ = organization.admin.post("/v1/events", &event).await.expect(202);
        becomes(system, Service::Sender, "cuewire_sender_requests_in_flight", &[], 1.0).await;
        organization.delivery(id(&event), &webhook, "delivered").await;
        system.amqp().await.publish_raw(&Raw::body("a.b", "not JSON")).await.unwrap();
        becomes(system, Service::DlqReaper, "cuewire_dead_letters_total", &[("reason", "poison")], 1.0).await;
        becomes(system, Service::DlqReaper, "cuewire_reaper_messages_in_flight", &[], 0.0).await;

        let publish = [("route", "/v1/events"), ("method", "POST")];
        has(
            system,
            Service::Api,
            &[
                ("cuewire_api_requests_total", &[publish[0], publish[1], ("status", "202")], 1.0),
                ("cuewire_api_request_duration_seconds_count", &publish, 1.0),
                ("cuewire_api_events_accepted_total", &[], 1.0),
                ("cuewire_api_events_refused_total", &[], 0.0),
                ("cuewire_api_publish_duration_seconds_count", &[], 1.0),
                ("cuewire_api_publish_batch_events_sum", &[], 1.0),
                ("cuewire_api_requests_in_flight", &[], 0.0),
                ("cuewire_api_event_streams", &[], 0.0),
                ("cuewire_connected", &[("component", "publisher")], 1.0),
                ("cuewire_connected", &[("component", "caller")], 1.0),
            ],
        )
        .await;
        // A batch is counted when it is acknowledged, which may be after its delivery.
        becomes(system, Service::Router, "cuewire_router_batches_in_flight", &[], 0.0).await;
        has(
            system,
            Service::Router,
            &[
                ("cuewire_router_events_total", &[("outcome", "routed")], 1.0),
                ("cuewire_router_routed_events_total", &[("category", "other")], 1.0),
                ("cuewire_router_deliveries_total", &[], 1.0),
                ("cuewire_router_batch_events_count", &[], 1.0),
                ("cuewire_router_batch_events_sum", &[], 1.0),
                ("cuewire_router_batch_duration_seconds_count", &[], 1.0),
                ("cuewire_router_webhooks", &[], 1.0),
                ("cuewire_router_organizations", &[], 1.0),
                ("cuewire_connected", &[("component", "consumer")], 1.0),
                ("cuewire_connected", &[("component", "publisher")], 1.0),
            ],
        )
        .await;
        has(
            system,
            Service::Sender,
            &[
                ("cuewire_sender_attempts_total", &[("state", "retrying"), ("format", "standard")], 1.0),
                ("cuewire_sender_attempts_total", &[("category", "other")], 2.0),
                ("cuewire_sender_attempts_total", &[("state", "delivered"), ("format", "standard")], 1.0),
                ("cuewire_sender_outcomes_total", &[("outcome", "5xx")], 1.0),
                ("cuewire_sender_outcomes_total", &[("outcome", "2xx")], 1.0),
                (
                    "cuewire_sender_request_duration_seconds_count",
                    &[("category", "other"), ("format", "standard")],
                    2.0,
                ),
                ("cuewire_sender_lateness_seconds_count", &[("lane", "fresh"), ("category", "other")], 1.0),
                ("cuewire_sender_lateness_seconds_count", &[("lane", "due")], 1.0),
                ("cuewire_sender_parked_total", &[("cause", "retry")], 1.0),
                ("cuewire_sender_record_batch_attempts_sum", &[], 2.0),
                ("cuewire_sender_record_duration_seconds_count", &[], 2.0),
                ("cuewire_sender_requests_in_flight", &[], 0.0),
                ("cuewire_sender_waiting", &[], 0.0),
                ("cuewire_sender_held", &[], 0.0),
                ("cuewire_sender_webhooks", &[], 1.0),
                ("cuewire_connected", &[("component", "consumer")], 1.0),
                ("cuewire_connected", &[("component", "publisher")], 1.0),
            ],
        )
        .await;
        let sum = async |metric, labels: &[(&str, &str)]| {
            system.metric(Service::Sender, metric, labels).await.unwrap()
        };
        let duration = sum("cuewire_sender_request_duration_seconds_sum", &[]).await;
        assert!((0.7..30.0).contains(&duration), "{duration} s");
        let late = sum("cuewire_sender_lateness_seconds_sum", &[("lane", "due")]).await;
        assert!((0.0..10.0).contains(&late), "{late} s");
        has(
            system,
            Service::DlqReaper,
            &[
                ("cuewire_dead_letters_total", &[], 1.0),
                ("cuewire_reaper_batch_size_sum", &[], 1.0),
                ("cuewire_reaper_record_seconds_count", &[], 1.0),
                ("cuewire_reaper_age_seconds_count", &[], 1.0),
                ("cuewire_reaper_parked_total", &[], 0.0),
                ("cuewire_connected", &[("component", "consumer")], 1.0),
            ],
        )
        .await;
        for service in Service::ALL {
            let labels = [("service", service.name()), ("version", env!("CARGO_PKG_VERSION"))];
            has(system, service, &[("cuewire_build_info", &labels, 1.0)]).await;
            has(system, service, &[("cuewire_connected", &[("component", "database")], 1.0)]).await;
        }
    });
}

#[test]
fn the_names_of_metrics_follow_prometheus_conventions() {
    test(async |system| {
        for service in Service::ALL {
            let text = system.metrics(service).await;
            let types: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
            assert!(types.len() > 5, "{text}");
            for line in types {
                let (name, kind) = line.split_once(' ').unwrap();
                assert!(name.starts_with("cuewire_") || name.starts_with("process_"), "{name}");
                assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{name}");
                assert_eq!(kind == "counter", name.ends_with("_total"), "{name} is a {kind}");
                assert!(!name.contains("_ms") && !name.contains("milli"), "{name}: base units");
                let help = format!("# HELP {name} ");
                let help = text.lines().find_map(|line| line.strip_prefix(&help));
                assert!(help.is_some_and(|help| help.len() > 10), "{name} has no help");
            }
        }
    });
}
