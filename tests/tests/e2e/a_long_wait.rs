//! A delay that passes through several of the delayed queues.

use cuewire_tests::event::id;
use cuewire_tests::system::test;
use cuewire_tests::{Answer, Receiver};

use crate::retries::assert_spaced;

#[test]
fn a_delay_of_90_seconds_is_met_within_half_a_second() {
    test(async |system| {
        let receiver = Receiver::answering([Answer::status(500), Answer::status(200)]).await;
        let organization = system.organization().await;
        let webhook = organization.webhook(receiver.url("/")).schedule(&["90s"]).create().await;
        let event = organization.event("a.b");
        system.amqp().await.publish(&event).await;
        let requests = receiver.wait_within(std::time::Duration::from_secs(100), 2).await;
        assert_spaced(&requests, &[90.0]);
        organization.delivery(id(&event), &webhook, "delivered").await;
    });
}
