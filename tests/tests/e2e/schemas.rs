//! Schemas in force: registered, held against events over HTTP and AMQP, relaxed again.

use std::time::Duration;

use cuewire::catalogue;
use cuewire_tests::event::id;
use cuewire_tests::system::test;
use cuewire_tests::{Client, Organization, Receiver, Service, Setup, System, until, wait};
use reqwest::Method;
use serde_json::{Value, json};

/// Within which every change of configuration takes effect.
const SOON: Duration = Duration::from_secs(1);
const SLATES: &str = "/v1/event-types/slate.shown";
const BATCH: &str = "application/cloudevents-batch+json";

async fn put(client: &Client, path: &str, body: &Value) -> cuewire_tests::Reply {
    client.body(Method::PUT, path, "application/json", body.to_string()).await
}

/// A type of one's own whose events need `data.slateId`.
fn slates() -> Value {
    let data = json!({"required": ["slateId"], "properties": {"slateId": {"type": "string"}}});
    json!({"enforced": true, "schema": {"required": ["data"], "properties": {"data": data}}})
}

fn slate(organization: &Organization<'_>, data: Value) -> Value {
    let mut event = organization.event("slate.shown");
    event["data"] = data;
    event
}

/// Puts the schema of slates in force, which must take effect within a second over HTTP and over AMQP.
async fn enforce(system: &System, organization: &Organization<'_>) {
    let admin = &organization.admin;
    let _ = put(admin, SLATES, &slates()).await.expect(200);
    wait::within(SOON, "the schema is in force over HTTP", async || {
        let reply = admin.post("/v1/events", &slate(organization, json!({}))).await;
        (reply.status == 422).then_some(())
    })
    .await;
    organization.in_effect().await;
    until("what was accepted before is out of the way", async || {
        (system.sum(Service::Router, "cuewire_router_batches_in_flight").await == 0.0).then_some(())
    })
    .await;
}

#[test]
fn events_that_do_not_fit_are_refused_over_http_and_nothing_of_their_batch_is_accepted() {
    test(async |system| {
        let (receiver, organization) = (Receiver::healthy().await, system.organization().await);
        organization.webhook(receiver.url("/")).types(&["batch.*", "slate.*"]).create().await;
        let other = system.organization().await;
        enforce(system, &organization).await;
        let publish = async |event: &Value| organization.admin.post("/v1/events", event).await;
        for (data, field) in
            [(json!({}), "data.slateId"), (json!({"slateId": 7}), "data.slateId"), (Value::Null, "data")]
        {
            let reply = publish(&slate(&organization, data)).await;
            assert_eq!(reply.json["errors"][0]["field"], field, "{}", reply.text);
            let _ = reply.problem(422);
        }
        let batch = json!([
            organization.event("batch.first"),
            slate(&organization, json!({"slateId": 7})),
            slate(&organization, json!({"slateId": "s1"})),
        ]);
        let reply = organization.admin.body(Method::POST, "/v1/events", BATCH, batch.to_string()).await;
        let fault = &reply.json["errors"];
        assert_eq!((&fault[0]["index"], &fault[0]["field"]), (&json!(1), &json!("data.slateId")), "{fault}");
        assert_eq!(fault.as_array().unwrap().len(), 1);
        let _ = reply.problem(422);
        // The operator, who names the organization, is held to the same.
        let _ = system.operator().post("/v1/events", &slate(&organization, json!({}))).await.problem(422);

        let fits = slate(&organization, json!({"slateId": "s1"}));
        let _ = publish(&fits).await.expect(202);
        let _ = other.admin.post("/v1/events", &slate(&other, json!({}))).await.expect(202);
        until("it has arrived", async || {
            receiver.requests().iter().find(|it| it.event_id() == id(&fits)).map(drop)
        })
        .await;
        system.stop_all().await;
        assert!(receiver.requests().iter().all(|request| request.json()["type"] != "batch.first"));
    });
}

#[test]
fn what_is_above_the_limit_is_not_checked_and_what_does_not_fit_counts() {
    Setup::default().variable("CUEWIRE_INGEST_LIMIT_PER_SECOND", "1").run(async |system| {
        let organization = system.organization().await;
        enforce(system, &organization).await;
        let unfit = Value::from(vec![slate(&organization, json!({})); 500]).to_string();
        let publish =
            async || organization.admin.body(Method::POST, "/v1/events", BATCH, unfit.clone()).await;
        // Of the thousand tokens a few went by until the schema was in force.
        let _ = publish().await.problem(422);
        let _ = publish().await.problem(429);
    });
}

