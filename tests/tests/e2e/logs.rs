//! What the services log.

use cuewire_tests::event::id;
use cuewire_tests::{Answer, Receiver, Service, Setup};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

#[test]
fn logs_are_json_by_the_setting_with_one_line_for_each_attempt_and_its_ids() {
    Setup::processes().variable("CUEWIRE_LOG_FORMAT", "json").run(async |system| {
        let receiver = Receiver::answering([Answer::status(500), Answer::status(200)]).await;
        let organization = system.organization().await;
        let webhook = organization.webhook(receiver.url("/")).schedule(&["1s"]).create().await;
        let event = organization.event("a.b");
        system.amqp().await.publish(&event).await;
        let delivery = organization.delivery(id(&event), &webhook, "delivered").await;
        for service in Service::ALL {
            let lines = system.said(service).await;
            assert!(!lines.is_empty(), "the {} says nothing", service.name());
            for line in lines {
                let line: Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("no JSON: {line}"));
                assert!(line["timestamp"].is_string() && line["level"].is_string(), "{line}");
                assert!(line["message"].is_string(), "{line}");
            }
        }
        let lines = system.said(Service::Sender).await;
        let lines = lines.iter().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let attempts: Vec<Value> = lines.filter(|line| line["message"] == "attempt").collect();
        let told: Vec<_> = attempts
            .iter()
            .map(|line| json!([line["span"]["number"], line["status"], line["state"], line["event"]]))
            .collect();
        let expected = [json!([1, 500, "retrying", event["id"]]), json!([2, 200, "delivered", event["id"]])];
        assert_eq!(told, expected);
        for line in &attempts {
            let span = &line["span"];
            assert_eq!(span["name"], "delivery", "{line}");
            assert_eq!(span["id"], delivery["id"], "{line}");
            assert_eq!(span["organization"], organization.id.as_str(), "{line}");
            assert_eq!(span["webhook"], webhook.id.as_str(), "{line}");
        }
    });
}

#[test]
fn logs_are_text_without_a_setting_with_one_line_for_each_attempt_and_its_ids() {
    Setup::processes().run(async |system| {
        let receiver = Receiver::answering([Answer::status(500), Answer::status(200)]).await;
        let organization = system.organization().await;
        let webhook = organization.webhook(receiver.url("/")).schedule(&["1s"]).create().await;
        let event = organization.event("a.b");
        system.amqp().await.publish(&event).await;
        let delivery = organization.delivery(id(&event), &webhook, "delivered").await;
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        for service in Service::ALL {
            let lines = system.said(service).await;
            assert!(!lines.is_empty(), "the {} says nothing", service.name());
            for line in lines {
                let mut words = line.split_whitespace();
                let time = words.next().unwrap_or_default();
                assert!(OffsetDateTime::parse(time, &Rfc3339).is_ok(), "it begins with no time: {line}");
                assert!(["INFO", "WARN", "ERROR"].contains(&words.next().unwrap_or_default()), "{line}");
            }
        }
        let lines = system.said(Service::Sender).await;
        let attempts: Vec<&String> = lines.iter().filter(|line| line.contains(": attempt ")).collect();
        assert_eq!(attempts.len(), 2, "{lines:#?}");
        for (line, (number, status, state)) in
            attempts.into_iter().zip([(1, 500, "retrying"), (2, 200, "delivered")])
        {
            let (span, attempt) = line.split_once(": attempt ").unwrap();
            let (_, span) = span.split_once(" delivery{").unwrap_or_else(|| panic!("no span: {line}"));
            let (span, _) = span.split_once('}').unwrap();
            for (name, value) in [
                ("id", text(&delivery["id"])),
                ("organization", organization.id.clone()),
                ("webhook", webhook.id.clone()),
                ("number", number.to_string()),
            ] {
                assert!(span.split(' ').any(|field| field == format!("{name}={value}")), "{name}: {line}");
            }
            for (name, value) in
                [("status", status.to_string()), ("state", state.to_owned()), ("event", text(&event["id"]))]
            {
                let is_it = |field: &str| field.replace('"', "") == format!("{name}={value}");
                assert!(attempt.split(' ').any(is_it), "{name}: {line}");
            }
        }
    });
}
