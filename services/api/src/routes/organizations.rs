//! Organizations, for the operator.

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use cuewire::db::DbError;
use cuewire::db::organizations::{Organization, OrganizationChange};
use cuewire::delivery::rfc3339;
use cuewire::ids::OrganizationId;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use crate::Api;
use crate::auth::Operator;
use crate::checks::{Checks, MAX_NAME_BYTES};
use crate::error::Problem;
use crate::extract::{Json, Path, Query, given};
use crate::page::{self, Page};

/// As long as an upstream's own ids ever are; it is indexed, and travels with every event.
const MAX_EXTERNAL_ID_BYTES: usize = 255;

pub(super) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(create, list)).routes(routes!(read, change, delete))
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"name": "Acme TV", "external_id": "acme"}))]
struct NewOrganization {
    /// A name; need not be unique.
    name: String,
    /// The tenant's name in the upstream platform: unique, and no other organization's id. An event's
    /// `organization` may be it.
    external_id: Option<String>,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = OrganizationChange, example = json!({"name": "Acme Television"}))]
struct ChangedOrganization {
    /// A new name.
    name: Option<String>,
    /// A new name in the upstream platform; null takes it away.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    external_id: Option<Option<String>>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Organization, example = json!({
    "id": "0190a6f2-4c1e-7b52-9c7d-2f6f1f3f8a10", "name": "Acme TV", "external_id": "acme",
    "created_at": "2026-01-31T09:30:00.000Z", "updated_at": "2026-01-31T09:30:00.000Z"
}))]
struct OrganizationView {
    id: Uuid,
    name: String,
    external_id: Option<String>,
    created_at: String,
    updated_at: String,
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ListQuery {
    /// Only the organization of this name in the upstream platform.
    external_id: Option<String>,
    /// Entries on the page: 1 to 1,000, 50 unless given.
    #[param(value_type = Option<u32>)]
    limit: Option<String>,
    /// The `next_cursor` of the page before.
    cursor: Option<String>,
}

/// Make an organization
#[utoipa::path(post, path = "/v1/organizations", tag = "Organizations", request_body = NewOrganization,
    responses((status = 201, body = OrganizationView), (status = 409, description = "The external id is taken")))]
async fn create(
    _: Operator,
    State(api): State<Api>,
    Json(new): Json<NewOrganization>,
) -> Result<impl IntoResponse, Problem> {
    let mut checks = Checks::default();
    let name = checks.line("name", new.name, MAX_NAME_BYTES);
    let external_id =
        new.external_id.and_then(|text| checks.line("external_id", text, MAX_EXTERNAL_ID_BYTES));
    checks.finish()?;
    not_an_id(&api, external_id.as_deref(), None).await?;
    let created = api.database.create_organization(&name.unwrap_or_default(), external_id.as_deref()).await;
    let view = OrganizationView::of(created.map_err(taken)?);
    let location = format!("/v1/organizations/{}", view.id);
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], axum::Json(view)))
}

/// List the organizations
#[utoipa::path(get, path = "/v1/organizations", tag = "Organizations", params(ListQuery),
    responses((status = 200, body = Page<OrganizationView>)))]
async fn list(
    _: Operator,
    State(api): State<Api>,
    Query(query): Query<ListQuery>,
) -> Result<axum::Json<Page<OrganizationView>>, Problem> {
    let mut checks = Checks::default();
    let (limit, before) = page::read(&mut checks, query.limit, query.cursor);
    let external_id =
        query.external_id.and_then(|text| checks.line("external_id", text, MAX_EXTERNAL_ID_BYTES));
    checks.finish()?;
    let found = api.database.organizations(external_id.as_deref(), before, limit).await?;
    Ok(axum::Json(Page::of(found, limit, |organization| organization.id, OrganizationView::of)))
}

/// Read an organization
#[utoipa::path(get, path = "/v1/organizations/{id}", tag = "Organizations", params(("id" = Uuid, Path)),
    responses((status = 200, body = OrganizationView), (status = 404, description = "There is none")))]
async fn read(
    _: Operator,
    State(api): State<Api>,
    Path(id): Path<OrganizationId>,
) -> Result<axum::Json<OrganizationView>, Problem> {
    let found = api.database.organization(id).await?.ok_or_else(none)?;
    Ok(axum::Json(OrganizationView::of(found)))
}

/// Change an organization
#[utoipa::path(patch, path = "/v1/organizations/{id}", tag = "Organizations", params(("id" = Uuid, Path)),
    request_body = ChangedOrganization,
    responses((status = 200, body = OrganizationView), (status = 404, description = "There is none"),
        (status = 409, description = "The external id is taken")))]
async fn change(
    _: Operator,
    State(api): State<Api>,
    Path(id): Path<OrganizationId>,
    Json(changed): Json<ChangedOrganization>,
) -> Result<axum::Json<OrganizationView>, Problem> {
    let mut checks = Checks::default();
    let name = changed.name.and_then(|text| checks.line("name", text, MAX_NAME_BYTES));
    let external_id = changed
        .external_id
        .map(|text| text.and_then(|text| checks.line("external_id", text, MAX_EXTERNAL_ID_BYTES)));
    checks.finish()?;
    not_an_id(&api, external_id.as_ref().and_then(Option::as_deref), Some(id)).await?;
    let change = OrganizationChange { name, external_id };
    let changed = api.database.change_organization(id, &change).await.map_err(taken)?.ok_or_else(none)?;
    Ok(axum::Json(OrganizationView::of(changed)))
}

/// Delete an organization with its keys and webhooks
///
/// Deliveries under way become dead letters. Its events stay in the log until their day is dropped.
#[utoipa::path(delete, path = "/v1/organizations/{id}", tag = "Organizations", params(("id" = Uuid, Path)),
    responses((status = 204, description = "It is gone"), (status = 404, description = "There is none")))]
async fn delete(
    _: Operator,
    State(api): State<Api>,
    Path(id): Path<OrganizationId>,
) -> Result<StatusCode, Problem> {
    let deleted = api.database.delete_organization(id).await?;
    if deleted { Ok(StatusCode::NO_CONTENT) } else { Err(none()) }
}

pub(super) fn none() -> Problem {
    Problem::no_such("organization")
}

fn taken(error: DbError) -> Problem {
    match error {
        DbError::Conflict(_) => {
            Problem::conflict("`external_id` is another organization's; choose another one")
        }
        other => other.into(),
    }
}

/// Platforms name their tenants by UUIDs too; one that is another organization's id would take its events.
async fn not_an_id(api: &Api, external_id: Option<&str>, own: Option<OrganizationId>) -> Result<(), Problem> {
    let Some(id) = external_id.and_then(|text| text.parse::<OrganizationId>().ok()) else { return Ok(()) };
    let others = own != Some(id) && api.database.organization(id).await?.is_some();
    if others { Err(taken(DbError::Conflict(id.to_string()))) } else { Ok(()) }
}

impl OrganizationView {
    fn of(organization: Organization) -> Self {
        Self {
            id: organization.id.0,
            name: organization.name,
            external_id: organization.external_id,
            created_at: rfc3339(organization.created_at),
            updated_at: rfc3339(organization.updated_at),
        }
    }
}