#[test]
fn a_check_that_takes_long_tells_the_same_and_a_request_may_ask_for_a_bounded_one() {
    test(async |system| {
        let organization = system.organization().await;
        let admin = &organization.admin;
        // A thousand values, each of which is held against each of the event's.
        let items = json!({"allOf": vec![json!({"type": "integer"}); 500]});
        let schema = json!({"properties": {"data": {"items": items}}});
        let path = "/v1/event-types/dear.one";
        let _ = put(admin, path, &json!({"enforced": true, "schema": schema})).await.expect(200);
        let dear = |last: Value| {
            let mut event = organization.event("dear.one");
            event["data"] = vec![json!(0); 4_000].into();
            event["data"][3_999] = last;
            event
        };
        let publish = async |events: Vec<Value>| {
            let body = Value::from(events).to_string();
            admin.body(Method::POST, "/v1/events", BATCH, body).await
        };
        let reply = until("the schema is in force", async || {
            let reply = publish(vec![dear(json!(0)), dear(json!("text")), dear(json!(0))]).await;
            (reply.status != 202).then_some(reply)
        })
        .await;
        let fault = &reply.json["errors"];
        assert_eq!((&fault[0]["index"], &fault[0]["field"]), (&json!(1), &json!("data[3999]")), "{fault}");
        let _ = reply.problem(422);
        let _ = publish(vec![dear(json!(0)); 3]).await.expect(202);
        let problem = publish(vec![dear(json!(0)); 40]).await.problem(413);
        assert!(problem.contains("several requests"), "{problem}");
    });
}

#[test]
fn an_event_that_does_not_fit_is_a_dead_letter_over_amqp_and_goes_out_when_the_schema_is_relaxed() {
    test(async |system| {
        let (receiver, organization) = (Receiver::healthy().await, system.organization().await);
        organization.webhook(receiver.url("/")).create().await;
        let _ = put(&organization.admin, SLATES, &slates()).await.expect(200);
        let amqp = system.amqp().await;
        wait::within(SOON, "the schema is in force over AMQP", async || {
            amqp.publish(&slate(&organization, json!({}))).await;
            let rejected = [("outcome", "rejected")];
            let metric = system.metric(Service::Router, "cuewire_router_events_total", &rejected).await;
            metric.is_some_and(|rejected| rejected > 0.0).then_some(())
        })
        .await;
        let unfit = slate(&organization, json!({"slateId": 7}));
        amqp.publish(&unfit).await;
        let letter = until("it is a dead letter", async || {
            let letters = organization.admin.get("/v1/dead-letters?limit=100").await.expect(200);
            letters["data"].as_array()?.iter().find(|letter| letter["event_id"] == id(&unfit)).cloned()
        })
        .await;
        assert_eq!(letter["reason"], "rejected");
        let detail = "the event does not fit its type's schema: `data.slateId` is not of type \"string\"";
        assert_eq!(letter["detail"], detail);

        let redrive = format!("/v1/dead-letters/{}/redrive", letter["id"].as_str().unwrap());
        assert_eq!(organization.admin.delete(SLATES).await.status, 204);
        organization.in_effect().await;
        let _ = organization.admin.post(&redrive, &json!({})).await.expect(202);
        until("it has arrived", async || {
            receiver.requests().iter().find(|it| it.event_id() == id(&unfit)).map(drop)
        })
        .await;
    });
}

#[test]
fn the_schema_of_a_listed_type_is_put_in_force_and_taken_back() {
    test(async |system| {
        let (organization, other) = (system.organization().await, system.organization_named("other").await);
        let (admin, path) = (&organization.admin, "/v1/event-types/recordings.completed");
        let sample = catalogue::find("recordings.completed").unwrap().sample.get();
        let mut unfit: Value = serde_json::from_str(sample).unwrap();
        let _ = admin.post("/v1/events", &unfit).await.expect(202);
        unfit["data"].as_object_mut().unwrap().remove("recordFileId").expect("it is always there");
        let _ = admin.post("/v1/events", &unfit).await.expect(202);
        let listed = async |client: &Client| {
            let types = client.get("/v1/event-types").await.expect(200);
            let types = types["data"].as_array().unwrap().clone();
            types.into_iter().find(|entry| entry["type"] == "recordings.completed").unwrap()
        };
        assert_eq!(listed(admin).await["enforced"], false);
        let entry = put(admin, path, &json!({"enforced": true})).await.expect(200);
        assert_eq!((&entry["enforced"], &entry["platform"]), (&json!(true), &json!("millicast")));
        assert_eq!(listed(admin).await, entry);
        assert_eq!(listed(&other.admin).await["enforced"], false);
        assert_eq!(listed(&system.operator()).await["enforced"], false);
        let soon = async |what: &str, status: u16| {
            wait::within(SOON, what, async || {
                let reply = admin.post("/v1/events", &unfit).await;
                (reply.status.as_u16() == status).then_some(reply)
            })
            .await
        };
        let refused = soon("the catalogue's schema is in force", 422).await;
        assert_eq!(refused.json["field"], "data.recordFileId");
        let _ = other.admin.post("/v1/events", &unfit).await.expect(202);
        // The other organization is held to it by its name in the upstream platform too.
        let _ = put(&other.admin, path, &json!({"enforced": true})).await.expect(200);
        let mut named = unfit.clone();
        named["organization"] = "other".into();
        wait::within(SOON, "the schema is in force for the other one", async || {
            let reply = system.operator().post("/v1/events", &named).await;
            (reply.status == 422).then_some(())
        })
        .await;
        for (field, value) in [("schema", json!({})), ("description", json!("x")), ("sample", json!({}))] {
            let refused = put(admin, path, &json!({field: value})).await;
            assert_eq!(refused.json["field"], field);
            let _ = refused.problem(422);
        }
        assert_eq!(admin.delete(path).await.status, 204);
        assert_eq!(admin.delete(path).await.status, 404);
        let _ = soon("the catalogue's schema is no longer in force", 202).await;
    });
}

