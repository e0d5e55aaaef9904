//! Webhooks and their secrets; how they fare is in `health`, how they are managed in `manage`.

mod health;
mod manage;

use std::collections::HashMap;
use std::time::Duration;

use time::OffsetDateTime;
use tokio_postgres::Row;
use tokio_postgres::types::FromSql;
use uuid::Uuid;

use super::{Database, DbError};
use crate::formats::{Format, Owner};
use crate::ids::{OrganizationId, WebhookId};
use crate::retry::Schedule;
use crate::signature::Scheme;
use crate::webhook::{Breaker, Pattern, Subscription, Webhook};

pub use health::{Opening, Told};
pub use manage::{Failing, RotatedSecret};

/// The columns of `webhooks`, by name: a statement that a service has prepared answers with the same columns
/// as before when a newer version adds one, or not at all.
macro_rules! columns {
    () => {
        "id, number, organization_id, name, description, url, enabled, disabled_reason, format, event_types,
         filter, headers, signature, rate_limit_per_second, max_in_flight, timeout_ms, retry_schedule_ms,
         created_at, updated_at"
    };
}

/// Those that a statement returns which writes a webhook.
const COLUMNS: &str = columns!();

/// The columns of [`Webhook`], of `webhooks` joined with its health.
const WEBHOOK: &str = concat!(
    "SELECT webhooks.*, first_failed_at, opened_at, probes, next_probe_at
     FROM (SELECT ",
    columns!(),
    " FROM webhooks) AS webhooks
     LEFT JOIN webhook_health ON webhook_health.webhook_id = webhooks.id"
);

/// A page of subscriptions, when all are loaded: large enough that a million take a few hundred round trips.
const SUBSCRIPTIONS_PER_PAGE: i64 = 5_000;

/// A page of subscriptions, ordered by the webhook's id.
#[derive(Debug)]
pub struct SubscriptionPage {
    /// Those that can be read.
    pub subscriptions: Vec<Subscription>,
    /// Where the next page begins; none: this is behind the last.
    pub last: Option<WebhookId>,
}

/// A webhook with its organization and its sealed secrets, the newest first: what a sender needs.
#[derive(Debug)]
pub struct Target {
    /// The webhook.
    pub webhook: Webhook,
    /// Whose it is.
    pub owner: Owner,
    /// Its secrets that have not expired, still sealed, and when they do.
    pub secrets: Vec<SealedSecret>,
}

/// A secret as it is stored.
#[derive(Debug, Clone)]
pub struct SealedSecret {
    /// To be opened with the vault.
    pub sealed: Vec<u8>,
    /// When it was made.
    pub created_at: OffsetDateTime,
    /// When it ends, if it was replaced.
    pub expires_at: Option<OffsetDateTime>,
}

impl Database {
    /// A webhook with its secrets, or none if it does not exist.
    pub async fn target(&self, webhook: WebhookId) -> Result<Option<Target>, DbError> {
        self.targets(&[webhook]).await?.remove(&webhook).transpose()
    }

    /// Those of these webhooks that exist, with their secrets; the inner error is of one that cannot be read.
    pub async fn targets(
        &self,
        webhooks: &[WebhookId],
    ) -> Result<HashMap<WebhookId, Result<Target, DbError>>, DbError> {
        let webhooks: Vec<Uuid> = webhooks.iter().map(|webhook| webhook.0).collect();
        let connection = self.connection().await?;
        let statement = connection
            .prepare_cached(&format!(
                "SELECT webhook.*, organizations.name AS owner_name,
                     organizations.external_id AS owner_external_id
                 FROM ({WEBHOOK} WHERE webhooks.id = ANY ($1)) AS webhook
                     JOIN organizations ON organizations.id = webhook.organization_id"
            ))
            .await?;
        let rows = connection.query(&statement, &[&webhooks]).await?;
        let statement = connection
            .prepare_cached(
                "SELECT webhook_id, sealed, created_at, expires_at FROM secrets
                 WHERE webhook_id = ANY ($1) AND (expires_at IS NULL OR expires_at > now())
                 ORDER BY created_at DESC, id DESC",
            )
            .await?;
        let mut secrets: HashMap<WebhookId, Vec<SealedSecret>> = HashMap::new();
        for row in connection.query(&statement, &[&webhooks]).await? {
            secrets.entry(WebhookId(row.get("webhook_id"))).or_default().push(SealedSecret {
                sealed: row.get("sealed"),
                created_at: row.get("created_at"),
                expires_at: row.get("expires_at"),
            });
        }
        let target = |row: &Row| {
            let id = WebhookId(row.get("id"));
            let secrets = secrets.remove(&id).unwrap_or_default();
            let read = || Ok(Target { webhook: read_webhook(row)?, owner: read_owner(row)?, secrets });
            (id, read())
        };
        Ok(rows.iter().map(target).collect())
    }

    /// The subscriptions of all enabled webhooks, page by page: those after `after`.
    pub async fn subscriptions(&self, after: Option<WebhookId>) -> Result<SubscriptionPage, DbError> {
        let connection = self.connection().await?;
        let statement = connection
            .prepare_cached(
                "SELECT id, organization_id, event_types, filter FROM webhooks
                 WHERE enabled AND id > $1 ORDER BY id LIMIT $2",
            )
            .await?;
        let after = after.map_or(uuid::Uuid::nil(), |webhook| webhook.0);
        let rows = connection.query(&statement, &[&after, &SUBSCRIPTIONS_PER_PAGE]).await?;
        Ok(SubscriptionPage {
            subscriptions: rows.iter().filter_map(read_subscription).collect(),
            last: rows.last().map(|row| WebhookId(row.get("id"))),
        })
    }

    /// The subscriptions of one organization's enabled webhooks.
    pub async fn subscriptions_of(&self, organization: OrganizationId) -> Result<Vec<Subscription>, DbError> {
        let connection = self.connection().await?;
        let statement = connection
            .prepare_cached(
                "SELECT id, organization_id, event_types, filter FROM webhooks
                 WHERE enabled AND organization_id = $1",
            )
            .await?;
        let rows = connection.query(&statement, &[&organization.0]).await?;
        Ok(rows.iter().filter_map(read_subscription).collect())
    }
}

/// A subscription, or none where the row holds what this version cannot read: one such webhook must not
/// keep all others from their events.
fn read_subscription(row: &Row) -> Option<Subscription> {
    let webhook = WebhookId(row.get("id"));
    match (read_patterns(row), read_filter(row)) {
        (Ok(event_types), Ok(filter)) => Some(Subscription {
            webhook,
            organization: OrganizationId(row.get("organization_id")),
            event_types,
            filter,
        }),
        (Err(error), _) | (_, Err(error)) => {
            tracing::error!(%webhook, %error, "a webhook that cannot be read gets no events");
            None
        }
    }
}

fn read_patterns(row: &Row) -> Result<Vec<Pattern>, DbError> {
    let patterns: Vec<&str> = row.get("event_types");
    patterns.into_iter().map(Pattern::parse).collect::<Result<_, _>>().map_err(DbError::Unreadable)
}

fn read_filter(row: &Row) -> Result<Option<crate::filter::Filter>, DbError> {
    let filter: Option<&str> = row.get("filter");
    filter
        .map(crate::filter::Filter::parse)
        .transpose()
        .map_err(|error| DbError::Unreadable(format!("a filter: {error}")))
}

fn read_owner(row: &Row) -> Result<Owner, DbError> {
    Ok(Owner {
        id: OrganizationId(column(row, "organization_id")?),
        name: column(row, "owner_name")?,
        external_id: column(row, "owner_external_id")?,
    })
}

fn read_webhook(row: &Row) -> Result<Webhook, DbError> {
    let unreadable = |what: &str| DbError::Unreadable(format!("a webhook's {what}"));
    let schedule: Option<Vec<i64>> = column(row, "retry_schedule_ms")?;
    Ok(Webhook {
        id: WebhookId(column(row, "id")?),
        number: column(row, "number")?,
        organization: OrganizationId(column(row, "organization_id")?),
        name: column(row, "name")?,
        description: column(row, "description")?,
        url: column(row, "url")?,
        enabled: column(row, "enabled")?,
        disabled_reason: column(row, "disabled_reason")?,
        first_failed_at: column(row, "first_failed_at")?,
        breaker: read_breaker(row)?,
        format: Format::parse(column(row, "format")?).ok_or_else(|| unreadable("format"))?,
        event_types: read_patterns(row)?,
        filter: column(row, "filter")?,
        sealed_headers: column(row, "headers")?,
        signature: match column(row, "signature")? {
            "v1a" => Scheme::V1a,
            _ => Scheme::V1,
        },
        own_rate_limit: column::<Option<i32>>(row, "rate_limit_per_second")?.map(i32::unsigned_abs),
        max_in_flight: column::<i32>(row, "max_in_flight")?.unsigned_abs(),
        timeout: Duration::from_millis(u64::from(column::<i32>(row, "timeout_ms")?.unsigned_abs())),
        retry_schedule: schedule.as_deref().map(Schedule::from_millis),
        created_at: column(row, "created_at")?,
        updated_at: column(row, "updated_at")?,
    })
}

fn read_breaker(row: &Row) -> Result<Option<Breaker>, DbError> {
    let (opened_at, probes, next_probe_at): (Option<_>, Option<i32>, Option<_>) =
        (column(row, "opened_at")?, column(row, "probes")?, column(row, "next_probe_at")?);
    let breaker = |((opened_at, probes), next_probe_at): ((_, i32), _)| Breaker {
        opened_at,
        probes: probes.unsigned_abs(),
        next_probe_at,
    };
    Ok(opened_at.zip(probes).zip(next_probe_at).map(breaker))
}

/// A column's value. One that is not as the schema has it, such as a time without an end, is of this row alone.
fn column<'a, T: FromSql<'a>>(row: &'a Row, name: &str) -> Result<T, DbError> {
    row.try_get(name).map_err(|error| DbError::Unreadable(format!("a webhook's {name}: {error}")))
}
