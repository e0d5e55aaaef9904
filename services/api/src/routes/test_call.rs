//! To come.
use crate::Api;
use utoipa_axum::router::OpenApiRouter;
pub(super) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
}