#[test]
fn a_type_of_ones_own_is_listed_as_it_was_sent_and_only_to_its_organization() {
    test(async |system| {
        let (organization, other) = (system.organization().await, system.organization().await);
        let admin = &organization.admin;
        let mut own = slates();
        own["description"] = "A slate was shown.".into();
        own["sample"] = json!({"id": "1", "source": "/s", "type": "slate.shown", "data": {"slateId": "s1"}});
        let made = put(admin, SLATES, &own).await.expect(200);
        assert_eq!((&made["type"], &made["platform"]), (&json!("slate.shown"), &json!("own")));
        for member in ["description", "schema", "sample", "enforced"] {
            assert_eq!(made[member], own[member], "{member}");
        }
        let last = async |client: &Client| {
            let types = client.get("/v1/event-types").await.expect(200);
            types["data"].as_array().unwrap().last().unwrap().clone()
        };
        assert_eq!(last(admin).await, made);
        let viewer = organization.with_role("viewer").await;
        assert_eq!(last(&viewer).await, made);
        let _ = put(&viewer, SLATES, &own).await.problem(403);
        let _ = viewer.delete(SLATES).await.problem(403);
        let _ = put(&system.operator(), SLATES, &own).await.problem(403);
        assert_ne!(last(&other.admin).await, made);
        let _ = other.admin.delete(SLATES).await.problem(404);
        let replaced = put(admin, SLATES, &json!({})).await.expect(200);
        assert!(replaced["schema"].is_null() && replaced["enforced"] == false, "{replaced}");
    });
}

#[test]
fn a_type_that_cannot_be_registered_is_refused_with_the_place() {
    test(async |system| {
        let organization = system.organization().await;
        let sample = |data: Value| json!({"id": "1", "source": "/s", "type": "slate.shown", "data": data});
        let with_sample = |sample: Value| {
            let mut own = slates();
            own["sample"] = sample;
            own
        };
        let deep: Value = (0..100).fold(json!({}), |inner, _| json!({"not": inner}));
        let large = format!("({})", "a|".repeat(30_000));
        for (body, field) in [
            (json!({"enforced": true}), "enforced"),
            (json!({"schema": true}), "schema"),
            (json!({"schema": {"properties": {"data": {"type": "objekt"}}}}), "schema.properties.data.type"),
            (json!({"schema": {"$ref": "http://127.0.0.1:1/a"}}), "schema.$ref"),
            (json!({"schema": {"$ref": "file:///etc/passwd"}}), "schema.$ref"),
            (json!({"schema": {"items": {"$ref": "#"}}}), "schema.$ref"),
            (json!({"schema": deep}), "schema"),
            (json!({"schema": {"pattern": large}}), "schema.pattern"),
            (json!({"schema": {"pattern": "(a{1000}){1000}"}}), "schema.pattern"),
            (json!({"schema": {"title": "x".repeat(70_000)}}), "schema"),
            (with_sample(sample(json!({}))), "sample.data.slateId"),
            (with_sample(json!({"type": "slate.shown"})), "sample"),
            (
                with_sample(
                    json!({"id": "1", "source": "/s", "type": "slate.gone", "data": {"slateId": "s"}}),
                ),
                "sample.type",
            ),
            (json!({"name": "x"}), "name"),
        ] {
            let refused = put(&organization.admin, SLATES, &body).await;
            assert_eq!(refused.json["field"], field, "{}", refused.text);
            let _ = refused.problem(422);
        }
        let refused = put(&organization.admin, "/v1/event-types/nodot", &json!({})).await;
        assert_eq!(refused.json["field"], "type");
    });
}

#[test]
fn the_document_describes_how_types_are_registered() {
    test(async |system| {
        let document = system.operator().get("/openapi.json").await.expect(200);
        let path = &document["paths"]["/v1/event-types/{type}"];
        assert!(path["put"]["requestBody"]["required"] == true && path["delete"].is_object(), "{path}");
        let fields = &document["components"]["schemas"]["NewEventType"]["properties"];
        for field in ["description", "schema", "sample", "enforced"] {
            assert!(fields[field].is_object(), "{fields}");
        }
    });
}
