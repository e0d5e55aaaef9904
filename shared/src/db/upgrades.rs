//! A rollout: services of an older version run on while a newer one's migration adds columns to their tables.
//!
//! What a connection has prepared with `*` in its result would fail from then on, until the connection ends
//! ("cached plan must not change result type").

use std::time::Duration;

use time::OffsetDateTime;
use uuid::Uuid;

use super::dead_letters::DeadLetterFilter;
use super::event_types::NewEventType;
use super::events::EventFilter;
use super::organizations::Organization;
use super::scratch::{self, Scratch};
use super::webhooks::Failing;
use crate::ids::{DeadLetterId, DeliveryId, WebhookId};
use crate::webhook::Webhook;

/// Asks whatever a service may ask of the tables that it shares, and changes what it may.
async fn use_all(Scratch { database, .. }: &Scratch, organization: &Organization, webhook: &Webhook) {
    let own = organization.id;
    let stored = database.webhook_of(own, webhook.id).await.unwrap().expect("it was made");
    assert_eq!(stored.name, webhook.name);
    let target = database.target(webhook.id).await.unwrap().expect("it was made");
    assert_eq!((target.webhook.url.as_str(), target.owner.name.as_str()), (webhook.url.as_str(), "Acme"));
    assert_eq!(target.secrets.len(), 1);
    let saved = database.save_webhook(&stored, Failing::GoesOn).await.unwrap();
    assert!(saved.is_some(), "nobody else has changed it");
    let made = Webhook { id: WebhookId::new(), ..webhook.clone() };
    let made = database.create_webhook(&made, b"sealed").await.unwrap();
    assert!(database.webhooks_of(own, None, 10).await.unwrap().iter().any(|it| it.id == made.id));
    assert!(database.webhooks_in(own, &[made.format]).await.unwrap().iter().any(|it| it.id == made.id));
    assert!(database.webhook_numbered(own, made.number).await.unwrap().is_some());
    assert!(database.webhook_among(own, &(made.id.0..=made.id.0)).await.unwrap().is_some());
    assert!(!database.subscriptions(None).await.unwrap().subscriptions.is_empty());
    assert!(!database.subscriptions_of(own).await.unwrap().is_empty());

    let new = NewEventType { name: "a.b", schema: Some("{}"), enforced: true, ..Default::default() };
    assert!(database.save_event_type(own, new, 10, &[]).await.unwrap().is_some());
    assert_eq!(database.event_types(own).await.unwrap()[0].name, "a.b");
    assert_eq!(database.enforced_event_types(own).await.unwrap()[0].event_type, "a.b");

    // There are none of these, and the statements are the same.
    let now = OffsetDateTime::now_utc();
    let (delivery, letter) = (DeliveryId(Uuid::now_v7()), DeadLetterId(Uuid::now_v7()));
    assert!(database.claim_notices(Duration::ZERO, 1).await.unwrap().is_empty());
    assert!(database.attempts_of(own, delivery).await.unwrap().is_empty());
    assert!(database.webhook_attempts(webhook.id, None, 1).await.unwrap().is_empty());
    assert!(database.last_attempt(webhook.id, &(delivery.0..=delivery.0)).await.unwrap().is_none());
    assert!(database.last_attempted(&[webhook.id]).await.unwrap().is_empty());
    assert!(database.last_failures(&[webhook.id]).await.is_ok());
    assert!(database.courses(&[delivery], now.date()).await.is_ok());
    assert!(database.webhook_stats(webhook.id, now, now).await.unwrap().is_empty());
    assert!(database.events(own, &EventFilter::default(), None, 1).await.unwrap().events.is_empty());
    assert!(database.event(own, "e1", None).await.unwrap().is_none());
    assert!(database.newest_events(own, |_| {}).await.is_ok());
    let letters = database.dead_letters(Some(own), DeadLetterFilter::default(), None, 1).await.unwrap();
    assert!(letters.letters.is_empty());
    assert!(database.dead_letter(Some(own), letter).await.unwrap().is_none());
    assert!(database.dead_letter_of(own, delivery).await.unwrap().is_none());
    assert!(database.redrive(letter).await.unwrap().is_none());
    assert!(database.claim_due_redrives(Duration::ZERO, 1).await.unwrap().is_empty());

    assert_eq!(database.organization(own).await.unwrap().expect("it was made").name, "Acme");
    assert!(database.organizations(None, None, 10).await.unwrap().iter().any(|it| it.id == own));
    assert!(database.api_keys(own, None, 10).await.unwrap().is_empty());
}

#[test]
fn a_column_more_in_any_table_disturbs_no_service_that_runs() {
    scratch::test(async |scratch| {
        let organization = scratch.database.create_organization("Acme", None).await.unwrap();
        let id = Uuid::now_v7();
        let insert = "INSERT INTO webhooks (id, organization_id, name, url, format, headers, signature,
                          max_in_flight, timeout_ms)
                      VALUES ($1, $2, 'first', 'http://1.1.1.1/', 'standard', '', 'v1', 1, 1000)";
        scratch.client.execute(insert, &[&id, &organization.id.0]).await.unwrap();
        let secret = "INSERT INTO secrets (id, webhook_id, sealed) VALUES ($1, $1, '')";
        scratch.client.execute(secret, &[&id]).await.unwrap();
        let webhook = scratch.database.webhook_of(organization.id, WebhookId(id)).await.unwrap().unwrap();
        use_all(scratch, &organization, &webhook).await;

        let tables = "SELECT relname FROM pg_class
                      WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition";
        let mut altered = 0;
        for row in scratch.client.query(tables, &[]).await.unwrap() {
            let alter = format!("ALTER TABLE {} ADD COLUMN of_a_newer_version text", row.get::<_, &str>(0));
            scratch.client.batch_execute(&alter).await.unwrap();
            altered += 1;
        }
        assert!(altered >= 10, "{altered} tables");
        use_all(scratch, &organization, &webhook).await;
    });
}
