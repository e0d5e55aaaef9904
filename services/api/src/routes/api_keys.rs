//! API keys: the operator's of any organization, an admin's of the own.

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use cuewire::db::DbError;
use cuewire::db::api_keys::{ApiKey, Role};
use cuewire::delivery::rfc3339;
use cuewire::ids::{ApiKeyId, OrganizationId};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::organizations;
use crate::Api;
use crate::auth::{Admin, NewKey, Operator};
use crate::checks::{Checks, MAX_NAME_BYTES};
use crate::error::Problem;
use crate::extract::{Json, Path, Query};
use crate::page::{Page, PageQuery};

pub(super) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(create, list))
        .routes(routes!(read, delete))
        .routes(routes!(create_for, list_of))
        .routes(routes!(delete_of))
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"name": "publisher", "role": "editor"}))]
struct NewApiKey {
    /// A name, to know it again; need not be unique.
    name: String,
    /// `viewer`, `editor` or `admin`.
    role: String,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ApiKey, example = json!({
    "id": "0190a6f2-4c1e-7b52-9c7d-2f6f1f3f8a11", "name": "publisher", "role": "editor",
    "created_at": "2026-01-31T09:30:00.000Z"
}))]
struct ApiKeyView {
    id: Uuid,
    name: String,
    /// `viewer`, `editor` or `admin`.
    role: &'static str,
    created_at: String,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = MadeApiKey, example = json!({
    "id": "0190a6f2-4c1e-7b52-9c7d-2f6f1f3f8a11", "name": "publisher", "role": "editor",
    "created_at": "2026-01-31T09:30:00.000Z", "key": "cw_5Vt0o0Vb1fGxUqY5T4c0JmJ1aQv0sJ8mQe3w2X9Zk1c"
}))]
struct MadeApiKey {
    #[serde(flatten)]
    view: ApiKeyView,
    /// The key itself. It is shown this once, and cannot be read again.
    key: String,
}

/// Make a key of one's own organization
#[utoipa::path(post, path = "/v1/api-keys", tag = "API keys", request_body = NewApiKey,
    responses((status = 201, body = MadeApiKey)))]
async fn create(
    Admin(caller): Admin,
    State(api): State<Api>,
    Json(new): Json<NewApiKey>,
) -> Result<impl IntoResponse, Problem> {
    make(&api, caller.organization, new).await
}

/// Make a key of an organization
#[utoipa::path(post, path = "/v1/organizations/{id}/api-keys", tag = "API keys", params(("id" = Uuid, Path)),
    request_body = NewApiKey,
    responses((status = 201, body = MadeApiKey), (status = 404, description = "There is no such organization")))]
async fn create_for(
    _: Operator,
    State(api): State<Api>,
    Path(organization): Path<OrganizationId>,
    Json(new): Json<NewApiKey>,
) -> Result<impl IntoResponse, Problem> {
    make(&api, organization, new).await
}

async fn make(
    api: &Api,
    organization: OrganizationId,
    new: NewApiKey,
) -> Result<impl IntoResponse + use<>, Problem> {
    let mut checks = Checks::default();
    let name = checks.line("name", new.name, MAX_NAME_BYTES);
    let role = Role::parse(&new.role)
        .ok_or_else(|| format!("is {:?}, and must be viewer, editor or admin", new.role));
    let role = checks.take("role", role);
    checks.finish()?;
    let NewKey { text, sha256 } = NewKey::generate();
    let (name, role) = (name.unwrap_or_default(), role.unwrap_or(Role::Viewer));
    let key = api.database.create_api_key(organization, &name, role, &sha256).await;
    let key = key.map_err(|error| match error {
        DbError::Conflict(_) => organizations::none(),
        other => other.into(),
    })?;
    let location = format!("/v1/api-keys/{}", key.id);
    let made = MadeApiKey { view: ApiKeyView::of(key), key: text };
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], axum::Json(made)))
}

/// List the keys of one's own organization
#[utoipa::path(get, path = "/v1/api-keys", tag = "API keys", params(PageQuery),
    responses((status = 200, body = Page<ApiKeyView>)))]
async fn list(
    Admin(caller): Admin,
    State(api): State<Api>,
    Query(query): Query<PageQuery>,
) -> Result<axum::Json<Page<ApiKeyView>>, Problem> {
    page_of(&api, caller.organization, query).await
}

/// List the keys of an organization
#[utoipa::path(get, path = "/v1/organizations/{id}/api-keys", tag = "API keys",
    params(("id" = Uuid, Path), PageQuery),
    responses((status = 200, body = Page<ApiKeyView>),
        (status = 404, description = "There is no such organization")))]
async fn list_of(
    _: Operator,
    State(api): State<Api>,
    Path(organization): Path<OrganizationId>,
    Query(query): Query<PageQuery>,
) -> Result<axum::Json<Page<ApiKeyView>>, Problem> {
    api.database.organization(organization).await?.ok_or_else(organizations::none)?;
    page_of(&api, organization, query).await
}

async fn page_of(
    api: &Api,
    organization: OrganizationId,
    query: PageQuery,
) -> Result<axum::Json<Page<ApiKeyView>>, Problem> {
    let (limit, before) = query.read()?;
    let keys = api.database.api_keys(organization, before, limit).await?;
    Ok(axum::Json(Page::of(keys, limit, |key| key.id, ApiKeyView::of)))
}

/// Read a key of one's own organization
///
/// What is known of it: the key itself was shown when it was made, and cannot be read again.
#[utoipa::path(get, path = "/v1/api-keys/{id}", tag = "API keys", params(("id" = Uuid, Path)),
    responses((status = 200, body = ApiKeyView), (status = 404, description = "There is none")))]
async fn read(
    Admin(caller): Admin,
    State(api): State<Api>,
    Path(key): Path<ApiKeyId>,
) -> Result<axum::Json<ApiKeyView>, Problem> {
    let found = api.database.api_key(caller.organization, key).await?;
    Ok(axum::Json(ApiKeyView::of(found.ok_or_else(none)?)))
}

/// Delete a key of one's own organization
///
/// It ends within a second. The caller's own key may be deleted too.
#[utoipa::path(delete, path = "/v1/api-keys/{id}", tag = "API keys", params(("id" = Uuid, Path)),
    responses((status = 204, description = "It is gone"), (status = 404, description = "There is none")))]
async fn delete(
    Admin(caller): Admin,
    State(api): State<Api>,
    Path(key): Path<ApiKeyId>,
) -> Result<StatusCode, Problem> {
    end(&api, caller.organization, key).await
}

/// Delete a key of an organization
#[utoipa::path(delete, path = "/v1/organizations/{id}/api-keys/{key}", tag = "API keys",
    params(("id" = Uuid, Path), ("key" = Uuid, Path)),
    responses((status = 204, description = "It is gone"), (status = 404, description = "There is none")))]
async fn delete_of(
    _: Operator,
    State(api): State<Api>,
    Path((organization, key)): Path<(OrganizationId, ApiKeyId)>,
) -> Result<StatusCode, Problem> {
    end(&api, organization, key).await
}

async fn end(api: &Api, organization: OrganizationId, key: ApiKeyId) -> Result<StatusCode, Problem> {
    let deleted = api.database.delete_api_key(organization, key).await?;
    if deleted { Ok(StatusCode::NO_CONTENT) } else { Err(none()) }
}

fn none() -> Problem {
    Problem::no_such("API key")
}

impl ApiKeyView {
    fn of(key: ApiKey) -> Self {
        Self { id: key.id.0, name: key.name, role: key.role.as_str(), created_at: rfc3339(key.created_at) }
    }
}
