//! What a client has read and sends back as it stands: it is taken, and changes nothing, however the webhook was made.

use cuewire_tests::system::test;
use cuewire_tests::{Organization, Webhook};
use serde_json::{Value, json};

use crate::platform::{Caller, Platform, Right, Route, Things};

/// Native webhooks of the platform's format that say more than its clients may: long names, words that are none of
/// the platform's, more types than it would take.
fn odd_webhooks(platform: Platform) -> Vec<Value> {
    let long = "n".repeat(400);
    let many = |count: usize, last: &str| -> Vec<String> {
        (0..count).map(|n| format!("c{n}.o")).chain([last.to_owned()]).collect()
    };
    let text = |length: usize| "x".repeat(length);
    let odd = match platform {
        Platform::Millicast => vec![
            json!({"event_types": ["*"]}),
            json!({"event_types": ["feeds.*", "a.b"], "filter": "(data.streamName = // OR data.name = // OR data.transcoderName = // OR category = \"thumbnail\" AND subject_name = //)"}),
            json!({"filter": "data.streamName = /a/"}),
        ],
        Platform::Aioz => vec![json!({"event_types": ["*.finished", "a.b"], "filter": "data.title != null"})],
        Platform::Iconik => vec![
            json!({"filter": "realm = \" \" AND object_id = \"\""}),
            json!({"filter": "category = \"\" AND operation = \" \" AND x = 1"}),
            json!({"event_types": many(199, "a.*"), "filter": format!("realm = \"{}\"", text(4_000))}),
            json!({"event_types": ["*.update"], "description": "a\nb", "headers": {"x-a": "b"}}),
        ],
        Platform::Quortex => vec![
            json!({"event_types": many(199, "a.*"), "filter": format!("pooluuid = \"{}\"", text(300))}),
            json!({"filter": "application = \"\" AND pooluuid = \"\" AND subject = \"\""}),
            json!({"filter": format!("category = \"a b\" AND operation = \"c d\" AND application = \"{}\"", text(129))}),
            json!({"event_types": ["input.*"], "filter": "(category = \"input\")"}),
            json!({"url": format!("http://127.0.0.1:9/{}", text(1_500))}),
        ],
        Platform::Omegastream => {
            vec![json!({"event_types": many(195, "video.*")}), json!({"event_types": ["*.deleted"]})]
        }
    };
    let plain = [
        json!({"name": long}),
        json!({"filter": "id = null", "enabled": false}),
        json!({"filter": "id = null AND x = 1"}),
        json!({"event_types": ["a.b"], "filter": "x = 1 AND id = null"}),
        json!({}),
    ];
    odd.into_iter().chain(plain).collect()
}

async fn make_native(organization: &Organization<'_>, platform: Platform, members: &Value) -> Webhook {
    let webhook = organization.webhook("http://127.0.0.1:9/").with("format", platform.name());
    let members = members.as_object().unwrap().iter();
    members.fold(webhook, |webhook, (name, value)| webhook.with(name, value.clone())).create().await
}

/// What the platform shows of a webhook, as its clients send it back.
async fn read(caller: &Caller, things: &Things) -> Value {
    let reads = |route: &&Route| route.right == Right::Read;
    let mut routes = caller.platform.routes().iter().filter(reads);
    if caller.platform == Platform::Omegastream {
        let all = caller.follow(routes.next().unwrap(), things).await.expect(200);
        return all.as_array().unwrap().iter().find(|it| it["id"] == things.id.as_str()).unwrap().clone();
    }
    let one = routes.find(|route| route.names_one()).unwrap();
    let shown = caller.follow(one, things).await.expect(200);
    match caller.platform {
        Platform::Millicast => shown["data"].clone(),
        Platform::Aioz => shown["data"]["webhook"].clone(),
        Platform::Iconik | Platform::Quortex | Platform::Omegastream => shown,
    }
}

#[test]
fn what_a_client_has_read_and_sends_back_is_taken_and_changes_nothing() {
    test(async |system| {
        for platform in Platform::ALL {
            let organization = system.organization().await;
            let caller = platform.by(&organization.admin).await;
            for members in odd_webhooks(platform) {
                let made = make_native(&organization, platform, &members).await;
                let things = Things { id: platform.id_of_native(&made.json), ..Things::default() };
                let shown = read(&caller, &things).await;
                let updates = |route: &&Route| matches!(route.method, "PUT" | "PATCH");
                for route in platform.routes().iter().filter(updates) {
                    let line = route.line(platform, &things);
                    let _ = caller.call(&line, &shown.to_string()).await.expect(200);
                    let kept = organization.admin.get(&format!("/v1/webhooks/{}", made.id)).await.expect(200);
                    for (field, value) in
                        kept.as_object().unwrap().iter().filter(|(it, _)| *it != "updated_at")
                    {
                        assert_eq!(*value, made.json[field], "{line}: {field} by {shown}");
                    }
                    let mut again = read(&caller, &things).await;
                    let mut before = shown.clone();
                    for changing in ["updated_at", "date_modified"] {
                        let _ = (
                            again.as_object_mut().unwrap().remove(changing),
                            before.as_object_mut().unwrap().remove(changing),
                        );
                    }
                    assert_eq!(again, before, "{line}");
                }
            }
        }
    });
}
