//! Dead letters on record: what failed for good or was not understood, until it is redriven, deleted, or old.

mod read;

use std::time::Duration;

use time::OffsetDateTime;
use tokio_postgres::Row;
use uuid::Uuid;

use super::{Database, DbError};
use crate::amqp::grants::PUBLISHER_PREFIX;
use crate::amqp::topology::EVENTS;
use crate::event::Event;
use crate::ids::{DeadLetterId, DeliveryId, OrganizationId, Round, WebhookId};
use crate::message::dead::{Claim, DeadDelivery};
use crate::message::{DeadMessage, Redrive};
use crate::webhook::OWN_CATEGORY;

pub use read::{DeadLetter, DeadLetterFilter, DeadLetterPage, DeadLetterPlace, StoredDeadLetter};

/// A dead letter to be put on record.
#[derive(Debug)]
pub struct Burial<'a> {
    /// What came to the reaper.
    pub message: &'a DeadMessage,
    /// The event in it, where it can be read.
    pub event: Option<Event>,
    /// The organization that it names, where its publisher may name any.
    pub claim: Option<Claim>,
    /// When it is sent again without being asked for.
    pub redrive_at: Option<OffsetDateTime>,
}

/// A dead letter that is due to be sent again without being asked for.
#[derive(Debug)]
pub struct DueRedrive {
    /// What it is sent again with.
    pub redrive: Redrive,
    /// Since when it is due.
    pub due: OffsetDateTime,
}

impl Database {
    /// Puts a batch on record, each id once, and notes that their organizations are to be told of deliveries among
    /// them. Answers those that were not on record before.
    ///
    /// A dead letter belongs to its delivery's organization, or to the one that its message names and its
    /// publisher may speak for, or else to nobody: the operator has it.
    pub async fn bury(&self, batch: &[Burial<'_>]) -> Result<Vec<DeadLetterId>, DbError> {
        let columns = Columns::of(batch);
        let connection = self.connection().await?;
        let statement = connection
            .prepare_cached(
                "WITH recorded AS (
                 INSERT INTO dead_letters (id, reason, detail, organization_id, category, event_source,
                     event_id, event_type, webhook_id, delivery_id, round, last_attempt, payload,
                     content_type, message_headers, exchange, routing_key, created_at, redrive_at)
                 SELECT id, reason, detail,
                        coalesce(organization_id,
                            (SELECT organizations.id FROM organizations
                             WHERE (external_id = named OR organizations.id = named_id)
                               AND (among IS NULL OR string_to_array(among, chr(10))
                                                     && ARRAY[external_id, organizations.id::text])
                             ORDER BY external_id = named DESC NULLS LAST LIMIT 1)),
                        category, event_source, event_id, event_type, webhook_id, delivery_id, round,
                        last_attempt, payload, content_type, message_headers, exchange, routing_key,
                        now(), redrive_at
                 FROM unnest($1::uuid[], $2::text[], $3::text[], $4::uuid[], $5::text[], $6::uuid[],
                         $7::text[], $8::text[], $9::text[], $10::text[], $11::uuid[], $12::uuid[],
                         $13::uuid[], $14::text[], $15::bytea[], $16::text[], $17::jsonb[], $18::text[],
                         $19::text[], $20::timestamptz[], $21::text[])
                     AS letter (id, reason, detail, organization_id, named, named_id, category,
                         event_source, event_id, event_type, webhook_id, delivery_id, round, last_attempt,
                         payload, content_type, message_headers, exchange, routing_key, redrive_at, among)
                 ON CONFLICT (id) DO NOTHING
                 RETURNING *
                 ), noted AS (
                 INSERT INTO notices (organization_id, webhook_id, type, data)
                 SELECT recorded.organization_id, webhook_id, 'webhook.delivery_failed',
                        json_strip_nulls(json_build_object('webhook_id', webhook_id, 'url', url,
                            'reason', reason, 'detail', detail, 'delivery_id', delivery_id,
                            'event_id', event_id, 'event_type', event_type))
                 FROM recorded JOIN organizations ON organizations.id = recorded.organization_id
                      LEFT JOIN webhooks ON webhooks.id = webhook_id
                 -- what tells of a delivery that failed must not cause more of it
                 WHERE delivery_id IS NOT NULL AND category <> $22
                 )
                 SELECT id FROM recorded",
            )
            .await?;
        let rows = connection
            .query(
                &statement,
                &[
                    &columns.ids,
                    &columns.reasons,
                    &columns.details,
                    &columns.organizations,
                    &columns.named,
                    &columns.named_ids,
                    &columns.categories,
                    &columns.event_sources,
                    &columns.event_ids,
                    &columns.event_types,
                    &columns.webhooks,
                    &columns.deliveries,
                    &columns.rounds,
                    &columns.last_attempts,
                    &columns.payloads,
                    &columns.content_types,
                    &columns.message_headers,
                    &columns.exchanges,
                    &columns.routing_keys,
                    &columns.redrive_at,
                    &columns.among,
                    &OWN_CATEGORY,
                ],
            )
            .await?;
        Ok(rows.iter().map(|row| DeadLetterId(row.get(0))).collect())
    }

