//! To come.
use crate::Api;
use utoipa_axum::router::OpenApiRouter;
#[derive(Default)]
pub(crate) struct Listeners;
pub(super) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
}
