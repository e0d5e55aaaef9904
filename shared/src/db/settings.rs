//! Settings that all services must agree on.

use super::{Database, DbError};

/// The record of how many queues each lane of deliveries has.
pub const SENDER_QUEUES: &str = "sender_queues";
const MOST_SENDER_QUEUES: &str = "sender_queues_most";

/// How many queues each lane of deliveries has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SenderQueues {
    /// Those that get deliveries.
    pub now: u32,
    /// The most that there have been: something may be left in those above.
    pub most: u32,
}

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

    /// How many queues each lane of deliveries has, where that is recorded.
    pub async fn sender_queues(&self) -> Result<Option<SenderQueues>, DbError> {
        let row = self
            .connection()
            .await?
            .query_one(
                "SELECT (SELECT value FROM settings WHERE name = $1), (SELECT value FROM settings WHERE name = $2)",
                &[&SENDER_QUEUES, &MOST_SENDER_QUEUES],
            )
            .await?;
        let Some(now) = number(row.get(0))? else { return Ok(None) };
        let most = number(row.get(1))?.unwrap_or(now).max(now);
        Ok(Some(SenderQueues { now, most }))
    }

    /// Records how many queues each lane of deliveries has, over what was there; answers what is recorded.
    pub async fn decide_sender_queues(&self, now: u32) -> Result<SenderQueues, DbError> {
        let most = self.sender_queues().await?.map_or(now, |before| before.most.max(now));
        self.connection()
            .await?
            .execute(
                "INSERT INTO settings (name, value) VALUES ($1, $2), ($3, $4)
                 ON CONFLICT (name) DO UPDATE SET value = CASE
                     WHEN settings.name = $3 THEN greatest(settings.value::bigint, excluded.value::bigint)::text
                     ELSE excluded.value END",
                &[&SENDER_QUEUES, &now.to_string(), &MOST_SENDER_QUEUES, &most.to_string()],
            )
            .await?;
        Ok(SenderQueues { now, most })
    }
}

fn number(value: Option<&str>) -> Result<Option<u32>, DbError> {
    let read = |text: &str| {
        text.parse().map_err(|_| DbError::Unreadable(format!("{text:?} as a number of the senders' queues")))
    };
    value.map(read).transpose()
}

#[cfg(test)]
mod tests {
    use super::super::scratch;
    use super::*;

    #[test]
    fn the_first_number_of_queues_is_agreed_on_and_one_that_is_decided_keeps_the_most_there_were() {
        scratch::test(async |scratch| {
            let database = &scratch.database;
            assert_eq!(database.sender_queues().await.unwrap(), None);
            assert_eq!(database.agree(SENDER_QUEUES, "2").await.unwrap(), "2");
            assert_eq!(database.agree(SENDER_QUEUES, "3").await.unwrap(), "2");
            let recorded = async || database.sender_queues().await.unwrap().unwrap();
            assert_eq!(recorded().await, SenderQueues { now: 2, most: 2 });
            for (now, most) in [(5, 5), (2, 5), (3, 5), (8, 8)] {
                assert_eq!(database.decide_sender_queues(now).await.unwrap(), SenderQueues { now, most });
                assert_eq!(recorded().await, SenderQueues { now, most });
            }
        });
    }
}
