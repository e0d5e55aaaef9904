//! What is shown: the webhooks, the events, and a line for each delivery.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::Context;
use cuewire::catalogue;
use cuewire::webhook::Pattern;
use cuewire_tests::amqp::{Amqp, Raw};
use cuewire_tests::{Answer, Client, Receiver, Request, verify};
use reqwest::Method;
use serde_json::{Value, json};

use crate::stack::{Stack, ask};

/// The retries take three seconds; the rest is for machines that are busy.
const COMPLETE_WITHIN: Duration = Duration::from_secs(60);
/// A change of configuration takes effect within a second.
const IN_EFFECT_AFTER: Duration = Duration::from_secs(2);
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// One sample of each platform, and one for each webhook that fails.
const SAMPLES: [&str; 7] = [
    "recordings.completed",
    "encoding.finished",
    "assets.update",
    "stream.status_change",
    "video.process_succeeded",
    "feeds.started",
    "media.errored",
];

/// The webhooks: path, event types, and what else is special about each.
fn plans() -> [Plan; 8] {
    let plan = |path, about, types, more| Plan { path, about, types, more };
    let quick = |delays: &[&str]| json!({ "retry_schedule": delays });
    [
        plan("/all", "every event", &[][..], json!({})),
        plan("/millicast", "recordings and media", &["recordings.*", "media.*"], json!({})),
        plan("/aioz", "encoding", &["encoding.*"], json!({"signature": "v1a"})),
        plan(
            "/iconik",
            "updated assets, by a filter",
            &["assets.*"],
            json!({"filter": "operation = \"update\""}),
        ),
        plan("/quortex", "as CloudEvents", &["*.status_change"], json!({"format": "cloudevents"})),
        plan("/omegastream", "videos", &["video.*"], json!({"headers": {"x-team": "vod"}})),
        plan("/flaky", "fails twice, then takes it", &["feeds.started"], quick(&["1s", "2s"])),
        plan("/broken", "always fails", &["media.errored"], quick(&["1s"])),
    ]
}

struct Plan {
    path: &'static str,
    about: &'static str,
    types: &'static [&'static str],
    more: Value,
}

impl Plan {
    /// How often it is called for an event of this type until that is delivered or dead. (The one filter
    /// among the plans takes the sample that there is.)
    fn calls(&self, event_type: &str) -> usize {
        let wants = |pattern: &&str| Pattern::parse(pattern).is_ok_and(|pattern| pattern.matches(event_type));
        match self.path {
            _ if !self.types.is_empty() && !self.types.iter().any(wants) => 0,
            "/flaky" => 3,
            "/broken" => 2,
            _ => 1,
        }
    }
}

/// A receiver's way of telling that a delivery is from Cuewire.
enum Verifier {
    /// The secret that both sides know.
    Shared(String),
    /// The public key of a pair.
    Public(String),
}

impl Verifier {
    fn verdict(&self, request: &Request) -> String {
        let (scheme, verified) = match self {
            Self::Shared(secret) => ("v1", verify::v1(secret, request)),
            Self::Public(key) => ("v1a", verify::v1a(key, request)),
        };
        match verified {
            Ok(()) => format!("{scheme} yes"),
            Err(error) => format!("{scheme} NO ({error})"),
        }
    }
}

/// The show under way.
pub(crate) struct Show<'a> {
    stack: &'a Stack,
    admin: Client,
    key: String,
    organization: String,
    receiver: Receiver,
    verifiers: HashMap<&'static str, Verifier>,
    published: HashMap<String, Instant>,
    shown: usize,
    expected: usize,
    unverified: usize,
}

impl<'a> Show<'a> {
    /// Makes an organization with a key, a receiver, and the webhooks.
    pub(crate) async fn prepare(stack: &'a Stack) -> anyhow::Result<Self> {
        let operator = stack.api(&stack.operator_key);
        println!("\n1. An organization, made with the operator's key");
        let body = json!({"name": "Demo"});
        let organization = ask(&operator, Method::POST, "/v1/organizations", Some(&body)).await?;
        let organization = text(&organization, "id")?;
        let path = format!("/v1/organizations/{organization}/api-keys");
        let body = json!({"name": "demo", "role": "admin"});
        let key = text(&ask(&operator, Method::POST, &path, Some(&body)).await?, "key")?;
        println!("   {organization}, and an admin's key for it");

        let receiver = Receiver::start(answer).await;
        println!("\n2. A receiver, as a customer would run it\n   {}", receiver.url("/"));

        println!("\n3. Webhooks");
        let admin = stack.api(&key);
        let mut verifiers = HashMap::new();
        for plan in plans() {
            let mut webhook = json!({
                "name": plan.path, "description": plan.about, "url": receiver.url(plan.path), "event_types": plan.types,
            });
            if let (Some(webhook), Some(more)) = (webhook.as_object_mut(), plan.more.as_object()) {
                webhook.extend(more.clone());
            }
            let made = ask(&admin, Method::POST, "/v1/webhooks", Some(&webhook)).await?;
            let verifier = match made.get("public_key").and_then(Value::as_str) {
                Some(public) => Verifier::Public(public.to_owned()),
                None => Verifier::Shared(text(&made, "secret")?),
            };
            verifiers.insert(plan.path, verifier);
            let types = if plan.types.is_empty() { "*".to_owned() } else { plan.types.join(" ") };
            println!("   {:<13} {:<28} {types}", plan.path, plan.about);
        }
        tokio::time::sleep(IN_EFFECT_AFTER).await;
        let (published, shown, expected, unverified) = (HashMap::new(), 0, 0, 0);
        Ok(Self {
            stack,
            admin,
            key,
            organization,
            receiver,
            verifiers,
            published,
            shown,
            expected,
            unverified,
        })
    }

