//! The account of deliveries that had to stay away without an attempt: counted here by webhook and minute, and
//! added to the statistics every few seconds. What a crash, or a database that is away, takes with it is a count.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cuewire::db::Database;
use cuewire::db::attempts::ParkedMinute;
use cuewire::ids::WebhookId;
use cuewire::shutdown::Shutdown;
use prometheus::IntGaugeVec;
use time::OffsetDateTime;

use crate::gate::Cause;

const RECORD_EVERY: Duration = Duration::from_secs(5);
/// Webhooks and minutes between two records; what is beyond is not counted, at 40 bytes each.
const MAX_COUNTS: usize = 100_000;
/// In one statement: it locks their rows, which batches of attempts write too.
const AT_A_TIME: usize = 500;

/// Counts, until they are recorded. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Parkings(Arc<Mutex<HashMap<(WebhookId, OffsetDateTime), Counts>>>);

#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    parked: i64,
    limited: i64,
}

impl Parkings {
    /// Counts one.
    pub fn note(&self, webhook: WebhookId, cause: Cause) {
        let now = OffsetDateTime::now_utc().unix_timestamp();
        let minute = OffsetDateTime::from_unix_timestamp(now - now.rem_euclid(60));
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (webhook, minute.unwrap_or(OffsetDateTime::UNIX_EPOCH));
        if counts.len() >= MAX_COUNTS && !counts.contains_key(&key) {
            return;
        }
        let counts = counts.entry(key).or_default();
        match cause {
            Cause::Limited => counts.limited += 1,
            Cause::Busy | Cause::Open => counts.parked += 1,
        }
    }

    /// Records what was counted, until the service stops and once more then; and tells in `put_off` how many webhooks
    /// that was of.
    pub async fn keep_recording(self, database: Database, put_off: IntGaugeVec, shutdown: Shutdown) {
        while shutdown.run_until_stopped(tokio::time::sleep(RECORD_EVERY)).await.is_some() {
            self.record(&database, &put_off).await;
        }
        self.record(&database, &put_off).await;
    }

    async fn record(&self, database: &Database, put_off: &IntGaugeVec) {
        let counts = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        let minutes: Vec<ParkedMinute> = counts
            .into_iter()
            .map(|((webhook, minute), Counts { parked, limited })| ParkedMinute {
                webhook,
                minute,
                parked,
                limited,
            })
            .collect();
        let tell = |cause: &str, is_counted: fn(&ParkedMinute) -> bool| {
            // Of two minutes, where one ended between two records.
            let webhooks: HashSet<WebhookId> =
                minutes.iter().filter(|minute| is_counted(minute)).map(|minute| minute.webhook).collect();
            put_off.with_label_values(&[cause]).set(webhooks.len() as i64);
        };
        tell("parked", |minute| minute.parked > 0);
        tell("limited", |minute| minute.limited > 0);
        for some in minutes.chunks(AT_A_TIME) {
            if let Err(error) = database.record_parkings(some).await {
                tracing::warn!(%error, minutes = some.len(), "counts of parked deliveries are lost");
            }
        }
    }
}
