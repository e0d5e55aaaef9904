//! Handing messages to the broker, and waiting for its word, within a bound.

use std::time::{Duration, Instant};

use cuewire::amqp::{Publication, PublishError};
use futures_util::future::join_all;

use crate::Api;
use crate::error::Problem;

/// A broker that has not confirmed by then is as good as away, and clients are no more patient.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(5);

impl Api {
    /// Publishes all at once; the broker has them all, or the client is told to come back.
    pub(crate) async fn publish_all(
        &self,
        publications: impl IntoIterator<Item = Publication>,
    ) -> Result<(), Problem> {
        let started = Instant::now();
        let publishing: Vec<_> =
            publications.into_iter().map(|publication| self.publisher.publish(publication)).collect();
        self.metrics.batch.observe(publishing.len() as f64);
        let confirmed = tokio::time::timeout(CONFIRM_TIMEOUT, join_all(publishing)).await;
        self.metrics.publish_duration.observe(started.elapsed().as_secs_f64());
        let confirmed = confirmed.map(|results| results.into_iter().collect::<Result<Vec<()>, _>>());
        let (label, detail) = match confirmed {
            Ok(Ok(_)) => return Ok(()),
            Err(_) => ("timeout", "the broker did not confirm in time; repeat with the same ids"),
            Ok(Err(PublishError::Lost)) => {
                ("lost", "the broker cannot be reached now; repeat with the same ids")
            }
            Ok(Err(PublishError::Refused)) => {
                ("refused", "the broker did not take all of it; repeat with the same ids")
            }
            Ok(Err(PublishError::Unroutable)) => {
                ("unroutable", "the broker has no queue for it; repeat with the same ids")
            }
        };
        self.metrics.publish_failures.with_label_values(&[label]).inc();
        tracing::warn!(reason = label, "a request's messages were not confirmed");
        Err(Problem::unavailable(detail))
    }
}
