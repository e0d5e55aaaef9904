//! One event, many webhooks.

use std::collections::HashSet;

use cuewire_tests::{Receiver, Service, Setup, until};

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
