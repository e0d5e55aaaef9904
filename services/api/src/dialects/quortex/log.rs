//! The event log as Quortex I/O shows it: the newest events that carry an `application`.
//!
//! Ours: `timestamp` is the event's time (that of its arrival, where it has none), `workspace_uuid` comes of the
//! event's extension `workspaceuuid`, and a member without a value is null; the log goes back 10,000 events of the
//! organization, or 32 MiB of them, and what it counts is found among those; an organization's reads take turns, at
//! most 16 of them, and further ones are 429.

use axum::Json as Answer;
use axum::extract::{OriginalUri, State};
use axum::http::HeaderMap;
use cuewire::db::events::StoredEvent;
use cuewire::delivery::rfc3339;
use cuewire::event::Event;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::{IntoParams, ToSchema};

use super::pages::{Address, Filling, Page, read_size};
use crate::Api;
use crate::auth::Viewer;
use crate::error::Problem;
use crate::extract::LooseQuery;

const PATH: &str = "/platforms/quortex/1.0/events/";
const DEFAULT_PAGE_SIZE: usize = 100;

/// Which events are listed; empty is as good as nothing.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct LogQuery {
    application: Option<String>,
    /// Part of the message, in any case.
    in_message: Option<String>,
    /// From 1.
    #[param(value_type = Option<u32>)]
    page: Option<String>,
    /// 1 to 1,000; 100 unless given.
    #[param(value_type = Option<u32>)]
    page_size: Option<String>,
    pool_uuid: Option<String>,
    resource_uuid: Option<String>,
    workspace_uuid: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = QuortexEvent)]
pub(super) struct Entry {
    #[schema(format = DateTime)]
    timestamp: String,
    message: Option<String>,
    pool_uuid: Option<String>,
    workspace_uuid: Option<String>,
    resource_uuid: Option<String>,
    application: String,
}

/// List the newest events
#[utoipa::path(get, path = "/1.0/events", tag = "Platform: Quortex", operation_id = "quortex_events",
    params(LogQuery), responses((status = 200, body = Page<Entry>)))]
pub(super) async fn list(
    Viewer(caller): Viewer,
    State(api): State<Api>,
    LooseQuery(query): LooseQuery<LogQuery>,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
) -> Result<Answer<Page<Entry>>, Problem> {
    let query = query.trimmed();
    let size = read_size(query.page_size.as_deref());
    let mut filling = Filling::new(query.page.as_deref(), size.unwrap_or(DEFAULT_PAGE_SIZE))?;
    let turn = api.log_turns.wait(caller.organization).await?;
    let look = |stored: StoredEvent| {
        if let Some(entry) = Entry::of(stored).filter(|entry| query.wants(entry)) {
            filling.push(|| entry);
        }
    };
    api.database.newest_events(caller.organization, look).await?;
    drop(turn);
    let address = Address::new(PATH, &uri, &headers)
        .with("page_size", size)
        .with("application", query.application)
        .with("in_message", query.in_message)
        .with("pool_uuid", query.pool_uuid)
        .with("resource_uuid", query.resource_uuid)
        .with("workspace_uuid", query.workspace_uuid);
    filling.finish(&address).map(Answer)
}

impl LogQuery {
    fn trimmed(mut self) -> Self {
        let texts = [
            &mut self.application,
            &mut self.in_message,
            &mut self.pool_uuid,
            &mut self.resource_uuid,
            &mut self.workspace_uuid,
        ];
        for text in texts {
            *text = text.take().filter(|text| !text.is_empty());
        }
        self
    }

    fn wants(&self, entry: &Entry) -> bool {
        let same = |wanted: &Option<String>, own: Option<&str>| {
            wanted.as_deref().is_none_or(|wanted| own == Some(wanted))
        };
        let has = |part: &str| {
            entry.message.as_deref().is_some_and(|text| text.to_lowercase().contains(&part.to_lowercase()))
        };
        same(&self.application, Some(&entry.application))
            && same(&self.pool_uuid, entry.pool_uuid.as_deref())
            && same(&self.resource_uuid, entry.resource_uuid.as_deref())
            && same(&self.workspace_uuid, entry.workspace_uuid.as_deref())
            && self.in_message.as_deref().is_none_or(has)
    }
}

impl Entry {
    /// None where the event is none of the platform's.
    fn of(stored: StoredEvent) -> Option<Self> {
        let received_at: OffsetDateTime = stored.place.received_at;
        let event = Event::from_json(&stored.payload.into()).ok()?;
        let text = |name: &str| event.extension(name).map(str::to_owned);
        Some(Self {
            timestamp: rfc3339(event.timestamp().unwrap_or(received_at)),
            message: text("message"),
            pool_uuid: text("pooluuid"),
            workspace_uuid: text("workspaceuuid"),
            application: text("application")?,
            resource_uuid: event.subject,
        })
    }
}
