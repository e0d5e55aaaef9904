//! Signals to stop: SIGTERM, as every rollout sends it, and Ctrl-C.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use cuewire_tests::{Answer, Receiver, Service, Setup, until};
use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::load::Load;

/// To end at once, on a machine that is busy with other tests.
const AT_ONCE: Duration = Duration::from_secs(5);

#[test]
fn sigterm_under_load_loses_nothing_and_sends_nothing_twice() {
    Setup::processes().run(async |system| {
        let load = Load::new(system, 2_000).await;
        let publish = async {
            for (number, some) in load.events.chunks(100).enumerate() {
                system.amqp().await.publish_all(some).await;
                load.receiver.wait_for((number * 100).saturating_sub(300)).await;
            }
        };
        let roll = async {
            for (arrived, service) in [
                (100, Service::Sender),
                (400, Service::Router),
                (700, Service::Sender),
                (1_000, Service::DlqReaper),
                (1_300, Service::Api),
            ] {
                load.receiver.wait_for(arrived).await;
                // The new one first, as rollouts do; `stop` takes the oldest, and wants exit code 0.
                system.start(service).await;
                system.stop(service).await;
            }
        };
        tokio::join!(publish, roll);
        load.arrives().await;
        system.stop_all().await;
        assert_eq!(load.duplicates(), 0);
    });
}

#[test]
fn events_over_http_are_accepted_or_refused_and_never_lost_while_the_api_stops() {
    const CLIENTS: usize = 8;
    Setup::processes().run(async |system| {
        let mut load = Load::new(system, 4_000).await;
        let old = load.organization.admin.clone();
        let accepted = Mutex::new(Vec::new());
        let refused = AtomicUsize::new(0);
        // Each client publishes until it is refused, which it is once the api has stopped.
        let publish = async |events: &[Value]| {
            for event in events {
                let request = old.request(Method::POST, "/v1/events");
                let request = request.header("content-type", "application/json").body(event.to_string());
                match old.try_send(request).await {
                    Ok(reply) if reply.status == 202 => accepted.lock().unwrap().push(event.clone()),
                    Ok(reply) => {
                        assert_eq!(reply.status, 503, "{}", reply.text);
                        refused.fetch_add(1, Ordering::Relaxed);
                    }
                    // Not a word of an answer: it was not accepted, as far as the client knows.
                    Err(_) => {
                        refused.fetch_add(1, Ordering::Relaxed);
                        return;
                    }
                }
            }
        };
        let stop = async {
            until("the clients are under way", async || {
                (accepted.lock().unwrap().len() >= 100).then_some(())
            })
            .await;
            system.start(Service::Api).await;
            system.stop(Service::Api).await;
        };
        let clients = join_all(load.events.chunks(4_000 / CLIENTS).map(publish));
        tokio::join!(clients, stop);
        let accepted = accepted.into_inner().unwrap();
        assert!(accepted.len() < 4_000, "the api stopped during the requests");
        assert!(refused.into_inner() <= CLIENTS, "no more than one request of each client is refused");
        load.events = accepted;
        // What was accepted by an api whose answer was lost with it would come besides.
        load.arrives().await;
        system.stop_all().await;
        assert_eq!(load.duplicates(), 0);
    });
}

#[test]
fn a_test_call_in_flight_is_answered_before_the_api_ends() {
    Setup::processes().run(async |system| {
        let receiver = Receiver::answering([Answer::status(200).after(Duration::from_secs(4))]).await;
        let organization = system.organization().await;
        let webhook = organization.webhook(receiver.url("/")).create().await;
        let path = format!("/v1/webhooks/{}/test", webhook.id);
        let body = json!({});
        let stop = async {
            receiver.wait_for(1).await;
            // It wants exit code 0.
            system.stop(Service::Api).await;
        };
        let (reply, ()) = tokio::join!(organization.admin.post(&path, &body), stop);
        let attempt = reply.expect(200);
        assert_eq!((&attempt["state"], &attempt["status"]), (&json!("delivered"), &json!(200)));
        system.start(Service::Api).await;
    });
}

#[test]
fn ctrl_c_ends_every_service_in_good_order_with_what_is_in_flight() {
    Setup::processes().run(async |system| {
        let told = watch::Sender::new(false);
        let receiver = Receiver::answering([Answer::status(200).when(&told)]).await;
        let organization = system.organization().await;
        organization.webhook(receiver.url("/")).create().await;
        system.amqp().await.publish(&organization.event("a.b")).await;
        receiver.wait_for(1).await;
        for service in Service::ALL {
            system.signal(service, "INT").await;
        }
        until("the sender finishes what is in flight", async || {
            system.said(Service::Sender).await.iter().any(|line| line.contains("stopping")).then_some(())
        })
        .await;
        told.send_replace(true);
        for service in Service::ALL {
            let ended = system.ended(service).await;
            assert_eq!(ended.code, Some(0), "the {}: {}", service.name(), ended.said);
        }
        let delivered = "SELECT count(*) FROM attempts WHERE state = 'delivered'";
        let delivered: i64 = system.database().await.query_one(delivered, &[]).await.unwrap().get(0);
        assert_eq!((delivered, receiver.count()), (1, 1));
    });
}

#[test]
fn a_second_signal_ends_a_service_at_once_and_what_was_in_flight_is_delivered_again() {
    Setup::processes().run(async |system| {
        let receiver = Receiver::answering([Answer::never(), Answer::status(200)]).await;
        let organization = system.organization().await;
        organization.webhook(receiver.url("/")).create().await;
        system.amqp().await.publish(&organization.event("a.b")).await;
        receiver.wait_for(1).await;
        system.signal(Service::Sender, "TERM").await;
        until("the sender finishes what is in flight", async || {
            system.said(Service::Sender).await.iter().any(|line| line.contains("stopping")).then_some(())
        })
        .await;
        let asked = Instant::now();
        system.signal(Service::Sender, "INT").await;
        let ended = system.ended(Service::Sender).await;
        assert_eq!(ended.code, Some(1), "{}", ended.said);
        assert!(asked.elapsed() < AT_ONCE, "{:?}: {}", asked.elapsed(), ended.said);
        let why = "work was still in flight at a second signal to stop; it will be delivered again";
        assert!(ended.said.lines().last().unwrap().contains(why), "{}", ended.said);
        system.start(Service::Sender).await;
        let requests = receiver.wait_for(2).await;
        assert_eq!(requests[0].id(), requests[1].id());
    });
}
