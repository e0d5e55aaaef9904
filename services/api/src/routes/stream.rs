//! The stream of events: the log as it grows, as server-sent events.
//!
//! Each listener polls the log by itself; nothing is read while nobody listens. It is for people who watch and
//! for tools; what must not miss anything is a webhook.

use std::convert::Infallible;
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::sse::{Event as Message, KeepAlive, Sse};
use cuewire::db::events::{EventPlace, StoredEvent};
use cuewire::db::partitions::today;
use cuewire::ids::OrganizationId;
use cuewire::metrics::Counted;
use futures_util::stream::{self, Stream, StreamExt};
use time::OffsetDateTime;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::events::Place;
use crate::Api;
use crate::auth::Viewer;
use crate::error::Problem;
use crate::page;
use crate::quota::{Full, Quota, Share};

const POLL_EVERY: Duration = Duration::from_millis(500);
/// Routers log in parallel, and a row may appear after one that is newer: what is younger than this waits.
const SETTLES_AFTER: Duration = Duration::from_secs(1);
/// Events read at a time: 25 MB at most.
const EVENTS_PER_POLL: usize = 100;
/// A listener then comes back with its `Last-Event-ID`, and its key is looked at again.
const LONGEST_STREAM: Duration = Duration::from_secs(15 * 60);
/// Proxies close what is silent for half a minute.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Each costs the database two small queries a second.
const MAX_LISTENERS: usize = 100;
const MAX_OWN_LISTENERS: usize = 10;
const LAST_EVENT_ID: &str = "last-event-id";

pub(super) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(listen))
}

/// Who may listen at a time.
pub(crate) fn listeners() -> Quota {
    Quota::new(MAX_LISTENERS, MAX_OWN_LISTENERS)
}

/// Listen to the events as they are logged
///
/// Server-sent events: the `data` of each is the event in structured JSON, its `id` the place to go on from
/// with `Last-Event-ID`. Without that it begins now. An event appears one to two seconds after it was taken.
/// The stream ends after 15 minutes at the latest; clients are expected to come back.
#[utoipa::path(get, path = "/v1/events/stream", tag = "Events",
    params(("Last-Event-ID" = Option<String>, Header, description = "The `id` of the last event that was seen")),
    responses((status = 200, content_type = "text/event-stream", body = String,
        example = "id: WzI0NjEwMDUsMTc2OTg1MTgwMDAwMDAwMCwiL2VuY29kZXIvMyIsIjEiXQ\ndata: {\"specversion\":\"1.0\",\"id\":\"1\"}\n\n")))]
async fn listen(
    Viewer(caller): Viewer,
    State(api): State<Api>,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<Message, Infallible>>>, Problem> {
    let place = match headers.get(LAST_EVENT_ID).filter(|value| !value.is_empty()) {
        None => now(),
        Some(value) => {
            let place = value.to_str().ok().and_then(page::decode::<Place>).map(EventPlace::from);
            place.ok_or_else(|| Problem::invalid_field(LAST_EVENT_ID, "is none that was sent as `id`"))?
        }
    };
    let share = api.listeners.one(caller.organization).map_err(|full| match full {
        Full::All => Problem::unavailable("too many listen to the stream of events; try again"),
        Full::Own => Problem::too_many("too many of yours listen to the stream of events; close one", None),
    })?;
    let listener = Listener {
        organization: caller.organization,
        place,
        ends_at: Instant::now() + LONGEST_STREAM,
        seat: (share, Counted::new(&api.metrics.streams, 1)),
        api,
    };
    let batches = stream::unfold(listener, |mut listener| async {
        let batch = listener.next_batch().await?;
        Some((stream::iter(batch), listener))
    });
    Ok(Sse::new(batches.flatten()).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)))
}

/// Before all that is logged from now on.
fn now() -> EventPlace {
    EventPlace {
        day: today(),
        received_at: OffsetDateTime::now_utc(),
        source: String::new(),
        id: String::new(),
    }
}

/// One client's way through the log.
struct Listener {
    organization: OrganizationId,
    place: EventPlace,
    ends_at: Instant,
    api: Api,
    #[allow(dead_code, reason = "held until the client is gone")]
    seat: (Share, Counted),
}

impl Listener {
    /// Waits for events; none when the stream is to end.
    async fn next_batch(&mut self) -> Option<Vec<Result<Message, Infallible>>> {
        while Instant::now() < self.ends_at {
            let settled = OffsetDateTime::now_utc() - SETTLES_AFTER;
            let found =
                self.api.database.events_since(self.organization, &self.place, settled, EVENTS_PER_POLL);
            let found = self.api.shutdown.run_until_stopped(found).await?.unwrap_or_else(|error| {
                tracing::debug!(%error, "the stream of events waits for the database");
                Vec::new()
            });
            if let Some(last) = found.last() {
                self.place = last.place.clone();
                return Some(found.iter().map(message).map(Ok).collect());
            }
            self.api.shutdown.run_until_stopped(tokio::time::sleep(POLL_EVERY)).await?;
        }
        None
    }
}

fn message(stored: &StoredEvent) -> Message {
    // JSON has line ends between its tokens alone, and a message is shorter without them.
    let json: String = String::from_utf8_lossy(&stored.payload)
        .chars()
        .map(|c| if matches!(c, '\n' | '\r') { ' ' } else { c })
        .collect();
    Message::default().id(page::encode(&Place::of(&stored.place))).data(json)
}
