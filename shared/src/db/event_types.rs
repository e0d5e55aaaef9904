//! Event types as organizations have registered them: types of their own, and the catalogue's that they have in
//! force. What schemas mean is not known here.

use time::OffsetDateTime;
use tokio_postgres::Row;

use super::{Database, DbError};
use crate::ids::OrganizationId;

/// An organization's entry of an event type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnEventType {
    /// The whole type.
    pub name: String,
    /// What happened, in a sentence.
    pub description: Option<String>,
    /// A JSON Schema, as it was sent; none: the catalogue's, if that lists the type.
    pub schema: Option<String>,
    /// An event in structured JSON, as it was sent.
    pub sample: Option<String>,
    /// Whether events that do not fit the schema are refused.
    pub enforced: bool,
    /// When it was made.
    pub created_at: OffsetDateTime,
    /// When it was last replaced.
    pub updated_at: OffsetDateTime,
}

/// An event type whose schema is in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Enforced {
    /// The whole type.
    pub event_type: String,
    /// Its schema; none: the catalogue's.
    pub schema: Option<String>,
    /// Changes with the schema.
    pub updated_at: OffsetDateTime,
}

/// What is to be saved of an event type.
#[derive(Debug, Clone, Copy, Default)]
pub struct NewEventType<'a> {
    /// The whole type.
    pub name: &'a str,
    /// What happened, in a sentence.
    pub description: Option<&'a str>,
    /// A JSON Schema.
    pub schema: Option<&'a str>,
    /// An event in structured JSON.
    pub sample: Option<&'a str>,
    /// Whether events that do not fit the schema are refused.
    pub enforced: bool,
}

/// The columns of [`OwnEventType`].
const COLUMNS: &str = "type, description, schema, sample, enforced, created_at, updated_at";

impl Database {
    /// An organization's entries, by their types.
    pub async fn event_types(&self, organization: OrganizationId) -> Result<Vec<OwnEventType>, DbError> {
        let connection = self.connection().await?;
        let statement = connection
            .prepare_cached(&format!(
                r#"SELECT {COLUMNS} FROM event_types WHERE organization_id = $1 ORDER BY type COLLATE "C""#
            ))
            .await?;
        Ok(connection.query(&statement, &[&organization.0]).await?.iter().map(read).collect())
    }

    /// Makes or replaces an organization's entry; none: there are `most` already besides those of `uncounted`
    /// types. (Entries made at the same moment may exceed it by a few.) [`DbError::Conflict`] when the
    /// organization is gone.
    pub async fn save_event_type(
        &self,
        organization: OrganizationId,
        new: NewEventType<'_>,
        most: usize,
        uncounted: &[&str],
    ) -> Result<Option<OwnEventType>, DbError> {
        let connection = self.connection().await?;
        let statement = connection
            .prepare_cached(&format!(
                "INSERT INTO event_types (organization_id, type, description, schema, sample, enforced)
                 SELECT $1, $2, $3, $4, $5, $6
                 WHERE $2 = ANY($8) OR $7 > (
                     SELECT count(*) FROM event_types
                     WHERE organization_id = $1 AND type <> $2 AND type <> ALL($8)
                 )
                 ON CONFLICT (organization_id, type) DO UPDATE
                 SET description = excluded.description, schema = excluded.schema, sample = excluded.sample,
                     enforced = excluded.enforced, updated_at = clock_timestamp()
                 RETURNING {COLUMNS}"
            ))
            .await?;
        let NewEventType { name, description, schema, sample, enforced } = new;
        let row = connection
            .query_opt(
                &statement,
                &[
                    &organization.0,
                    &name,
                    &description,
                    &schema,
                    &sample,
                    &enforced,
                    &(most as i64),
                    &uncounted,
                ],
            )
            .await?;
        Ok(row.as_ref().map(read))
    }

    /// Deletes an organization's entry; whether there was one.
    pub async fn delete_event_type(&self, organization: OrganizationId, name: &str) -> Result<bool, DbError> {
        let delete = "DELETE FROM event_types WHERE organization_id = $1 AND type = $2";
        Ok(self.connection().await?.execute(delete, &[&organization.0, &name]).await? > 0)
    }

    /// The organizations that have any schema in force.
    pub async fn organizations_with_schemas(&self) -> Result<Vec<OrganizationId>, DbError> {
        let select = "SELECT DISTINCT organization_id FROM event_types WHERE enforced";
        let rows = self.connection().await?.query(select, &[]).await?;
        Ok(rows.iter().map(|row| OrganizationId(row.get(0))).collect())
    }

