//! An upstream with an exchange of its own: it may send what it was granted, and nothing else.

use cuewire_tests::amqp::Raw;
use cuewire_tests::event::id;
use cuewire_tests::{Receiver, Setup, until};
use lapin::types::{AMQPValue, FieldTable};
use serde_json::Value;

use crate::headers::{table, text};

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

#[test]
fn no_publisher_speaks_for_cuewire() {
    Setup::default().variable("CUEWIRE_PUBLISHERS", "encoder=webhook").run(async |system| {
        let acme = system.organization().await;
        let mut forged = acme.event("webhook.disabled");
        forged["source"] = "/cuewire".into();
        let refused = acme.admin.post("/v1/events", &forged).await.expect(422);
        assert!(refused["detail"].as_str().unwrap().contains("`source` names Cuewire itself"), "{refused}");
        system.amqp().await.publish_raw(&Raw::event(&forged).to("events.in.encoder")).await.unwrap();
        let letter = acme.dead_letters(1).await.remove(0);
        let said = (letter["reason"].as_str().unwrap(), letter["detail"].as_str().unwrap());
        let expected = "the publisher \"encoder\" may not name Cuewire as the source";
        assert_eq!(said, ("rejected", expected));
    });
}

#[test]
fn a_dead_letter_belongs_to_the_organization_it_names_only_if_its_publisher_may_speak_for_it() {
    Setup::default().variable("CUEWIRE_PUBLISHERS", "billing=payments@acme").run(async |system| {
        let acme = system.organization_named("acme").await;
        let other = system.organization().await;
        let broken = |organization: &str| {
            let mut event = cuewire_tests::event("payments.made", organization);
            event["time"] = "yesterday".into();
            event
        };
        let amqp = system.amqp().await;
        let publish = async |exchange: &str, event: &Value| {
            amqp.publish_raw(&Raw::event(event).to(exchange)).await.unwrap();
        };
        publish("events", &broken(&other.id)).await;
        publish("events.in.billing", &broken(&acme.id)).await;
        publish("events.in.billing", &broken("acme")).await;
        // Forged: understood or not, it is not put before the other organization.
        publish("events.in.billing", &broken(&other.id)).await;
        publish("events.in.billing", &other.event("payments.made")).await;
        publish("events.in.billing", &other.event("unbound.type")).await;

        for (organization, count) in [(&other, 1), (&acme, 2)] {
            let letters = organization.dead_letters(count).await;
            assert!(letters.iter().all(|letter| letter["reason"] == "poison"), "{letters:?}");
        }
        let operator = system.operator();
        let letters = until("the operator has the others", async || {
            let letters = operator.get("/v1/dead-letters").await.expect(200);
            letters["data"].as_array().filter(|letters| letters.len() == 3).cloned()
        })
        .await;
        let mut reasons: Vec<_> = letters.iter().map(|letter| letter["reason"].as_str().unwrap()).collect();
        reasons.sort_unstable();
        assert_eq!(reasons, ["poison", "rejected", "unrouted"]);
        other.dead_letters(1).await;
    });
}

#[test]
fn copies_by_header_and_headers_of_ours_that_a_publisher_sets_change_nothing() {
    Setup::default().variable("CUEWIRE_PUBLISHERS", "encoder=encodes; billing=payments").run(
        async |system| {
            let receiver = Receiver::healthy().await;
            let acme = system.organization_named("acme").await;
            let other = system.organization().await;
            acme.webhook(receiver.url("/acme")).create().await;
            let others = other.webhook(receiver.url("/other")).create().await;
            let keys = |key: &str| AMQPValue::FieldArray(vec![text(key)].into());
            let ours = [
                ("cuewire-first-exchange", text("events.in.billing")),
                ("cuewire-again", text("true")),
                ("cuewire-redriven", text(&others.id)),
                ("cuewire-reason", text("exhausted")),
                ("cuewire-organization", text(&other.id)),
                ("cuewire-webhook", text(&others.id)),
                ("cuewire-delivery", text(&others.id)),
                ("cuewire-round", text(&others.id)),
                ("cuewire-not-before", AMQPValue::LongLongInt(i64::MAX)),
            ];
            let amqp = system.amqp().await;
            let publish = async |event: &Value, routing_key: &str, headers: &[(&str, AMQPValue)]| {
                let headers = table(headers);
                let raw = Raw { routing_key: routing_key.to_owned(), ..Raw::event(event) };
                let raw = raw.to("events.in.encoder").properties(|it| it.with_headers(headers));
                amqp.publish_raw(&raw).await.unwrap();
            };
            let allowed = acme.event("encodes.finished");
            let everything =
                [&ours[..], &[("CC", keys("payments.made")), ("BCC", keys("encodes.started"))]].concat();
            publish(&allowed, "encodes.finished", &everything).await;
            assert_eq!(receiver.wait_for(1).await[0].path, "/acme");
            // Were it "again", it would go out a second time.
            publish(&allowed, "encodes.finished", &ours).await;

            // By a copy's key they get through the publisher's binding, and no further.
            let made = acme.event("payments.made");
            publish(&made, "payments.made", &[("CC", keys("encodes.finished"))]).await;
            let refunded = acme.event("payments.refunded");
            publish(&refunded, "payments.refunded", &[("BCC", keys("encodes.finished"))]).await;
            let forged = acme.event("payments.forged");
            publish(&forged, "encodes.finished", &ours).await;
            let letters = acme.dead_letters(3).await;
            for event in [&made, &refunded, &forged] {
                let letter = letters.iter().find(|letter| letter["event_id"] == event["id"]).unwrap();
                assert_eq!(letter["reason"], "rejected");
                assert!(letter["detail"].as_str().unwrap().contains("encoder"), "{letter}");
            }
            system.stop_all().await;
            assert_eq!(receiver.count(), 1);
        },
    );
}
