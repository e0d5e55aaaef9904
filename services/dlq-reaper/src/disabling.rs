//! Disabling what keeps failing: a webhook that has had no success for days is nobody's any more, and every delivery
//! to it costs its probes and retries.

use std::time::Duration;

use cuewire::db::Database;

use crate::metrics::Metrics;

const LOOK_EVERY: Duration = Duration::from_secs(60);
/// A webhook that is hardly ever sent to may fail for days by few attempts.
const AT_LEAST: i64 = 50;

/// Disables webhooks that have failed for `long`, for ever.
pub(crate) async fn keep_disabling(database: &Database, long: Duration, metrics: &Metrics) {
    loop {
        match database.disable_failing_webhooks(long, AT_LEAST).await {
            Ok(disabled) => {
                for webhook in disabled {
                    metrics.disabled.inc();
                    tracing::warn!(%webhook, ?long, "disabled: it has failed all the time");
                }
            }
            Err(error) => tracing::warn!(%error, "webhooks that keep failing are disabled later"),
        }
        match database.open_breakers().await {
            Ok(breakers) => metrics.open_breakers.set(breakers),
            Err(error) => tracing::debug!(%error, "the open breakers could not be counted"),
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
