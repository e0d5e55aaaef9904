//! The platforms' management APIs as each platform's documentation has them, on the wire.
//!
//! The requests are written out as those clients send them, byte for byte.

#![allow(clippy::unwrap_used, reason = "in a test, what cannot be done fails the test")]

mod aioz;
mod iconik;
mod millicast;
mod omegastream;
mod quortex;

use cuewire_tests::{Organization, event, until};
use serde_json::Value;

/// Publishes an event, and answers the webhooks that it was fanned out to when that is decided.
async fn taken_by(organization: &Organization<'_>, event: &Value) -> Vec<String> {
    let _ = organization.admin.post("/v1/events", event).await.expect(202);
    let path = format!("/v1/events/{}", event::id(event));
    until("the event is logged", async || {
        let reply = organization.admin.get(&path).await;
        let deliveries = reply.json["deliveries"].as_array()?;
        Some(deliveries.iter().map(|it| it["webhook_id"].as_str().unwrap().to_owned()).collect())
    })
    .await
}
