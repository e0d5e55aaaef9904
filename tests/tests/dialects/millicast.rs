//! Dolby.io Streaming (Millicast).

use cuewire_tests::system::test;
use cuewire_tests::{Answer, Client, Receiver, Reply};
use serde_json::{Value, json};

/// The platform's way to say that a request failed, whose message is a sentence.
#[track_caller]
fn fail(reply: Reply, status: u16) -> Value {
    let body = reply.expect(status);
    assert_eq!(body["status"], "fail", "{body}");
    assert!(body["data"]["message"].as_str().is_some_and(|text| !text.is_empty()), "{body}");
    body["data"].clone()
}

#[track_caller]
fn success(reply: Reply) -> Value {
    let body = reply.expect(200);
    assert_eq!(body["status"], "success", "{body}");
    body["data"].clone()
}

async fn call(client: &Client, line: &str, body: &str) -> Reply {
    let key = client.key().unwrap();
    let content_type = if body.is_empty() { "" } else { "\nContent-Type: application/json" };
    client.raw(&format!("{line} HTTP/1.1\nAuthorization: Bearer {key}{content_type}\n\n{body}")).await
}

#[test]
fn a_millicast_webhook_lives_as_the_platforms_documentation_tells() {
    test(async |system| {
        let receiver = Receiver::healthy().await;
        let organization = system.organization().await;
        let api = &organization.admin;
        let url = receiver.url("/millicast");
        let made = success(
            call(
                api,
                "POST /platforms/millicast/api/webhooks",
                &json!({"url": url, "isFeedHooks": true}).to_string(),
            )
            .await,
        );
        let id = made["id"].as_i64().unwrap();
        let expected = json!({
            "id": id, "url": url, "secret": made["secret"], "isFeedHooks": true, "isMediaHooks": false,
            "isRecordingHooks": false, "isThumbnailHooks": false, "isTranscoderHooks": false,
            "isViewerConnectionHooks": false, "isClipHooks": false, "disabled": null, "filter": null,
        });
        assert_eq!(made, expected);

        let at = format!("/platforms/millicast/api/webhooks/{id}");
        assert_eq!(success(call(api, &format!("GET {at}"), "").await), expected);
        assert_eq!(success(call(api, &format!("GET {at}/"), "").await), expected);
        let list = success(
            call(api, "GET /platforms/millicast/api/webhooks/list?startingId=null&isDescending=True", "")
                .await,
        );
        assert_eq!(list, json!([expected]));

        let changed = success(
            call(api, &format!("PUT {at}"), r#"{"isMediaHooks":true,"isFeedHooks":null,"filter":"^live/"}"#)
                .await,
        );
        assert_eq!((&changed["isMediaHooks"], &changed["isFeedHooks"]), (&json!(true), &json!(true)));
        assert_eq!(changed["filter"], "^live/");
        let cleared =
            success(call(api, &format!("PUT {at}"), r#"{"filter":null,"isMediaHooks":false}"#).await);
        assert_eq!(cleared, expected);

        let renewed = success(call(api, &format!("PUT {at}"), r#"{"refreshSecret":true}"#).await);
        assert_ne!(renewed["secret"], expected["secret"]);

        let tested = success(call(api, "POST /platforms/millicast/api/webhooks/test/Feeds", "").await);
        assert_eq!(tested, json!(true));
        let sample = receiver.wait_for(1).await.remove(0);
        assert_eq!(sample.json()["type"], "feeds");
        assert_eq!(sample.path, "/millicast");

        assert_eq!(success(call(api, &format!("DELETE {at}"), "").await), json!(true));
        fail(call(api, &format!("GET {at}"), "").await, 404);
    });
}