    /// What a dead letter is sent again with; none where there is no such dead letter, or it is a message
    /// that was not understood.
    pub async fn redrive(&self, dead_letter: DeadLetterId) -> Result<Option<Redrive>, DbError> {
        let connection = self.connection().await?;
        let statement = connection
            .prepare_cached(&format!("SELECT {REDRIVE} FROM dead_letters WHERE id = $1 AND {}", redrivable()))
            .await?;
        let row = connection.query_opt(&statement, &[&dead_letter.0]).await?;
        Ok(row.as_ref().map(read_redrive))
    }

    /// Takes the right to send a dead letter again, for the length of the lease; whether nobody else has it,
    /// and nobody has sent it again.
    pub async fn claim_redrive(&self, dead_letter: DeadLetterId, lease: Duration) -> Result<bool, DbError> {
        let connection = self.connection().await?;
        let statement = connection
            .prepare_cached(&format!(
                "UPDATE dead_letters SET claimed_until = now() + make_interval(secs => $2)
                 WHERE id = $1 AND {FREE}"
            ))
            .await?;
        Ok(connection.execute(&statement, &[&dead_letter.0, &lease.as_secs_f64()]).await? > 0)
    }

    /// Gives back the right to send a dead letter again, which was not done.
    pub async fn release_redrive(&self, dead_letter: DeadLetterId) -> Result<(), DbError> {
        let connection = self.connection().await?;
        let statement =
            connection.prepare_cached("UPDATE dead_letters SET claimed_until = NULL WHERE id = $1").await?;
        connection.execute(&statement, &[&dead_letter.0]).await?;
        Ok(())
    }

    /// Takes at most `limit` dead letters that are due to be sent again without being asked for. Nobody else
    /// gets them for the length of the lease; those not marked by then are due again.
    pub async fn claim_due_redrives(&self, lease: Duration, limit: i64) -> Result<Vec<DueRedrive>, DbError> {
        let connection = self.connection().await?;
        let statement = connection
            .prepare_cached(&format!(
                "UPDATE dead_letters SET claimed_until = now() + make_interval(secs => $1)
                 WHERE id IN (
                     SELECT id FROM dead_letters WHERE redrive_at <= now() AND {FREE} AND {}
                     ORDER BY redrive_at LIMIT $2 FOR UPDATE SKIP LOCKED)
                 RETURNING {REDRIVE}, redrive_at",
                redrivable()
            ))
            .await?;
        let rows = connection.query(&statement, &[&lease.as_secs_f64(), &limit]).await?;
        let due = |row: &Row| DueRedrive { redrive: read_redrive(row), due: row.get("redrive_at") };
        Ok(rows.iter().map(due).collect())
    }

    /// Marks dead letters that were sent again; none of them is due any more.
    pub async fn mark_redriven(&self, dead_letters: &[DeadLetterId]) -> Result<(), DbError> {
        let ids: Vec<Uuid> = dead_letters.iter().map(|id| id.0).collect();
        let connection = self.connection().await?;
        let statement = connection
            .prepare_cached(
                "UPDATE dead_letters SET redriven_at = now(), redrive_at = NULL WHERE id = ANY ($1)",
            )
            .await?;
        connection.execute(&statement, &[&ids]).await?;
        Ok(())
    }
}

/// The columns of a [`Redrive`].
const REDRIVE: &str =
    "id, delivery_id, organization_id, webhook_id, round, last_attempt, exchange, event_source, event_id,
    event_type, category, payload";

/// The condition on a dead letter that nobody has sent again, or is about to.
const FREE: &str = "redriven_at IS NULL AND (claimed_until IS NULL OR claimed_until <= now())";

/// The condition on a dead letter that can be sent again: an event that was published as one, or a delivery.
fn redrivable() -> String {
    format!(
        "event_source IS NOT NULL AND event_id IS NOT NULL AND event_type IS NOT NULL
         AND CASE WHEN delivery_id IS NULL
             THEN exchange = '{EVENTS}' OR starts_with(exchange, '{PUBLISHER_PREFIX}')
             ELSE organization_id IS NOT NULL AND webhook_id IS NOT NULL AND round IS NOT NULL END"
    )
}

