//! Organizations: the tenants.

use time::OffsetDateTime;
use tokio_postgres::Row;
use uuid::Uuid;

use super::{Database, DbError};
use crate::ids::OrganizationId;

/// A tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Organization {
    /// Its id, ordered by the time of its making.
    pub id: OrganizationId,
    /// Its name; need not be unique.
    pub name: String,
    /// Its name in the upstream platform: unique, and no other organization's id.
    pub external_id: Option<String>,
    /// When it was made.
    pub created_at: OffsetDateTime,
    /// When it was last changed.
    pub updated_at: OffsetDateTime,
}

/// What changes of an organization; none: it stays.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OrganizationChange {
    /// A new name.
    pub name: Option<String>,
    /// A new name in the upstream platform, or none any more.
    pub external_id: Option<Option<String>>,
}

impl Database {
    /// Makes an organization. [`DbError::Conflict`] when its external id is another's.
    pub async fn create_organization(
        &self,
        name: &str,
        external_id: Option<&str>,
    ) -> Result<Organization, DbError> {
        let row = self
            .connection()
            .await?
            .query_one(
                "INSERT INTO organizations (id, name, external_id) VALUES ($1, $2, $3) RETURNING *",
                &[&OrganizationId::new().0, &name, &external_id],
            )
            .await?;
        Ok(read_organization(&row))
    }

    /// An organization, or none if it does not exist.
    pub async fn organization(&self, id: OrganizationId) -> Result<Option<Organization>, DbError> {
        let connection = self.connection().await?;
        let row = connection.query_opt("SELECT * FROM organizations WHERE id = $1", &[&id.0]).await?;
        Ok(row.as_ref().map(read_organization))
    }

    /// Organizations, the newest first: those before `before`, all or that of one external id.
    pub async fn organizations(
        &self,
        external_id: Option<&str>,
        before: Option<OrganizationId>,
        limit: usize,
    ) -> Result<Vec<Organization>, DbError> {
        let before = before.map_or(Uuid::max(), |organization| organization.0);
        let rows = self
            .connection()
            .await?
            .query(
                "SELECT * FROM organizations
                 WHERE id < $1 AND ($2::text IS NULL OR external_id = $2)
                 ORDER BY id DESC LIMIT $3",
                &[&before, &external_id, &(limit as i64)],
            )
            .await?;
        Ok(rows.iter().map(read_organization).collect())
    }

    /// Changes an organization; none if it does not exist. [`DbError::Conflict`] when its new external id
    /// is another's.
    pub async fn change_organization(
        &self,
        id: OrganizationId,
        change: &OrganizationChange,
    ) -> Result<Option<Organization>, DbError> {
        let row = self
            .connection()
            .await?
            .query_opt(
                "UPDATE organizations SET name = coalesce($2, name),
                     external_id = CASE WHEN $3 THEN $4 ELSE external_id END, updated_at = now()
                 WHERE id = $1 RETURNING *",
                &[
                    &id.0,
                    &change.name,
                    &change.external_id.is_some(),
                    &change.external_id.as_ref().and_then(Option::as_deref),
                ],
            )
            .await?;
        Ok(row.as_ref().map(read_organization))
    }

    /// Deletes an organization with its keys and webhooks; whether there was one. Its events and attempts
    /// stay in the log until their day is dropped.
    pub async fn delete_organization(&self, id: OrganizationId) -> Result<bool, DbError> {
        let deleted =
            self.connection().await?.execute("DELETE FROM organizations WHERE id = $1", &[&id.0]).await?;
        Ok(deleted > 0)
    }

    /// The organizations that events name: by their ids, or by their names in the upstream platform, which come
    /// first. By what was asked for.
    pub async fn organizations_named(
        &self,
        names: &[&str],
    ) -> Result<Vec<(String, OrganizationId)>, DbError> {
        let ids: Vec<Option<Uuid>> = names.iter().map(|name| name.parse().ok()).collect();
        let connection = self.connection().await?;
        let statement = connection
            .prepare_cached(
                "SELECT asked.name, coalesce(named.id, known.id)
                 FROM unnest($1::text[], $2::uuid[]) AS asked (name, id)
                 LEFT JOIN organizations AS named ON named.external_id = asked.name
                 LEFT JOIN organizations AS known ON known.id = asked.id
                 WHERE coalesce(named.id, known.id) IS NOT NULL",
            )
            .await?;
        let rows = connection.query(&statement, &[&names, &ids]).await?;
        Ok(rows.iter().map(|row| (row.get(0), OrganizationId(row.get(1)))).collect())
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

fn read_organization(row: &Row) -> Organization {
    Organization {
        id: OrganizationId(row.get("id")),
        name: row.get("name"),
        external_id: row.get("external_id"),
        created_at: row.get("created_at"),
        updated_at: row.get("updated_at"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::scratch;
    use super::*;

    #[test]
    fn organizations_are_found_by_id_and_by_name_many_at_once() {
        scratch::test(async |scratch| {
            let ids = [OrganizationId::new(), OrganizationId::new()];
            for (id, name) in ids.iter().zip([None, Some("acme")]) {
                let insert = "INSERT INTO organizations (id, name, external_id) VALUES ($1, '', $2)";
                scratch.client.execute(insert, &[&id.0, &name]).await.unwrap();
            }
            let asked = [ids[0].to_string(), ids[1].to_string(), "acme".to_owned()];
            let unknown = OrganizationId::new().to_string();
            let all: Vec<&str> = asked.iter().map(String::as_str).chain(["nobody", "", &unknown]).collect();
            let mut found = scratch.database.organizations_named(&all).await.unwrap();
            let mut expected: Vec<_> = asked.into_iter().zip([ids[0], ids[1], ids[1]]).collect();
            found.sort_by_key(|(name, _)| name.clone());
            expected.sort_by_key(|(name, _)| name.clone());
            assert_eq!(found, expected);
        });
    }
}
