//! What is shown: the webhooks, the events, and a line for each delivery.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::Context;
use cuewire::catalogue;
use cuewire_tests::amqp::{Amqp, Raw};
use cuewire_tests::{Answer, Client, Receiver, Request};
use reqwest::Method;
use serde_json::{Value, json};

use crate::plans::{Plan, Signature, plans};
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
    "input.status_change",
    "video.process_succeeded",
    "feeds.started",
    "media.errored",
];

/// The show under way.
pub(crate) struct Show<'a> {
    stack: &'a Stack,
    admin: Client,
    key: String,
    organization: String,
    receiver: Receiver,
    plans: Vec<Plan>,
    /// What each webhook's deliveries are verified with, by its path.
    keys: HashMap<&'static str, String>,
    /// When each sample was published, by its type.
    published: HashMap<&'static str, Instant>,
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
        let made = ask(&operator, Method::POST, &path, Some(&body)).await?;
        let (key, key_id) = (text(&made, "key")?, text(&made, "id")?);
        println!("   {organization}, and an admin's key for it");

        let receiver = Receiver::start(answer).await;
        println!("\n2. A receiver, as a customer would run it\n   {}", receiver.url("/"));

        println!("\n3. Webhooks, some of them made as the platforms' own clients make theirs");
        let (admin, plans) = (stack.api(&key), plans());
        for plan in &plans {
            plan.make(&admin, &key, &key_id, &receiver.url(plan.path)).await?;
            println!("   {:<13} {:<38} {}", plan.path, plan.about, plan.takes.unwrap_or("*"));
        }
        let keys = keys(&admin, &receiver, &plans).await?;
        tokio::time::sleep(IN_EFFECT_AFTER).await;
        let (published, shown, expected, unverified) = (HashMap::new(), 0, 0, 0);
        Ok(Self {
            stack,
            admin,
            key,
            organization,
            receiver,
            plans,
            keys,
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
            event["id"] = format!("demo-{}", uuid::Uuid::now_v7()).into();
            event["organization"] = self.organization.clone().into();
            println!("   {event_type:<24} {}", entry.description);
            let takers = self.plans.iter().filter(|plan| plan.takes.is_none_or(|taken| taken == event_type));
            self.expected += takers.map(|plan| plan.calls).sum::<usize>();
            self.published.insert(event_type, Instant::now());
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
            let plan = self.plans.iter().find(|plan| plan.path == request.path);
            let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
            let event_type = plan.and_then(|plan| plan.takes).or(body["type"].as_str()).unwrap_or_default();
            let since = self.published.get(event_type).map_or_else(String::new, |at| {
                format!("{:.1} ms", (request.at - *at).as_secs_f64() * 1_000.0)
            });
            let key = self.keys.get(request.path.as_str()).map_or("", String::as_str);
            let (verdict, is_well) = plan.map_or_else(
                || ("unknown webhook".to_owned(), false),
                |plan| plan.signature.verdict(key, &request),
            );
            self.unverified += usize::from(!is_well);
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

/// What the deliveries of each webhook are verified with, read where all webhooks are shown: in the native API.
async fn keys(
    admin: &Client,
    receiver: &Receiver,
    plans: &[Plan],
) -> anyhow::Result<HashMap<&'static str, String>> {
    let webhooks = ask(admin, Method::GET, "/v1/webhooks?limit=100", None).await?;
    let mut keys = HashMap::new();
    for plan in plans {
        let url = receiver.url(plan.path);
        let webhook =
            webhooks["data"].as_array().and_then(|all| all.iter().find(|it| it["url"] == url.as_str()));
        let id =
            text(webhook.with_context(|| format!("{} is not in the list of webhooks", plan.path))?, "id")?;
        let secret = ask(admin, Method::GET, &format!("/v1/webhooks/{id}/secret"), None).await?;
        let key = if matches!(plan.signature, Signature::V1a) { "public_key" } else { "secret" };
        keys.insert(plan.path, text(&secret, key)?);
    }
    Ok(keys)
}

/// The receiver's script.
fn answer(request: &Request, before: &[Request]) -> Answer {
    let seen = before.iter().filter(|it| it.path == request.path && same_delivery(it, request)).count();
    Plan::answer(&request.path, seen)
}

fn same_delivery(one: &Request, other: &Request) -> bool {
    one.header("webhook-id") == other.header("webhook-id")
}

fn text(value: &Value, member: &str) -> anyhow::Result<String> {
    let text = value.get(member).and_then(Value::as_str);
    text.map(str::to_owned).with_context(|| format!("the API's answer has no {member}: {value}"))
}
