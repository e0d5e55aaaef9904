//! Retention, as the reaper keeps it by itself.

use std::time::Duration;

use cuewire::db::Database;
use cuewire::db::partitions::today;
use cuewire_tests::event::id;
use cuewire_tests::wait::within;
use cuewire_tests::{Receiver, Service, Setup, System, until};
use time::{Date, Duration as Days};

const TABLES: [&str; 3] = ["events", "attempts", "delivery_stats"];
/// The days before and after today of which the test has partitions made, or drops them.
const OLD: i64 = -12;
const KEPT: i64 = -8;
const MISSING: [i64; 2] = [3, 13];

/// Whether every table has its partition of the day so far from today, attached.
async fn has_partitions(system: &System, days: i64) -> [bool; 3] {
    let attached = "SELECT inhrelid::regclass::text FROM pg_inherits WHERE NOT inhdetachpending";
    let rows = system.database().await.query(attached, &[]).await.unwrap();
    let names: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    TABLES.map(|table| names.contains(&partition(table, days)))
}

fn from_today(days: i64) -> Date {
    today() + Days::days(days)
}

fn partition(table: &str, days: i64) -> String {
    let day = from_today(days);
    format!("{table}_{:04}{:02}{:02}", day.year(), u8::from(day.month()), day.day())
}

/// An event of that day, as it stands in the log.
async fn log_event(system: &System, days: i64) {
    let insert =
        "INSERT INTO events SELECT $1, gen_random_uuid(), 's', 'i', 'a.b', 'a', NULL, now(), '', '{}'";
    system.database().await.execute(insert, &[&from_today(days)]).await.unwrap();
}

/// Lets no dead letter be deleted.
const REFUSE: &str = "
    CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'not now'; END $$;
    CREATE TRIGGER refuse BEFORE DELETE ON dead_letters EXECUTE FUNCTION refuse()";

/// Waits for the first run that ends like this. One that failed is repeated a minute later.
async fn run(system: &System, result: &str) {
    within(Duration::from_secs(90), &format!("a run is {result}"), async || {
        let labels = [("result", result)];
        let runs = system.metric(Service::DlqReaper, "cuewire_retention_runs_total", &labels).await;
        (runs == Some(1.0)).then_some(())
    })
    .await;
}

#[test]
fn the_reaper_drops_what_is_old_makes_the_days_to_come_and_leaves_the_rest() {
    let setup = Setup::default()
        .replicas(Service::DlqReaper, 0)
        .variable("CUEWIRE_RETENTION_DAYS", "10")
        .variable("CUEWIRE_DEAD_LETTER_RETENTION_DAYS", "5");
    setup.run(async |system| {
        let database = Database::new(system.database_url(), 1).unwrap();
        for days in [OLD, KEPT] {
            database.ensure_partitions_of(from_today(days)).await.unwrap();
            log_event(system, days).await;
        }
        let letters = "INSERT INTO dead_letters (id, reason, detail, category, payload, exchange, routing_key, created_at)
            SELECT gen_random_uuid(), 'gone', '', 'a', '', '', '', now() - days * interval '1 day'
            FROM unnest(ARRAY[4, 6, 7]) AS days";
        system.database().await.execute(letters, &[]).await.unwrap();

        // The first run fails, so that what the next one finds missing was not made by the service's start.
        system.database().await.batch_execute(REFUSE).await.unwrap();
        system.start(Service::DlqReaper).await;
        run(system, "failed").await;
        for (table, days) in TABLES.iter().flat_map(|table| MISSING.map(|days| (*table, days))) {
            let drop = format!("DROP TABLE {}", partition(table, days));
            system.database().await.batch_execute(&drop).await.unwrap();
        }
        system.database().await.batch_execute("DROP TRIGGER refuse ON dead_letters").await.unwrap();
        run(system, "done").await;
        assert_eq!(has_partitions(system, OLD).await, [false; 3]);
        for days in (-1..=13).chain([KEPT]) {
            assert_eq!(has_partitions(system, days).await, [true; 3], "{days} days from today");
        }
        let left = "SELECT count(*) FROM events UNION ALL SELECT count(*) FROM dead_letters";
        let left = system.database().await.query(left, &[]).await.unwrap();
        assert_eq!(left.iter().map(|row| row.get(0)).collect::<Vec<i64>>(), [1, 1]);
        for table in TABLES {
            let dropped = system
                .metric(Service::DlqReaper, "cuewire_retention_partitions_dropped_total", &[("table", table)])
                .await;
            assert_eq!(dropped, Some(1.0), "{table}");
        }
        let deleted = system
            .metric(Service::DlqReaper, "cuewire_retention_rows_deleted_total", &[("table", "dead_letters")])
            .await;
        assert_eq!(deleted, Some(2.0));
        until("it is said for how many days there are partitions", async || {
            (system.sum(Service::DlqReaper, "cuewire_partitions_ahead").await >= 13.0).then_some(())
        })
        .await;

        // And work goes on.
        let receiver = Receiver::healthy().await;
        let organization = system.organization().await;
        let webhook = organization.webhook(receiver.url("/")).create().await;
        let event = organization.event("a.b");
        system.amqp().await.publish(&event).await;
        organization.delivery(id(&event), &webhook, "delivered").await;
    });
}
