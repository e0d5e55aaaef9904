//! One event, many webhooks.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use cuewire_tests::event::id;
use cuewire_tests::system::test;
use cuewire_tests::{Answer, Receiver, Service, Setup, until};
use serde_json::json;

#[test]
fn an_event_goes_to_forty_webhooks_by_a_few_messages() {
    const WEBHOOKS: usize = 40;
    Setup::default().replicas(Service::Sender, 0).run(async |system| {
        let receiver = Receiver::healthy().await;
        let organization = system.organization().await;
        for webhook in 0..WEBHOOKS {
            organization.webhook(receiver.url(&format!("/{webhook}"))).create().await;
        }
        organization.in_effect().await;
        let event = organization.event("a.b");
        system.amqp().await.publish(&event).await;
        let deliveries = until("the event is fanned out", async || {
            let deliveries = organization.deliveries(&event).await;
            (deliveries.len() == WEBHOOKS).then_some(deliveries)
        })
        .await;
        let waiting = until("its messages are there", async || {
            let amqp = system.amqp().await;
            let queues = ["sender.fresh.0.v1", "sender.fresh.1.v1"];
            let mut waiting = 0;
            for queue in queues {
                waiting += amqp.depth(queue).await.unwrap();
            }
            (waiting > 0).then_some(waiting)
        })
        .await;
        // Of each of two queues, the last message may be a small one.
        assert!(waiting <= 4, "{waiting} messages");
        system.start(Service::Sender).await;
        let requests = receiver.wait_for(WEBHOOKS).await;
        let paths: HashSet<&str> = requests.iter().map(|request| request.path.as_str()).collect();
        assert_eq!(paths.len(), WEBHOOKS);
        let sent: HashSet<&str> = requests.iter().map(cuewire_tests::Request::id).collect();
        let listed: HashSet<&str> =
            deliveries.iter().map(|delivery| delivery["id"].as_str().unwrap()).collect();
        assert_eq!(sent, listed, "each under the id that the event lists");
    });
}

#[test]
fn an_organization_whose_four_hundred_webhooks_all_hang_does_not_hold_up_another() {
    const WEBHOOKS: usize = 400;
    /// Less than a request lasts to one that hangs.
    const AT_ONCE: Duration = Duration::from_secs(3);
    const HANGS_MS: u64 = 4_000;
    test(async |system| {
        let (hanging, healthy) = (Receiver::answering([Answer::never()]).await, Receiver::healthy().await);
        let (bad, good) = (system.organization().await, system.organization().await);
        for webhook in 1..WEBHOOKS {
            let url = hanging.url(&format!("/{webhook}"));
            let webhook = json!({ "url": url, "timeout_ms": HANGS_MS, "retry_schedule": [] });
            let _ = bad.admin.post("/v1/webhooks", &webhook).await.expect(201);
        }
        bad.webhook(hanging.url("/0")).with("timeout_ms", HANGS_MS).schedule(&[]).create().await;
        good.webhook(healthy.url("/")).create().await;
        good.in_effect().await;
        let amqp = system.amqp().await;
        amqp.publish(&bad.event("feeds.started")).await;
        hanging.wait_for(100).await;
        for number in 1..=20 {
            let published = Instant::now();
            amqp.publish(&good.event("feeds.started")).await;
            healthy.wait_for(number).await;
            assert!(published.elapsed() < AT_ONCE, "the event {number} took {:?}", published.elapsed());
        }
        // Those that found no place come back later.
        system.wait_until_parked("busy", 1).await;
    });
}

#[test]
fn webhooks_that_were_quick_and_hang_all_at_once_do_not_hold_up_those_of_their_own_organization() {
    const HANGING: usize = 10;
    const HEALTHY: usize = 4;
    /// As many as each has slots, so that it may use all of them.
    const UNTIL_PROVEN: usize = 64;
    const EVENTS: usize = 200;
    const EVERY: Duration = Duration::from_millis(50);
    const LATE: Duration = Duration::from_secs(1);
    test(async |system| {
        let hang = Arc::new(AtomicBool::new(false));
        let switch = Arc::clone(&hang);
        let hanging = Receiver::start(move |_, _| match switch.load(Ordering::Relaxed) {
            true => Answer::status(200).after(Duration::from_secs(6)),
            false => Answer::status(200),
        })
        .await;
        let healthy = Receiver::healthy().await;
        let organization = system.organization().await;
        let webhooks = (0..HANGING).map(|at| hanging.url(&format!("/{at}")));
        for url in webhooks.chain((0..HEALTHY).map(|at| healthy.url(&format!("/{at}")))) {
            organization.webhook(url).with("max_in_flight", UNTIL_PROVEN).create().await;
        }
        organization.in_effect().await;
        let amqp = system.amqp().await;
        for proven in 1..=UNTIL_PROVEN {
            amqp.publish(&organization.event("feeds.started")).await;
            hanging.wait_for(proven * HANGING).await;
        }

        hang.store(true, Ordering::Relaxed);
        let mut published = HashMap::new();
        let mut ticks = tokio::time::interval(EVERY);
        for _ in 0..EVENTS {
            ticks.tick().await;
            let event = organization.event("feeds.started");
            published.insert(id(&event).to_owned(), Instant::now());
            amqp.publish(&event).await;
        }
        let requests = healthy.wait_for((UNTIL_PROVEN + EVENTS) * HEALTHY).await;
        let took = |request: &cuewire_tests::Request| {
            Some(request.at - *published.get(&request.event_id())?).filter(|took| *took > LATE)
        };
        let late: Vec<Duration> = requests.iter().filter_map(took).collect();
        assert!(late.len() < EVENTS * HEALTHY / 10, "{} took over {LATE:?}: {late:?}", late.len());
        hang.store(false, Ordering::Relaxed);
        // Places are at most two minutes away.
        hanging.wait_within(Duration::from_secs(150), (UNTIL_PROVEN + EVENTS) * HANGING).await;
    });
}
