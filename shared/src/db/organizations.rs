//! Organizations: the tenants.

use uuid::Uuid;

use super::{Database, DbError};
use crate::ids::OrganizationId;

impl Database {
    /// The organization that an event's `organization` names: by its id, or by its name in the upstream
    /// platform (which is never a UUID).
    pub async fn organization_named(&self, name: &str) -> Result<Option<OrganizationId>, DbError> {
        let connection = self.connection().await?;
        let statement = connection
            .prepare_cached("SELECT id FROM organizations WHERE external_id = $1 OR id = $2")
            .await?;
        let row = connection.query_opt(&statement, &[&name, &name.parse::<Uuid>().ok()]).await?;
        Ok(row.map(|row| OrganizationId(row.get(0))))
    }

    /// Every organization with its name in the upstream platform.
    pub async fn organization_names(&self) -> Result<Vec<(OrganizationId, Option<String>)>, DbError> {
        let rows = self.connection().await?.query("SELECT id, external_id FROM organizations", &[]).await?;
        Ok(rows.iter().map(|row| (OrganizationId(row.get(0)), row.get(1))).collect())
    }

    /// One organization's name in the upstream platform; the outer `None`: there is no such organization.
    pub async fn organization_name(
        &self,
        organization: OrganizationId,
    ) -> Result<Option<Option<String>>, DbError> {
        let connection = self.connection().await?;
        let row = connection
            .query_opt("SELECT external_id FROM organizations WHERE id = $1", &[&organization.0])
            .await?;
        Ok(row.map(|row| row.get(0)))
    }
}
