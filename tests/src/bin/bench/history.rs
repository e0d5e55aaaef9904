//! An event log of some days: events with their deliveries and attempts, as the services would have written them,
//! copied into the database.
//!
//! Every tenth event is the first organization's, the others are spread over all others; each goes to one webhook, of
//! ten that an organization has in use. The first organization has events all day long, the others in bursts, in one
//! minute of ten. One delivery of a hundred or so is dead.

use std::ops::Range;
use std::pin::pin;

use cuewire::db::Database;
use cuewire::db::partitions::today;
use cuewire::ids::{DeadLetterId, DeliveryId, OrganizationId, Round, WebhookId};
use time::{Date, Duration, OffsetDateTime};
use tokio_postgres::Client;
use tokio_postgres::binary_copy::BinaryCopyInWriter;
use tokio_postgres::types::Type;

use crate::load::{CHANNELS, channel};
use crate::population::Population;
use crate::stack::Stack;

/// Up to today, since that is the day on which the services work.
pub(crate) const DAYS: usize = 10;
/// Whose events are told by their types.
pub(crate) const TYPES: [&str; 5] =
    ["feeds.started", "recordings.completed", "transcoder.failed", "media.deleted", "feeds.stopped"];
const SOURCE: &str = "/bench";
const ONE_IS_THE_FIRSTS_OF: usize = 10;
const WEBHOOKS_IN_USE: usize = 10;
/// A prime, so that every webhook has some.
const ONE_IS_DEAD_OF: usize = 101;
/// What an organization's events are about: so much that a page of one subject reads all that a page may.
const SUBJECTS: usize = 997;
/// A prime, so that events which follow each other are of different organizations.
const STRIDE: usize = 7_919;
/// Events of one type that follow each other in a day: no divisor of the other numbers.
const OF_ONE_TYPE: usize = 7;
const BURST_EVERY_S: f64 = 600.0;
const BURST_S: f64 = 60.0;
const ANSWERED_AFTER: Duration = Duration::milliseconds(12);

const EVENTS: &str =
    "COPY events (day, organization_id, source, id, type, category, subject, received_at, payload,
    webhooks) FROM STDIN BINARY";
const EVENT_COLUMNS: [Type; 10] = [
    Type::DATE,
    Type::UUID,
    Type::TEXT,
    Type::TEXT,
    Type::TEXT,
    Type::TEXT,
    Type::TEXT,
    Type::TIMESTAMPTZ,
    Type::BYTEA,
    Type::UUID_ARRAY,
];
const ATTEMPTS: &str =
    "COPY attempts (day, delivery_id, round, number, organization_id, webhook_id, event_source,
    event_id, event_type, started_at, duration_us, state, reason, status, error) FROM STDIN BINARY";
const ATTEMPT_COLUMNS: [Type; 15] = [
    Type::DATE,
    Type::UUID,
    Type::UUID,
    Type::INT4,
    Type::UUID,
    Type::UUID,
    Type::TEXT,
    Type::TEXT,
    Type::TEXT,
    Type::TIMESTAMPTZ,
    Type::INT8,
    Type::TEXT,
    Type::TEXT,
    Type::INT2,
    Type::TEXT,
];
const LETTERS: &str =
    "COPY dead_letters (id, reason, detail, organization_id, category, event_source, event_id,
    event_type, webhook_id, delivery_id, round, payload, content_type, exchange, routing_key, created_at)
    FROM STDIN BINARY";
const LETTER_COLUMNS: [Type; 16] = [
    Type::UUID,
    Type::TEXT,
    Type::TEXT,
    Type::UUID,
    Type::TEXT,
    Type::TEXT,
    Type::TEXT,
    Type::TEXT,
    Type::UUID,
    Type::UUID,
    Type::UUID,
    Type::BYTEA,
    Type::TEXT,
    Type::TEXT,
    Type::TEXT,
    Type::TIMESTAMPTZ,
];
const COUNTS: &str = "
    INSERT INTO delivery_stats (day, webhook_id, minute, delivered, failed, dead, duration_us)
    SELECT day, webhook_id, date_trunc('minute', started_at), count(*) FILTER (WHERE state = 'delivered'),
           count(*) FILTER (WHERE state <> 'delivered'), count(*) FILTER (WHERE state = 'dead'), sum(duration_us)
    FROM attempts GROUP BY 1, 2, 3
    ON CONFLICT DO NOTHING";

/// So many events, with their deliveries.
#[derive(Debug)]
pub(crate) struct History {
    pub(crate) events: usize,
    /// Those that the population had when the first event was written.
    organizations: usize,
    today: Date,
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Past {
    pub(crate) id: String,
    pub(crate) organization: OrganizationId,
    pub(crate) webhook: WebhookId,
    pub(crate) subject: String,
    event_type: &'static str,
    is_dead: bool,
}

impl History {
    /// Nothing yet.
    pub(crate) fn new() -> Self {
        Self { events: 0, organizations: 0, today: today() }
    }

