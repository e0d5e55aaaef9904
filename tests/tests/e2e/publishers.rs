//! An upstream with an exchange of its own: it may send what it was granted, and nothing else.

use cuewire_tests::amqp::Raw;
use cuewire_tests::event::id;
use cuewire_tests::{Receiver, Setup, until};
use lapin::types::{AMQPValue, FieldTable};

#[test]
fn a_publisher_reaches_its_own_category_and_no_other() {
    let grants = "encoder=encodes,jobs; billing=payments@acme";
    Setup::default().variable("CUEWIRE_PUBLISHERS", grants).run(async |system| {
        let receiver = Receiver::healthy().await;
        let acme = system.organization_named("acme").await;
        let other = system.organization().await;
        acme.webhook(receiver.url("/acme")).create().await;
        other.webhook(receiver.url("/other")).create().await;
        let amqp = system.amqp().await;
        let publish = async |exchange: &str, raw: Raw| amqp.publish_raw(&raw.to(exchange)).await;

        let allowed = acme.event("encodes.finished");
        publish("events.in.encoder", Raw::event(&allowed)).await.unwrap();
        let paid = acme.event("payments.made");
        publish("events.in.billing", Raw::event(&paid)).await.unwrap();

        // Not its category: no binding takes it, and it is kept.
        let unbound = acme.event("payments.unbound");
        publish("events.in.encoder", Raw::event(&unbound)).await.unwrap();
        // The type decides, and not the routing key, be it in CC.
        let disguised = acme.event("payments.disguised");
        let mut raw = Raw::event(&disguised);
        raw.routing_key = "encodes.finished".to_owned();
        publish("events.in.encoder", raw).await.unwrap();
        let mut headers = FieldTable::default();
        let cc = vec![AMQPValue::LongString("encodes.finished".into())];
        headers.insert("CC".into(), AMQPValue::FieldArray(cc.into()));
        let carbon = acme.event("payments.carbon");
        let raw = Raw::event(&carbon).properties(|properties| properties.with_headers(headers));
        publish("events.in.encoder", raw).await.unwrap();
        // Not its organization.
        let others = other.event("payments.others");
        publish("events.in.billing", Raw::event(&others)).await.unwrap();

        let letters = until("there are four dead letters", async || {
            let letters = system.database().await;
            let rows = letters.query("SELECT event_id, reason, detail FROM dead_letters", &[]).await.unwrap();
            (rows.len() == 4).then(|| {
                rows.iter()
                    .map(|row| {
                        (row.get::<_, Option<String>>(0), row.get::<_, String>(1), row.get::<_, String>(2))
                    })
                    .collect::<Vec<_>>()
            })
        })
        .await;
        let reason = |event| {
            let letter = letters.iter().find(|(event_id, ..)| event_id.as_deref() == Some(id(event)));
            let (_, reason, detail) =
                letter.unwrap_or_else(|| panic!("{} is not among {letters:?}", event["type"]));
            (reason.as_str(), detail.as_str())
        };
        assert_eq!(reason(&unbound).0, "unrouted");
        for (event, grant) in [(&disguised, "encoder"), (&carbon, "encoder"), (&others, "billing")] {
            let (reason, detail) = reason(event);
            assert_eq!(reason, "rejected");
            assert!(detail.contains(grant), "{detail}");
        }
        system.stop_all().await;
        let mut arrived: Vec<_> =
            receiver.requests().iter().map(|request| (request.path.clone(), request.event_id())).collect();
        arrived.sort();
        let mut expected = [&allowed, &paid].map(|event| ("/acme".to_owned(), id(event).to_owned()));
        expected.sort();
        assert_eq!(arrived, expected);
    });
}