fn read_redrive(row: &Row) -> Redrive {
    let delivery = |delivery| DeadDelivery {
        delivery: DeliveryId(delivery),
        organization: OrganizationId(row.get("organization_id")),
        webhook: WebhookId(row.get("webhook_id")),
        round: Round(row.get("round")),
        last_attempt: row.get("last_attempt"),
    };
    Redrive {
        id: DeadLetterId(row.get("id")),
        delivery: row.get::<_, Option<Uuid>>("delivery_id").map(delivery),
        exchange: row.get("exchange"),
        source: row.get("event_source"),
        event_id: row.get("event_id"),
        event_type: row.get("event_type"),
        category: row.get("category"),
        event: bytes::Bytes::copy_from_slice(row.get("payload")),
    }
}

/// A batch by columns, as unnest wants it.
#[derive(Default)]
struct Columns<'a> {
    ids: Vec<Uuid>,
    reasons: Vec<&'static str>,
    details: Vec<String>,
    organizations: Vec<Option<Uuid>>,
    named: Vec<Option<&'a str>>,
    named_ids: Vec<Option<Uuid>>,
    categories: Vec<String>,
    event_sources: Vec<Option<&'a str>>,
    event_ids: Vec<Option<&'a str>>,
    event_types: Vec<Option<&'a str>>,
    webhooks: Vec<Option<Uuid>>,
    deliveries: Vec<Option<Uuid>>,
    rounds: Vec<Option<Uuid>>,
    last_attempts: Vec<Option<String>>,
    payloads: Vec<&'a [u8]>,
    content_types: Vec<Option<String>>,
    message_headers: Vec<serde_json::Value>,
    exchanges: Vec<String>,
    routing_keys: Vec<String>,
    redrive_at: Vec<Option<OffsetDateTime>>,
    among: Vec<Option<String>>,
}

impl<'a> Columns<'a> {
    fn of(batch: &'a [Burial<'a>]) -> Self {
        let mut columns = Self::default();
        for letter in batch {
            columns.push(letter);
        }
        columns
    }

    fn push(&mut self, letter: &'a Burial<'a>) {
        let Burial { message, event, claim, redrive_at } = letter;
        let (event, delivery) = (event.as_ref(), message.delivery.as_ref());
        let named = claim.as_ref().map(|claim| claim.organization.as_str());
        let among = claim.as_ref().and_then(|claim| claim.among.as_ref());
        let (exchange, routing_key) = &message.first;
        let category = event.map_or(message.category.as_str(), |event| event.event_type.category());
        self.ids.push(message.id.0);
        self.reasons.push(message.reason.as_str());
        self.details.push(without_nul(&message.detail));
        self.organizations.push(delivery.map(|delivery| delivery.organization.0));
        self.named.push(named);
        self.named_ids.push(named.and_then(|name| name.parse().ok()));
        self.categories.push(without_nul(category));
        self.event_sources.push(event.map(|event| event.source.as_str()));
        self.event_ids.push(event.map(|event| event.id.as_str()));
        self.event_types.push(event.map(|event| event.event_type.as_str()));
        self.webhooks.push(delivery.map(|delivery| delivery.webhook.0));
        self.deliveries.push(delivery.map(|delivery| delivery.delivery.0));
        self.rounds.push(delivery.map(|delivery| delivery.round.0));
        let last_attempt = delivery.and_then(|delivery| delivery.last_attempt.as_deref());
        self.last_attempts.push(last_attempt.map(without_nul));
        self.payloads.push(&message.body);
        self.content_types.push(message.content_type.as_deref().map(without_nul));
        self.message_headers.push(headers(message.first_headers.as_deref()));
        self.exchanges.push(without_nul(exchange));
        self.routing_keys.push(without_nul(routing_key));
        self.redrive_at.push(*redrive_at);
        // No name of an organization has a line's end in it.
        self.among.push(among.map(|names| names.join("\n")));
    }
}

/// Postgres has no NUL in text, and what was not understood may hold anything.
fn without_nul(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

/// Nor in JSON, where it hides as an escape.
fn headers(json: Option<&str>) -> serde_json::Value {
    fn clean(value: serde_json::Value) -> serde_json::Value {
        match value {
            serde_json::Value::String(text) => without_nul(&text).into(),
            serde_json::Value::Array(values) => values.into_iter().map(clean).collect(),
            serde_json::Value::Object(members) => {
                members.into_iter().map(|(name, value)| (without_nul(&name), clean(value))).collect()
            }
            other => other,
        }
    }
    let members = json.and_then(|json| serde_json::from_str(json).ok()).unwrap_or_default();
    clean(serde_json::Value::Object(members))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_an_object_without_nul_whatever_came() {
        let json = |text| headers(text).to_string();
        assert_eq!(
            json(Some(r#"{"a\u0000b":["x\u0000",{"y":"\u0000"}]}"#)),
            "{\"a\u{fffd}b\":[\"x\u{fffd}\",{\"y\":\"\u{fffd}\"}]}"
        );
        assert_eq!(json(None), "{}");
        assert_eq!(json(Some(r#"{"cut":"#)), "{}");
        assert_eq!(json(Some("[]")), "{}");
    }
}
