//! A burst to one webhook: spread out as the receiver can take it, and done in little more than that takes.

use std::time::Duration;

use cuewire_tests::event::events;
use cuewire_tests::system::test;
use cuewire_tests::{Answer, Receiver};

#[test]
fn a_burst_of_1000_to_a_healthy_receiver_is_done_within_twice_the_ideal_time() {
    const EVENTS: usize = 1_000;
    const AT_A_TIME: usize = 16;
    const ANSWER_AFTER: Duration = Duration::from_millis(100);
    test(async |system| {
        let receiver = Receiver::answering([Answer::status(200).after(ANSWER_AFTER)]).await;
        let organization = system.organization().await;
        organization.webhook(receiver.url("/")).create().await;
        let burst = events(EVENTS, "feeds.started", &organization.id);
        system.amqp().await.publish_all(&burst).await;
        let requests = receiver.wait_within(Duration::from_secs(60), EVENTS).await;
        let ideal = ANSWER_AFTER * (EVENTS / AT_A_TIME) as u32;
        let took = requests.last().unwrap().at - requests[0].at;
        assert!(took <= 2 * ideal, "{took:?}, and {ideal:?} is ideal");
        let busiest = requests.iter().map(|request| request.in_flight).max();
        assert!(busiest <= Some(AT_A_TIME), "{busiest:?} were in flight");
        system.stop_all().await;
        assert_eq!(receiver.count(), EVENTS);
        let attempts = "SELECT count(*), max(number) FROM attempts";
        let row = system.database().await.query_one(attempts, &[]).await.unwrap();
        assert_eq!((row.get(0), row.get(1)), (EVENTS as i64, 1), "waiting costs no attempt");
    });
}