    /// Empties the log, of what was measured before too.
    pub(crate) async fn clear(&mut self, stack: &Stack) -> anyhow::Result<()> {
        let database = stack.database().await?;
        database.batch_execute("TRUNCATE events, attempts, delivery_stats, dead_letters").await?;
        self.events = 0;
        Ok(())
    }

    /// Adds what is missing of so many events, an equal part to each day.
    pub(crate) async fn grow_to(
        &mut self,
        stack: &Stack,
        population: &Population,
        events: usize,
    ) -> anyhow::Result<()> {
        if events <= self.events {
            return Ok(());
        }
        if self.events == 0 {
            self.organizations = population.organizations.len();
        }
        let partitions = Database::new(&stack.database_url, 1)?;
        for day in 0..DAYS {
            partitions.ensure_partitions_of(self.day(day)).await?;
        }
        let added = self.events / DAYS..events / DAYS;
        let (one, other) = (stack.database().await?, stack.database().await?);
        tokio::try_join!(
            self.copy_events(&one, population, added.clone()),
            self.copy_attempts(&other, population, added.clone()),
        )?;
        self.copy_letters(&one, population, added).await?;
        // Else it would be done in the background, while something is measured.
        one.batch_execute("VACUUM (ANALYZE) events, attempts, dead_letters").await?;
        one.batch_execute("CHECKPOINT").await?;
        self.events = events;
        Ok(())
    }

    /// Counts the attempts by the minute, as the senders do.
    pub(crate) async fn count(&self, stack: &Stack) -> anyhow::Result<()> {
        let database = stack.database().await?;
        database.batch_execute(COUNTS).await?;
        database.batch_execute("VACUUM (ANALYZE) delivery_stats").await?;
        Ok(())
    }

    /// The first event of the population's organization of this place, from so far into the log on.
    pub(crate) fn first_of(&self, population: &Population, organization: usize, from: usize) -> Option<Past> {
        let is_its = |number: &usize| owner(*number, self.organizations) == organization;
        past(population, self.organizations, (from..self.events).find(is_its)?)
    }

    /// A time in the log, so many minutes back from the last day's beginning.
    pub(crate) fn minutes_before_today(&self, minutes: usize) -> OffsetDateTime {
        self.today.midnight().assume_utc() - Duration::minutes(minutes as i64)
    }

    fn day(&self, before_today: usize) -> Date {
        self.today - Duration::days(before_today as i64)
    }

    /// The events of one day of these of every day, in the order of time.
    fn of_day<'a>(
        &self,
        population: &'a Population,
        day: usize,
        added: Range<usize>,
    ) -> impl Iterator<Item = (Past, OffsetDateTime)> + use<'a> {
        let begins = self.day(day).midnight().assume_utc();
        let lasts = (OffsetDateTime::now_utc() - begins).min(Duration::DAY);
        let (first, count, organizations) = (added.start, added.len() as f64, self.organizations);
        added.filter_map(move |of_day| {
            let number = of_day * DAYS + day;
            let at_s = lasts.as_seconds_f64() * (of_day - first) as f64 / count;
            let at_s = if owner(number, organizations) == 0 { at_s } else { in_burst(at_s) };
            Some((past(population, organizations, number)?, begins + Duration::seconds_f64(at_s)))
        })
    }

    async fn copy_events(
        &self,
        database: &Client,
        population: &Population,
        added: Range<usize>,
    ) -> anyhow::Result<()> {
        for day in 0..DAYS {
            let sink = database.copy_in(EVENTS).await?;
            let mut rows = pin!(BinaryCopyInWriter::new(sink, &EVENT_COLUMNS));
            for (past, at) in self.of_day(population, day, added.clone()) {
                let (category, payload) = (past.category(), past.payload(at));
                rows.as_mut()
                    .write(&[
                        &self.day(day),
                        &past.organization.0,
                        &SOURCE,
                        &past.id,
                        &past.event_type,
                        &category,
                        &past.subject,
                        &at,
                        &payload.as_bytes(),
                        &vec![past.webhook.0],
                    ])
                    .await?;
            }
            rows.finish().await?;
        }
        Ok(())
    }

    async fn copy_attempts(
        &self,
        database: &Client,
        population: &Population,
        added: Range<usize>,
    ) -> anyhow::Result<()> {
        for day in 0..DAYS {
            let sink = database.copy_in(ATTEMPTS).await?;
            let mut rows = pin!(BinaryCopyInWriter::new(sink, &ATTEMPT_COLUMNS));
            for (past, at) in self.of_day(population, day, added.clone()) {
                let (state, status) = if past.is_dead { ("dead", 400_i16) } else { ("delivered", 200) };
                let reason = past.is_dead.then_some("refused");
                let error = past.is_dead.then_some("the receiver answered 400");
                rows.as_mut()
                    .write(&[
                        &self.day(day),
                        &past.delivery().0,
                        &Round::FIRST.0,
                        &1_i32,
                        &past.organization.0,
                        &past.webhook.0,
                        &SOURCE,
                        &past.id,
                        &past.event_type,
                        &at,
                        &(ANSWERED_AFTER.whole_microseconds() as i64),
                        &state,
                        &reason,
                        &status,
                        &error,
                    ])
                    .await?;
            }
            rows.finish().await?;
        }
        Ok(())
    }

    async fn copy_letters(
        &self,
        database: &Client,
        population: &Population,
        added: Range<usize>,
    ) -> anyhow::Result<()> {
        let sink = database.copy_in(LETTERS).await?;
        let mut rows = pin!(BinaryCopyInWriter::new(sink, &LETTER_COLUMNS));
        for day in 0..DAYS {
            let dead = self.of_day(population, day, added.clone()).filter(|(past, _)| past.is_dead);
            for (past, at) in dead {
                let (category, payload) = (past.category(), past.payload(at));
                rows.as_mut()
                    .write(&[
                        &DeadLetterId::new().0,
                        &"refused",
                        &"the receiver answered 400",
                        &past.organization.0,
                        &category,
                        &SOURCE,
                        &past.id,
                        &past.event_type,
                        &past.webhook.0,
                        &past.delivery().0,
                        &Round::FIRST.0,
                        &payload.as_bytes(),
                        &"application/cloudevents+json",
                        &"deliveries",
                        &format!("{category}.fresh.00"),
                        &(at + ANSWERED_AFTER),
                    ])
                    .await?;
            }
        }
        rows.finish().await?;
        Ok(())
    }
}

