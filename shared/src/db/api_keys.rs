//! API keys: who may do what in an organization. Only a key's SHA-256 is kept.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use tokio_postgres::Row;
use uuid::Uuid;

use super::{Database, DbError};
use crate::ids::{ApiKeyId, OrganizationId};

/// What a key may do; each role may do what those before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Reads.
    Viewer,
    /// Webhooks, events, redrive.
    Editor,
    /// Keys and secrets too.
    Admin,
}

impl Role {
    /// As it is stored and shown.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Editor => "editor",
            Self::Admin => "admin",
        }
    }

    /// The role of that name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Viewer, Self::Editor, Self::Admin].into_iter().find(|role| role.as_str() == text)
    }
}

/// A key as it is kept: not the key itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKey {
    /// Its id.
    pub id: ApiKeyId,
    /// Whose it is.
    pub organization: OrganizationId,
    /// A name; need not be unique.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// When it was made.
    pub created_at: OffsetDateTime,
}

/// Who calls with a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyHolder {
    /// The key.
    pub key: ApiKeyId,
    /// Whose it is.
    pub organization: OrganizationId,
    /// The organization's name in the upstream platform.
    pub external_id: Option<String>,
    /// What the key may do.
    pub role: Role,
}

impl Database {
    /// Makes a key. [`DbError::Conflict`] when there is no such organization.
    pub async fn create_api_key(
        &self,
        organization: OrganizationId,
        name: &str,
        role: Role,
        key_sha256: &[u8; 32],
    ) -> Result<ApiKey, DbError> {
        let row = self
            .connection()
            .await?
            .query_one(
                "INSERT INTO api_keys (id, organization_id, name, role, key_sha256)
                 VALUES ($1, $2, $3, $4, $5) RETURNING *",
                &[&ApiKeyId::new().0, &organization.0, &name, &role.as_str(), &key_sha256.as_slice()],
            )
            .await?;
        read_key(&row)
    }

    /// Who holds the keys of these SHA-256s: each with its holder, those that do not exist left out.
    pub async fn key_holders(&self, keys_sha256: &[[u8; 32]]) -> Result<Vec<([u8; 32], KeyHolder)>, DbError> {
        let connection = self.connection().await?;
        let statement = connection
            .prepare_cached(
                "SELECT key_sha256, api_keys.id, organization_id, external_id, role
                 FROM api_keys JOIN organizations ON organizations.id = organization_id
                 WHERE key_sha256 = ANY($1)",
            )
            .await?;
        let hashes: Vec<&[u8]> = keys_sha256.iter().map(<[u8; 32]>::as_slice).collect();
        let rows = connection.query(&statement, &[&hashes]).await?;
        let read = |row: &Row| {
            let sha256 = row.get::<_, &[u8]>("key_sha256").try_into();
            let sha256 = sha256.map_err(|_| DbError::Unreadable("a key's SHA-256".to_owned()))?;
            let holder = KeyHolder {
                key: ApiKeyId(row.get("id")),
                organization: OrganizationId(row.get("organization_id")),
                external_id: row.get("external_id"),
                role: read_role(row)?,
            };
            Ok((sha256, holder))
        };
        rows.iter().map(read).collect()
    }

    /// An organization's keys, the newest first: those before `before`.
    pub async fn api_keys(
        &self,
        organization: OrganizationId,
        before: Option<ApiKeyId>,
        limit: usize,
    ) -> Result<Vec<ApiKey>, DbError> {
        let before = before.map_or(Uuid::max(), |key| key.0);
        let rows = self
            .connection()
            .await?
            .query(
                "SELECT * FROM api_keys WHERE organization_id = $1 AND id < $2
                 ORDER BY id DESC LIMIT $3",
                &[&organization.0, &before, &(limit as i64)],
            )
            .await?;
        rows.iter().map(read_key).collect()
    }

    /// An organization's key, or none if it has no such one.
    pub async fn api_key(
        &self,
        organization: OrganizationId,
        key: ApiKeyId,
    ) -> Result<Option<ApiKey>, DbError> {
        let connection = self.connection().await?;
        let row = connection
            .query_opt(
                "SELECT * FROM api_keys WHERE organization_id = $1 AND id = $2",
                &[&organization.0, &key.0],
            )
            .await?;
        row.as_ref().map(read_key).transpose()
    }

    /// Deletes an organization's key; whether there was one.
    pub async fn delete_api_key(&self, organization: OrganizationId, key: ApiKeyId) -> Result<bool, DbError> {
        let deleted = self
            .connection()
            .await?
            .execute(
                "DELETE FROM api_keys WHERE organization_id = $1 AND id = $2",
                &[&organization.0, &key.0],
            )
            .await?;
        Ok(deleted > 0)
    }
}

fn read_key(row: &Row) -> Result<ApiKey, DbError> {
    Ok(ApiKey {
        id: ApiKeyId(row.get("id")),
        organization: OrganizationId(row.get("organization_id")),
        name: row.get("name"),
        role: read_role(row)?,
        created_at: row.get("created_at"),
    })
}

fn read_role(row: &Row) -> Result<Role, DbError> {
    Role::parse(row.get("role")).ok_or_else(|| DbError::Unreadable("a key's role".to_owned()))
}
