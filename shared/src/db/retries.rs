//! Deliveries that were sent again by hand: which of them are under way. A dead letter that is sent again is
//! on record as such by itself.

use std::time::Duration;

use super::{Database, DbError};
use crate::ids::{DeliveryId, Round};
use crate::retry::DEADLINE;

impl Database {
    /// Takes the right to send a delivery again in this round, for the length of the lease; whether nobody
    /// else has it, and the round is not under way.
    pub async fn claim_retry(
        &self,
        delivery: DeliveryId,
        round: Round,
        lease: Duration,
    ) -> Result<bool, DbError> {
        let connection = self.connection().await?;
        let statement = connection
            .prepare_cached(
                "INSERT INTO retries (delivery_id, round, until)
                 VALUES ($1, $2, now() + make_interval(secs => $3))
                 ON CONFLICT (delivery_id) DO UPDATE SET round = excluded.round, until = excluded.until
                 WHERE retries.round <> excluded.round OR retries.until <= now()",
            )
            .await?;
        let claimed = connection.execute(&statement, &[&delivery.0, &round.0, &lease.as_secs_f64()]).await?;
        Ok(claimed > 0)
    }

    /// Notes that a delivery was sent again: it is under way until an attempt is on record, or its deadline
    /// has passed.
    pub async fn retry_is_under_way(&self, delivery: DeliveryId, round: Round) -> Result<(), DbError> {
        self.set_retry(delivery, round, DEADLINE).await
    }

    /// Gives back the right to send a delivery again, which was not done.
    pub async fn release_retry(&self, delivery: DeliveryId, round: Round) -> Result<(), DbError> {
        self.set_retry(delivery, round, Duration::ZERO).await
    }

    async fn set_retry(&self, delivery: DeliveryId, round: Round, left: Duration) -> Result<(), DbError> {
        let connection = self.connection().await?;
        let statement = connection
            .prepare_cached(
                "UPDATE retries SET until = now() + make_interval(secs => $3)
                 WHERE delivery_id = $1 AND round = $2",
            )
            .await?;
        connection.execute(&statement, &[&delivery.0, &round.0, &left.as_secs_f64()]).await?;
        Ok(())
    }
}
