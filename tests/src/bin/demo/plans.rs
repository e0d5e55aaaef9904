//! The webhooks of the show: Cuewire's own, one of each platform, made as that platform's clients make theirs,
//! and one for each chat service.

use anyhow::Context;
use cuewire_tests::{Answer, Client, Request, verify};
use reqwest::Method;
use serde_json::{Value, json};

use crate::stack::ask;

/// A webhook to be made, and what is expected of it.
pub(crate) struct Plan {
    /// Of its URL.
    pub(crate) path: &'static str,
    /// What it is, in a few words.
    pub(crate) about: &'static str,
    /// The one sample that it takes; none: all of them.
    pub(crate) takes: Option<&'static str>,
    /// How often it is called for an event until that is delivered or dead.
    pub(crate) calls: usize,
    /// How its deliveries are signed.
    pub(crate) signature: Signature,
    /// Where it is made, and of what besides its URL.
    made: Made,
}

enum Made {
    /// By the native API.
    Natively(Value),
    /// By a platform's, as its clients do.
    By(Platform),
}

#[derive(Clone, Copy)]
enum Platform {
    Millicast,
    Aioz,
    Iconik,
    Quortex,
    Omegastream,
}

/// A receiver's way of telling that a delivery is from Cuewire.
#[derive(Clone, Copy)]
pub(crate) enum Signature {
    /// Standard Webhooks, by a secret that both sides know.
    V1,
    /// Standard Webhooks, by a pair of keys.
    V1a,
    /// The platform's own.
    Millicast,
    /// The URL is the secret.
    None,
}

impl Signature {
    /// What the receiver finds, and whether it is well.
    pub(crate) fn verdict(self, key: &str, request: &Request) -> (String, bool) {
        let (name, verified) = match self {
            Self::V1 => ("v1", verify::v1(key, request)),
            Self::V1a => ("v1a", verify::v1a(key, request)),
            Self::Millicast => ("sha1", verify::millicast(key, request)),
            Self::None => return ("none needed".to_owned(), true),
        };
        match verified {
            Ok(()) => (format!("{name} yes"), true),
            Err(error) => (format!("{name} NO ({error})"), false),
        }
    }
}

/// All of them.
pub(crate) fn plans() -> Vec<Plan> {
    let native = |path, about, takes, more| Plan {
        path,
        about,
        takes,
        calls: 1,
        signature: Signature::V1,
        made: Made::Natively(more),
    };
    let platform = |path, about, takes, platform| Plan {
        path,
        about,
        takes: Some(takes),
        calls: 1,
        signature: Signature::V1,
        made: Made::By(platform),
    };
    let chat = |path, about, takes, format| Plan {
        signature: Signature::None,
        ..native(path, about, Some(takes), json!({"format": format}))
    };
    vec![
        native("/all", "every event", None, json!({})),
        Plan {
            signature: Signature::V1a,
            ..native(
                "/cloudevents",
                "as a CloudEvent, signed by a key pair",
                Some("encoding.finished"),
                json!({"format": "cloudevents", "signature": "v1a"}),
            )
        },
        Plan {
            signature: Signature::Millicast,
            ..platform("/millicast", "by Millicast's API", "recordings.completed", Platform::Millicast)
        },
        platform("/aioz", "by AIOZ Stream's API", "encoding.finished", Platform::Aioz),
        platform("/iconik", "by iconik's API", "assets.update", Platform::Iconik),
        platform("/quortex", "by Quortex I/O's API", "input.status_change", Platform::Quortex),
        platform("/omegastream", "by Omegastream's API", "video.process_succeeded", Platform::Omegastream),
        chat("/slack", "a message for Slack", "recordings.completed", "slack"),
        chat("/google_chat", "a message for Google Chat", "assets.update", "google_chat"),
        chat("/teams", "a message for Teams", "input.status_change", "teams"),
        Plan {
            calls: 3,
            ..native(
                "/flaky",
                "fails twice, then takes it",
                Some("feeds.started"),
                json!({"retry_schedule": ["1s", "2s"]}),
            )
        },
        Plan {
            calls: 2,
            ..native("/broken", "always fails", Some("media.errored"), json!({"retry_schedule": ["1s"]}))
        },
    ]
}

impl Plan {
    /// Makes the webhook.
    pub(crate) async fn make(
        &self,
        admin: &Client,
        key: &str,
        key_id: &str,
        url: &str,
    ) -> anyhow::Result<()> {
        match &self.made {
            Made::Natively(more) => {
                let mut webhook = json!({"name": self.path, "description": self.about, "url": url});
                webhook["event_types"] = self.takes.into_iter().collect();
                if let (Some(webhook), Some(more)) = (webhook.as_object_mut(), more.as_object()) {
                    webhook.extend(more.clone());
                }
                ask(admin, Method::POST, "/v1/webhooks", Some(&webhook)).await.map(drop)
            }
            Made::By(platform) => platform.make(admin, key, key_id, url).await,
        }
    }

    /// The receiver's answer to the request, after so many of the same delivery.
    pub(crate) fn answer(path: &str, seen: usize) -> Answer {
        match path {
            "/flaky" if seen < 2 => Answer::status(503),
            "/broken" => Answer::status(500).body("out of order"),
            "/slack" => Answer::status(200).body("ok"),
            _ => Answer::status(200),
        }
    }
}

impl Platform {
    /// Makes a webhook as the platform's clients do: with its path, its form of a key, its fields.
    async fn make(self, admin: &Client, key: &str, key_id: &str, url: &str) -> anyhow::Result<()> {
        let (path, body) = match self {
            Self::Millicast => (
                "/platforms/millicast/api/webhooks",
                json!({"url": url, "isFeedHooks": false, "isRecordingHooks": true}),
            ),
            Self::Aioz => (
                "/platforms/aioz/api/webhooks",
                json!({"name": "demo", "url": url, "encoding_finished": true}),
            ),
            Self::Iconik => (
                "/platforms/iconik/API/notifications/v1/webhooks/",
                json!({"name": "demo", "url": url, "event_type": "assets", "operation": "update"}),
            ),
            Self::Quortex => (
                "/platforms/quortex/1.0/organization/webhooks/",
                json!({"name": "demo", "type": "raw", "url": url, "category": "input"}),
            ),
            Self::Omegastream => (
                "/platforms/omegastream/company/client/webhooks",
                json!({"url": url, "events": ["video.process_succeeded"]}),
            ),
        };
        let unkeyed = admin.with_key(None);
        let request = match self {
            Self::Iconik => {
                unkeyed.request(Method::POST, path).header("app-id", key_id).header("auth-token", key)
            }
            Self::Quortex => {
                let secret = json!({"api_key_secret": key});
                let token =
                    ask(&unkeyed, Method::POST, "/platforms/quortex/1.0/token/", Some(&secret)).await?;
                let token = token["access_token"].as_str().context("no access token")?;
                unkeyed.request(Method::POST, path).bearer_auth(token)
            }
            Self::Aioz => unkeyed.request(Method::POST, path).basic_auth(key_id, Some(key)),
            Self::Millicast | Self::Omegastream => unkeyed.request(Method::POST, path).bearer_auth(key),
        };
        let request = request.header("content-type", "application/json").body(body.to_string());
        let reply = unkeyed.try_send(request).await.with_context(|| format!("POST {path}"))?;
        anyhow::ensure!(reply.status.is_success(), "POST {path} answered {}: {}", reply.status, reply.text);
        Ok(())
    }
}