    /// Publishes a sample of each platform's events to RabbitMQ, as an upstream would.
    pub(crate) async fn publish_samples(&mut self) -> anyhow::Result<()> {
        println!("\n4. Events, published to the exchange `events` with their type as the routing key");
        let amqp = Amqp::open(&self.stack.amqp_url).await.context("RabbitMQ does not answer")?;
        for event_type in SAMPLES {
            let entry =
                catalogue::find(event_type).with_context(|| format!("the catalogue has no {event_type}"))?;
            let mut event: Value = serde_json::from_str(entry.sample.get())?;
            let id = format!("demo-{}", uuid::Uuid::now_v7());
            event["id"] = id.clone().into();
            event["organization"] = self.organization.clone().into();
            println!("   {event_type:<24} {}", entry.description);
            self.expected += plans().iter().map(|plan| plan.calls(event_type)).sum::<usize>();
            self.published.insert(id, Instant::now());
            amqp.publish_raw(&Raw::event(&event))
                .await
                .with_context(|| format!("publishing {event_type}"))?;
        }
        println!("\n5. Deliveries, as the receiver sees them");
        println!("   {:<24} {:<13} {:>8}  {:<14} from publish", "event", "webhook", "answered", "signature");
        Ok(())
    }

    /// Shows what arrives until all that is expected has.
    pub(crate) async fn watch_until_complete(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + COMPLETE_WITHIN;
        while self.shown < self.expected {
            self.show_new();
            anyhow::ensure!(
                Instant::now() < deadline,
                "{} of {} deliveries arrived within {COMPLETE_WITHIN:?}",
                self.shown,
                self.expected
            );
            tokio::time::sleep(LOOK_EVERY).await;
        }
        anyhow::ensure!(self.unverified == 0, "{} signatures did not verify", self.unverified);
        Ok(())
    }

    /// Shows what arrives until the program ends.
    pub(crate) async fn watch_for_ever(&mut self) {
        loop {
            self.show_new();
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    fn show_new(&mut self) {
        for request in self.receiver.requests().split_off(self.shown) {
            self.shown += 1;
            let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
            let event_type = body["type"].as_str().or(request.header("ce-type")).unwrap_or("(binary)");
            let published = body["id"].as_str().and_then(|id| self.published.get(id));
            let since = published.map_or_else(String::new, |at| {
                format!("{:.1} ms", (request.at - *at).as_secs_f64() * 1_000.0)
            });
            let verdict = self.verifiers.get(request.path.as_str()).map(|it| it.verdict(&request));
            let verdict = verdict.unwrap_or_else(|| "unknown webhook".to_owned());
            self.unverified += usize::from(!verdict.ends_with(" yes"));
            println!(
                "   {event_type:<24} {:<13} {:>8}  {verdict:<14} {since:>12}",
                request.path, request.answered
            );
        }
    }

    /// Shows the dead letter of the webhook that always fails.
    pub(crate) async fn tell_dead_letters(&self) -> anyhow::Result<()> {
        println!("\n6. What failed for good: GET /v1/dead-letters");
        let deadline = Instant::now() + COMPLETE_WITHIN;
        let letters = loop {
            let page = ask(&self.admin, Method::GET, "/v1/dead-letters", None).await?;
            let letters = page["data"].as_array().cloned().unwrap_or_default();
            if !letters.is_empty() {
                break letters;
            }
            anyhow::ensure!(Instant::now() < deadline, "no dead letter within {COMPLETE_WITHIN:?}");
            tokio::time::sleep(LOOK_EVERY).await;
        };
        anyhow::ensure!(letters.len() == 1, "one dead letter was to be expected: {letters:?}");
        for letter in letters {
            println!(
                "   {} {} {}: {}",
                text(&letter, "id")?,
                text(&letter, "event_type")?,
                text(&letter, "reason")?,
                text(&letter, "detail")?
            );
            println!("   its last attempt: {}", letter["last_attempt"]);
        }
        Ok(())
    }

    /// Says where everything is, and what to do with it.
    pub(crate) fn tell_how_to_go_on(&self) {
        let Stack { api_url, amqp_url, operator_key } = self.stack;
        let (key, organization) = (&self.key, &self.organization);
        println!(
            r#"
The API is at    {api_url}
  documentation  {api_url}/docs/
  operator's key {operator_key}
  admin's key    {key} (of the organization {organization})
RabbitMQ is at   {amqp_url}
Publish more over HTTP:
  curl -X POST {api_url}/v1/events -H 'authorization: Bearer {key}' -H 'content-type: application/json' \
    -d '{{"type":"recordings.completed","source":"/me","data":{{"size":1}}}}'
or over AMQP, to the exchange `events`, with the routing key recordings.completed and the content type
application/cloudevents+json:
  {{"specversion":"1.0","id":"1","source":"/me","type":"recordings.completed","organization":"{organization}"}}
Deliveries are shown below as they arrive. Ctrl-C ends everything."#
        );
    }
}

/// The receiver's script: one path fails twice for each event, one always.
fn answer(request: &Request, before: &[Request]) -> Answer {
    let seen = before.iter().filter(|it| it.path == request.path && same_delivery(it, request)).count();
    match request.path.as_str() {
        "/flaky" if seen < 2 => Answer::status(503),
        "/broken" => Answer::status(500).body("out of order"),
        _ => Answer::status(200),
    }
}

fn same_delivery(one: &Request, other: &Request) -> bool {
    one.header("webhook-id") == other.header("webhook-id")
}

fn text(value: &Value, member: &str) -> anyhow::Result<String> {
    let text = value.get(member).and_then(Value::as_str);
    text.map(str::to_owned).with_context(|| format!("the API's answer has no {member}: {value}"))
}
