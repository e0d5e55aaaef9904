//! Retention, as the reaper keeps it by itself.

use cuewire::db::Database;
use cuewire::db::partitions::today;
use cuewire_tests::event::id;
use cuewire_tests::{Receiver, Service, Setup, System, until};
use time::Duration;

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

fn partition(table: &str, days: i64) -> String {
    let day = today() + Duration::days(days);
    format!("{table}_{:04}{:02}{:02}", day.year(), u8::from(day.month()), day.day())
}

/// An event of that day, as it stands in the log.
async fn log_event(system: &System, days: i64) {
    let insert =
        "INSERT INTO events SELECT $1, gen_random_uuid(), 's', 'i', 'a.b', 'a', NULL, now(), '', '{}'";
    let day = today() + Duration::days(days);
    system.database().await.execute(insert, &[&day]).await.unwrap();
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
            database.ensure_partitions_of(today() + Duration::days(days)).await.unwrap();
            log_event(system, days).await;
        }
        for (table, days) in TABLES.iter().flat_map(|table| MISSING.map(|days| (*table, days))) {
            let drop = format!("DROP TABLE {}", partition(table, days));
            system.database().await.batch_execute(&drop).await.unwrap();
        }
        let letters = "INSERT INTO dead_letters (id, reason, detail, category, payload, exchange, routing_key, created_at)
            SELECT gen_random_uuid(), 'gone', '', 'a', '', '', '', now() - days * interval '1 day'
            FROM unnest(ARRAY[4, 6, 7]) AS days";
        system.database().await.execute(letters, &[]).await.unwrap();

        system.start(Service::DlqReaper).await;
        until("a run is done", async || {
            let done = [("result", "done")];
            let runs = system.metric(Service::DlqReaper, "cuewire_retention_runs_total", &done).await;
            (runs == Some(1.0)).then_some(())
        })
        .await;
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
            (system.sum(Service::DlqReaper, "cuewire_partition_days_ahead").await >= 13.0).then_some(())
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
