//! The account of attempts: who owns a record, also when nobody heard of its commit.

use std::time::Duration;

use bytes::Bytes;
use cuewire::db::Database;
use cuewire::delivery::{Answer, Attempt, Outcome, Reason, State};
use cuewire::ids::{DeliveryId, OrganizationId, Round, WebhookId};
use cuewire::shutdown::Shutdown;
use cuewire_sender::attempt_log::{AttemptLog, Recorded};
use cuewire_sender::metrics::Metrics;
use cuewire_tests::system::test;
use time::OffsetDateTime;

fn attempt(number: u32, started_at: OffsetDateTime) -> Attempt {
    Attempt {
        day: started_at.date(),
        delivery: DeliveryId::new(),
        round: Round::FIRST,
        number,
        organization: OrganizationId::new(),
        webhook: WebhookId::new(),
        event_source: "/source".to_owned(),
        event_id: "id".to_owned(),
        event_type: "feeds.started".to_owned(),
        started_at,
        duration: Duration::from_nanos(1_234_567),
        outcome: Outcome::Answered(Answer {
            status: 500,
            headers: vec![("x-bytes".to_owned(), Bytes::from_static(&[0xff, b' ', 1]))],
            body: Bytes::from_static(&[0, 0xff]),
        }),
        state: State::Dead(Reason::Exhausted),
    }
}

#[test]
fn a_record_belongs_to_the_attempt_that_made_it_even_when_its_commit_went_unheard() {
    test(async |system| {
        let database = Database::new(system.database_url(), 2).unwrap();
        let log = AttemptLog::start(database, Metrics::new(&prometheus::Registry::new()), &Shutdown::new());
        let now = OffsetDateTime::now_utc();
        let attempt = attempt(1, now);
        assert_eq!(log.record(attempt.clone()).await, Ok(Ok(Recorded::New)));
        // As after a commit whose answer was lost: the same attempt is recorded again.
        assert_eq!(log.record(attempt.clone()).await, Ok(Ok(Recorded::New)));
        let copy = Attempt { started_at: now + Duration::from_millis(1), ..attempt.clone() };
        assert_eq!(log.record(copy).await, Ok(Ok(Recorded::Before)));
        let next = Attempt { number: 2, ..attempt.clone() };
        assert_eq!(log.record(next).await, Ok(Ok(Recorded::New)));

        let recorded = log.look_up(attempt.key()).await.unwrap().unwrap();
        assert_eq!((recorded.state, recorded.status), (attempt.state, Some(500)));
        let counts = "SELECT sum(failed)::bigint, sum(dead)::bigint, count(*) FROM delivery_stats";
        let row = system.database().await.query_one(counts, &[]).await.unwrap();
        assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1), row.get::<_, i64>(2)), (2, 2, 1));
    });
}
