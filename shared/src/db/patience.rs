//! Patience: asking the database until it answers.

use std::future::Future;

use super::DbError;
use crate::amqp::connection::Backoff;

impl DbError {
    /// Whether the same call may succeed later: the error lies with the database, or with its state, and
    /// not with what it was given. Rights and schema are among it: an operator mends them while work waits.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Unavailable(_) | Self::Refused(_) | Self::NoPartition => true,
            Self::Conflict(_) | Self::Unfit(_) | Self::Unreadable(_) => false,
        }
    }
}

/// Asks the database until it answers, with pauses of 100 ms to 5 s. An error lies with what it was given, and
/// would come again. `waiting` says in the log what waits, in the plural: "deliveries".
pub async fn until_it_answers<T, Fut>(waiting: &str, mut ask: impl FnMut() -> Fut) -> Result<T, DbError>
where
    Fut: Future<Output = Result<T, DbError>>,
{
    let mut backoff = Backoff::new();
    loop {
        match ask().await {
            Err(error) if error.may_pass() => {
                let wait = backoff.pause();
                tracing::warn!(%error, ?wait, "{waiting} wait for the database");
                tokio::time::sleep(wait).await;
            }
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_may_pass_is_waited_out_and_what_would_come_again_is_told() {
        let answers: [Result<(), DbError>; 4] = [
            Err(DbError::Unavailable("starting up".to_owned())),
            Err(DbError::Refused("permission denied".to_owned())),
            Err(DbError::NoPartition),
            Err(DbError::Unfit("too large".to_owned())),
        ];
        let mut answers = answers.into_iter();
        let result = until_it_answers("tests", || {
            let answer = answers.next().expect("asked once for each answer");
            async move { answer }
        });
        assert!(matches!(result.await, Err(DbError::Unfit(_))));
        assert_eq!(answers.len(), 0);
    }
}