impl Past {
    pub(crate) fn delivery(&self) -> DeliveryId {
        DeliveryId::of(self.organization, SOURCE, &self.id, self.webhook)
    }

    fn category(&self) -> &'static str {
        self.event_type.split_once('.').map_or(self.event_type, |(category, _)| category)
    }

    fn payload(&self, at: OffsetDateTime) -> String {
        let Self { id, organization, event_type, subject, .. } = self;
        let at = at.unix_timestamp();
        format!(
            r#"{{"specversion":"1.0","id":"{id}","source":"{SOURCE}","type":"{event_type}","subject":"{subject}","organization":"{organization}","data":{{"recordingId":"{id}","at":{at},"size":1048576,"status":"active"}}}}"#
        )
    }
}

/// Whose the event of this number is, by the place among so many organizations.
fn owner(number: usize, organizations: usize) -> usize {
    let of_day = number / DAYS;
    if of_day.is_multiple_of(ONE_IS_THE_FIRSTS_OF) || organizations == 1 {
        return 0;
    }
    1 + of_day * STRIDE % (organizations - 1)
}

fn past(population: &Population, organizations: usize, number: usize) -> Option<Past> {
    let organization = owner(number, organizations);
    let of_day = number / DAYS;
    let webhook = of_day / ONE_IS_THE_FIRSTS_OF % WEBHOOKS_IN_USE;
    Some(Past {
        id: format!("past-{number:08}"),
        organization: population.organizations[organization].parse().ok()?,
        webhook: population.webhooks[organization * CHANNELS + webhook],
        subject: channel(of_day / ONE_IS_THE_FIRSTS_OF % SUBJECTS),
        event_type: TYPES[of_day / OF_ONE_TYPE % TYPES.len()],
        is_dead: of_day.is_multiple_of(ONE_IS_DEAD_OF),
    })
}

/// The same time of the day, moved into the first minute of its ten.
fn in_burst(at_s: f64) -> f64 {
    let begins = (at_s / BURST_EVERY_S).floor() * BURST_EVERY_S;
    begins + (at_s - begins) * BURST_S / BURST_EVERY_S
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tenth_event_is_the_firsts_and_the_others_have_the_rest_between_them() {
        const ORGANIZATIONS: usize = 100;
        let mut events = [0; ORGANIZATIONS];
        for number in 0..990_000 {
            events[owner(number, ORGANIZATIONS)] += 1;
        }
        assert_eq!(events[0], 99_000);
        assert!(events[1..].iter().all(|count| (8_900..=9_100).contains(count)), "{events:?}");
    }

    #[test]
    fn a_burst_is_the_first_minute_of_ten() {
        for (at_s, moved_s) in
            [(0.0, 0.0), (300.0, 30.0), (599.0, 59.9), (600.0, 600.0), (86_399.0, 85_859.9)]
        {
            assert!((in_burst(at_s) - moved_s).abs() < 1e-6, "{at_s}");
        }
    }
}
