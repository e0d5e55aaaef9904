//! A delayed queue that takes no more.

use std::collections::HashSet;
use std::time::Duration;

use cuewire_tests::system::test;
use cuewire_tests::wait::PATIENCE;
use cuewire_tests::{Answer, Receiver, Request};

#[test]
fn what_finds_its_tier_full_waits_in_the_next_longer_one_and_nothing_is_lost() {
    const EVENTS: usize = 60;
    // Each with so few requests that its breaker stays closed, though half of them fail.
    const WEBHOOKS: usize = 7;
    test(async |system| {
        system.limit_queue("retry.1s.v1", 5).await;
        let is_repeat =
            |request: &Request, before: &[Request]| before.iter().any(|it| it.id() == request.id());
        let receiver = Receiver::start(move |request, before| {
            Answer::status(if is_repeat(request, before) { 200 } else { 500 })
        })
        .await;
        let organization = system.organization().await;
        let kind = |number: usize| format!("kind{}.b", number % WEBHOOKS);
        for number in 0..WEBHOOKS {
            let webhook = organization.webhook(receiver.url("/")).types(&[&kind(number)]);
            webhook.schedule(&["1s"]).create().await;
        }
        organization.in_effect().await;
        // One after another: the broker tells that a queue is full a moment after it is.
        for before in 0..EVENTS {
            system.amqp().await.publish(&organization.event(&kind(before))).await;
            let arrives = |requests: &[Request]| {
                requests.iter().map(Request::id).collect::<HashSet<_>>().len() > before
            };
            receiver.wait_until(PATIENCE, "the next one arrives", arrives).await;
        }
        let requests = receiver.wait_for(2 * EVENTS).await;
        let first = requests.iter().enumerate().filter(|(at, it)| !is_repeat(it, &requests[..*at]));
        let waited: Vec<Duration> = first
            .map(|(at, first)| {
                let second = requests[at + 1..].iter().find(|it| it.id() == first.id());
                second.unwrap().at - first.at
            })
            .collect();
        assert_eq!(waited.len(), EVENTS);
        let longer = waited.iter().filter(|waited| **waited > Duration::from_secs(4)).count();
        assert!((1..EVENTS).contains(&longer), "{longer} of {EVENTS} waited in the longer tier: {waited:?}");
        system.stop_all().await;
        assert_eq!(receiver.count(), 2 * EVENTS);
    });
}
