//! The end of a test: the services stop in the order of the flow, each when it has nothing left to do, and
//! then nothing may be left anywhere.

use std::time::{Duration, Instant};

use cuewire::amqp::topology::ROUTER_EVENTS;

use crate::amqp::Amqp;
use crate::running::Service;
use crate::system::System;
use crate::wait::until;

/// What a service gives back when it stops shows in its queue a moment later.
const GIVEN_BACK_WITHIN: Duration = Duration::from_millis(200);
/// More would mean that something comes back for ever.
const MAX_ROUNDS: usize = 5;
/// What the reaper has to say of what failed goes through the flow once more, and causes no more of it.
const MAX_PASSES: usize = 3;

/// Deliveries of logged events that have neither reached their receiver nor become a dead letter.
const UNENDED: &str = "
    SELECT count(*) FROM events, unnest(events.webhooks) AS wanted (webhook)
    WHERE NOT EXISTS (
        SELECT FROM attempts
        WHERE attempts.organization_id = events.organization_id AND attempts.event_source = events.source
            AND attempts.event_id = events.id AND attempts.webhook_id = wanted.webhook
            AND attempts.state IN ('delivered', 'dead'))
    AND NOT EXISTS (
        SELECT FROM dead_letters
        WHERE dead_letters.event_source = events.source AND dead_letters.event_id = events.id
            AND dead_letters.webhook_id = wanted.webhook)";

impl System {
    /// Stops everything in the order of the flow: each service once it has nothing left to do. From then on
    /// nothing can arrive anywhere any more. Fails the test if something is left in a queue, or if a delivery
    /// of any event on record has neither arrived nor become a dead letter.
    pub async fn stop_all(&self) {
        for _ in 0..MAX_PASSES {
            self.stop_in_order().await;
            if !self.has_something_to_route().await {
                break;
            }
            for service in [Service::Router, Service::Sender, Service::DlqReaper] {
                self.start_unready(service).await;
            }
        }
        let amqp = self.fresh_amqp().await;
        for queue in self.queues() {
            assert_eq!(amqp.depth(&queue).await.expect("every queue is declared"), 0, "{queue} is not empty");
        }
    }

    async fn has_something_to_route(&self) -> bool {
        let amqp = self.fresh_amqp().await;
        amqp.depth(ROUTER_EVENTS).await.expect("every queue is declared") > 0
    }

    async fn stop_in_order(&self) {
        for service in Service::ALL {
            for round in 1.. {
                self.is_idle(service).await;
                let stopped = self.stop_every(service).await;
                if stopped == 0 || self.stay_empty(service).await {
                    break;
                }
                assert!(round < MAX_ROUNDS, "the {} never gets done", service.name());
                // It had been sent what it had not yet begun, which it may give back.
                self.start_unready(service).await;
            }
        }
    }

    /// Waits until a service has nothing to do, as far as can be seen from outside.
    async fn is_idle(&self, service: Service) {
        let amqp = self.fresh_amqp().await;
        for queue in self.queues_of(service) {
            until(&format!("{queue} is empty"), async || {
                (amqp.depth(&queue).await.expect("every queue is declared") == 0).then_some(())
            })
            .await;
        }
        let gauges: &[&str] = match service {
            Service::Api | Service::DlqReaper => &[],
            Service::Router => &["cuewire_router_batches_in_flight"],
            Service::Sender => {
                &["cuewire_sender_waiting", "cuewire_sender_requests_in_flight", "cuewire_sender_held"]
            }
        };
        for gauge in gauges {
            until(&format!("{gauge} is 0"), async || (self.sum(service, gauge).await == 0.0).then_some(()))
                .await;
        }
        let nothing_is_left = match service {
            Service::Api | Service::Router => return,
            Service::Sender => ("every delivery has arrived or become a dead letter", UNENDED),
            Service::DlqReaper if !self.runs(service).await => return,
            Service::DlqReaper => ("all notices are published", "SELECT count(*) FROM notices"),
        };
        let (what, count) = nothing_is_left;
        let database = self.fresh_database().await;
        until(what, async || {
            let left: i64 = database.query_one(count, &[]).await.ok()?.get(0);
            (left == 0).then_some(())
        })
        .await;
    }

    /// The queues that must be empty before a service stops.
    fn queues_of(&self, service: Service) -> Vec<String> {
        let prefixes: &[&str] = match service {
            Service::Api => &[],
            Service::Router => &["router."],
            Service::Sender => &["sender.", "retry."],
            Service::DlqReaper => &["dlq-reaper."],
        };
        let mine = |queue: &String| prefixes.iter().any(|prefix| queue.starts_with(prefix));
        self.queues().into_iter().filter(mine).collect()
    }

    /// Whether nothing comes back into a service's queues after it has stopped.
    async fn stay_empty(&self, service: Service) -> bool {
        let amqp = self.fresh_amqp().await;
        let queues = self.queues_of(service);
        let stopped = Instant::now();
        while !queues.is_empty() && stopped.elapsed() < GIVEN_BACK_WITHIN {
            for queue in &queues {
                if amqp.depth(queue).await.expect("every queue is declared") > 0 {
                    return false;
                }
            }
        }
        true
    }

    /// The test's own connection may have been lost to a fault.
    async fn fresh_amqp(&self) -> Amqp {
        Amqp::open(self.amqp_url()).await.expect("the broker is there")
    }
}
