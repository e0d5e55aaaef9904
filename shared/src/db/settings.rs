//! Settings that all services must agree on.

use super::{Database, DbError};

impl Database {
    /// Records `value` under `name` where nothing is recorded yet, and answers what is.
    pub async fn agree(&self, name: &str, value: &str) -> Result<String, DbError> {
        let row = self
            .connection()
            .await?
            .query_one(
                // An update of nothing, so that the row is answered whoever inserted it.
                "INSERT INTO settings (name, value) VALUES ($1, $2)
                 ON CONFLICT (name) DO UPDATE SET value = settings.value RETURNING value",
                &[&name, &value],
            )
            .await?;
        Ok(row.get(0))
    }

    /// Records `value` under `name`, over what was there.
    pub async fn decide(&self, name: &str, value: &str) -> Result<(), DbError> {
        self.connection()
            .await?
            .execute(
                "INSERT INTO settings (name, value) VALUES ($1, $2)
                 ON CONFLICT (name) DO UPDATE SET value = excluded.value",
                &[&name, &value],
            )
            .await?;
        Ok(())
    }
}