    /// The types whose schemas an organization has in force.
    pub async fn enforced_event_types(&self, organization: OrganizationId) -> Result<Vec<Enforced>, DbError> {
        let connection = self.connection().await?;
        let statement = connection
            .prepare_cached(
                "SELECT type, schema, updated_at FROM event_types WHERE organization_id = $1 AND enforced",
            )
            .await?;
        let rows = connection.query(&statement, &[&organization.0]).await?;
        let read = |row: &Row| Enforced {
            event_type: row.get("type"),
            schema: row.get("schema"),
            updated_at: row.get("updated_at"),
        };
        Ok(rows.iter().map(read).collect())
    }
}

fn read(row: &Row) -> OwnEventType {
    OwnEventType {
        name: row.get("type"),
        description: row.get("description"),
        schema: row.get("schema"),
        sample: row.get("sample"),
        enforced: row.get("enforced"),
        created_at: row.get("created_at"),
        updated_at: row.get("updated_at"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::scratch;
    use super::*;

    async fn organization(database: &Database) -> OrganizationId {
        database.create_organization("Acme", None).await.unwrap().id
    }

    #[test]
    fn an_event_type_is_made_replaced_and_deleted_and_is_its_organizations_alone() {
        scratch::test(async |scratch| {
            let database = &scratch.database;
            let (own, other) = (organization(database).await, organization(database).await);
            let new = NewEventType { name: "a.b", schema: Some("{}"), enforced: true, ..Default::default() };
            let made = database.save_event_type(own, new, 1, &[]).await.unwrap().unwrap();
            assert_eq!((made.schema.as_deref(), made.enforced), (Some("{}"), true));
            assert_eq!(database.organizations_with_schemas().await.unwrap(), [own]);
            let enforced = database.enforced_event_types(own).await.unwrap();
            assert_eq!((enforced.len(), &*enforced[0].event_type), (1, "a.b"));
            assert!(database.enforced_event_types(other).await.unwrap().is_empty());

            let relaxed = NewEventType { description: Some("It is."), enforced: false, ..new };
            let replaced = database.save_event_type(own, relaxed, 1, &[]).await.unwrap().unwrap();
            assert!(replaced.updated_at > made.updated_at && replaced.created_at == made.created_at);
            assert!(database.enforced_event_types(own).await.unwrap().is_empty());
            assert_eq!(database.event_types(own).await.unwrap(), [replaced]);

            assert!(!database.delete_event_type(other, "a.b").await.unwrap());
            assert!(database.delete_event_type(own, "a.b").await.unwrap());
            assert!(!database.delete_event_type(own, "a.b").await.unwrap());
            assert!(database.event_types(own).await.unwrap().is_empty());
        });
    }

    #[test]
    fn an_organization_has_so_many_types_of_its_own_and_all_of_the_uncounted_ones() {
        scratch::test(async |scratch| {
            let (database, own) = (&scratch.database, organization(&scratch.database).await);
            let save = async |name| {
                let new = NewEventType { name, ..Default::default() };
                database.save_event_type(own, new, 2, &["listed.a", "listed.b"]).await.unwrap().is_some()
            };
            for name in ["own.a", "listed.a", "own.b", "own.a", "listed.b"] {
                assert!(save(name).await, "{name}");
            }
            assert!(!save("own.c").await);
            assert!(database.delete_event_type(own, "own.a").await.unwrap());
            assert!(save("own.c").await);
        });
    }

    #[test]
    fn a_change_of_an_event_type_is_announced_and_an_organization_takes_its_types_with_it() {
        scratch::test(async |scratch| {
            let (database, own) = (&scratch.database, organization(&scratch.database).await);
            let announced = format!("changes WHERE organization_id = '{own}'");
            let before = scratch.count(&announced).await;
            let new = NewEventType { name: "a.b", ..Default::default() };
            let _ = database.save_event_type(own, new, 1, &[]).await.unwrap();
            let _ = database.save_event_type(own, new, 1, &[]).await.unwrap();
            assert!(database.delete_event_type(own, "a.b").await.unwrap());
            assert_eq!(scratch.count(&announced).await, before + 3);
            let _ = database.save_event_type(own, new, 1, &[]).await.unwrap();
            assert!(database.delete_organization(own).await.unwrap());
            assert_eq!(scratch.count("event_types").await, 0);
            let gone = database.save_event_type(own, new, 1, &[]).await;
            assert!(matches!(gone, Err(DbError::Conflict(_))), "{gone:?}");
        });
    }
}
