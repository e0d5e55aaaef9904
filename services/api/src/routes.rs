//! The routes of the API, one idea a file.

mod api_keys;
mod attempts;
mod dead_letters;
mod deliveries;
mod event_types;
mod events;
pub(crate) mod ingest;
mod organizations;
mod secrets;
pub(crate) mod stream;
mod test_call;
mod times;
mod webhooks;

use utoipa_axum::router::OpenApiRouter;

use crate::Api;

/// All of them.
pub(crate) fn all() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .merge(ingest::routes())
        .merge(events::routes())
        .merge(stream::routes())
        .merge(webhooks::routes())
        .merge(secrets::routes())
        .merge(test_call::routes())
        .merge(attempts::routes())
        .merge(deliveries::routes())
        .merge(dead_letters::routes())
        .merge(event_types::routes())
        .merge(organizations::routes())
        .merge(api_keys::routes())
}
