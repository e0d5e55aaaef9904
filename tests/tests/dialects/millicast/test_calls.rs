//! Test calls: samples for the webhooks that take them.

use cuewire_tests::system::test;
use cuewire_tests::{Answer, Receiver, Request, until};
use serde_json::{Value, json};

use super::{add, success, verified};
use crate::platform::{Caller, Platform};

/// What the one webhook that takes its type receives of a test call: its path below `test/`, and its body.
async fn tested(millicast: &Caller, receiver: &Receiver, kind: &str, body: &str) -> Request {
    let before = receiver.count();
    let line = format!("POST /platforms/millicast/api/webhooks/test/{kind}");
    assert_eq!(success(millicast.call(&line, body).await), true);
    assert_eq!(receiver.count(), before + 1, "{kind}");
    receiver.requests().pop().unwrap()
}

#[test]
fn a_millicast_test_sends_a_sample_of_its_type_to_every_webhook_that_takes_it() {
    test(async |system| {
        let organization = system.organization().await;
        let millicast = Platform::Millicast.by(&organization.admin).await;
        let (receiver, refusing) =
            (Receiver::healthy().await, Receiver::answering([Answer::status(500)]).await);
        let all = json!({
            "url": receiver.url("/"), "isFeedHooks": true, "isMediaHooks": true, "isRecordingHooks": true,
            "isThumbnailHooks": true, "isTranscoderHooks": true, "isViewerConnectionHooks": true,
        });
        let made = add(&millicast, &all).await;
        let feeds = json!({"url": refusing.url("/"), "isFeedHooks": true});
        add(&millicast, &feeds).await;
        let disabled = add(&millicast, &feeds).await;
        let nothing = json!({"url": receiver.url("/nothing"), "isFeedHooks": false});
        add(&millicast, &nothing).await;
        let native = organization.admin.get("/v1/webhooks").await.expect(200)["data"].clone();
        let native = native.as_array().unwrap();
        let is_it = |of: &Value| native.iter().find(|it| it["number"] == of["id"]).unwrap()["id"].clone();
        let path = |of: &Value| format!("/v1/webhooks/{}", is_it(of).as_str().unwrap());
        let _ = organization.admin.patch(&path(&disabled), &json!({"enabled": false})).await.expect(200);
        organization.in_effect().await;

        let named = r#"{"streamName":"studio","transcoderName":"encoder"}"#;
        for (kind, category, name, plain) in [
            ("Feeds", "feeds", "name", "sample_stream"),
            ("Media", "media", "streamName", "test-record-clip"),
            ("Recordings", "recordings", "streamName", "testy"),
            ("Transcoder", "transcoder", "transcoderName", "test_webhooks"),
            ("ViewerConnection", "viewerConnection", "name", "myAwesomeStream"),
        ] {
            let sample = tested(&millicast, &receiver, kind, "").await;
            assert_eq!(sample.path, "/", "who takes nothing gets none");
            assert_eq!(
                (&sample.json()["type"], &sample.json()["data"][name]),
                (&json!(category), &json!(plain))
            );
            assert!(verified(&sample, &made["secret"]));
            let sample = tested(&millicast, &receiver, kind, named).await;
            let expected = if kind == "Transcoder" { "encoder" } else { "studio" };
            assert_eq!(sample.json()["data"][name], expected, "{kind}");
            if let Some(stream) = sample.json()["data"]["streamId"].as_str() {
                assert!(stream.ends_with("/studio"), "{kind}: {stream}");
            }
        }
        let picture = tested(&millicast, &receiver, "Thumbnail", named).await;
        assert_eq!(picture.header("content-type"), Some("image/jpeg"));
        assert_eq!(picture.header("x-millicast-stream-id"), Some("ZG6NWV/studio"));
        assert!(picture.body.starts_with(&[0xFF, 0xD8]) && verified(&picture, &made["secret"]));
        // One of a kind that is taken by nobody else; the disabled one was left out.
        assert_eq!(refusing.count(), 2, "whatever it answers, it is a success");
        until("all samples are on record", async || {
            let attempts = organization.admin.get(&format!("{}/attempts", path(&made))).await.expect(200);
            (attempts["data"].as_array()?.len() == 11).then_some(())
        })
        .await;
    });
}

#[test]
fn a_millicast_test_by_name_goes_to_the_webhooks_whose_filter_takes_the_name() {
    test(async |system| {
        let organization = system.organization().await;
        let millicast = Platform::Millicast.by(&organization.admin).await;
        let receiver = Receiver::healthy().await;
        for (path, filter) in
            [("/live", json!("^live")), ("/rest", json!("^(rest|studio)$")), ("/all", Value::Null)]
        {
            add(&millicast, &json!({
                "url": receiver.url(path), "isFeedHooks": true, "isTranscoderHooks": true, "isThumbnailHooks": true,
                "filter": filter,
            }))
            .await;
        }
        for (kind, body, expected) in [
            ("Feeds", "", &["/all", "/live", "/rest"][..]),
            ("Feeds", r#"{"webhookType":"Feeds","streamName":"studio"}"#, &["/all", "/rest"]),
            (
                "Feeds",
                r#"{"webhookType":null,"streamName":"live-1","transcoderName":"rest"}"#,
                &["/all", "/live"],
            ),
            ("Transcoder", r#"{"webhookType":"transcoder","transcoderName":"rest"}"#, &["/all", "/rest"]),
            ("Transcoder", r#"{"streamName":"live"}"#, &["/all", "/live", "/rest"]),
            ("Thumbnail", r#"{"webhookType":"Thumbnail","streamName":"live"}"#, &["/all", "/live"]),
        ] {
            let before = receiver.count();
            let line = format!("POST /platforms/millicast/api/webhooks/test/{kind}");
            assert_eq!(success(millicast.call(&line, body).await), true);
            let mut paths: Vec<_> = receiver.requests().drain(before..).map(|request| request.path).collect();
            paths.sort();
            assert_eq!(paths, expected, "{kind} {body}");
        }
        let before = receiver.count();
        for body in [
            r#"{"webhookType":"Media"}"#,
            r#"{"webhookType":"x","streamName":"live"}"#,
            r#"{"webhookType":7}"#,
        ] {
            let reply = millicast.call("POST /platforms/millicast/api/webhooks/test/Feeds", body).await;
            assert!(reply.json["data"]["errors"]["webhookType"][0].is_string(), "{body}: {}", reply.text);
            millicast.failed(reply, 400);
        }
        assert_eq!(receiver.count(), before, "nothing was sent");
    });
}

#[test]
fn a_millicast_test_is_of_the_word_for_recordings_that_a_webhook_takes() {
    test(async |system| {
        let organization = system.organization().await;
        let millicast = Platform::Millicast.by(&organization.admin).await;
        let receiver = Receiver::healthy().await;
        let webhook = organization.webhook(receiver.url("/")).with("format", "millicast");
        webhook.types(&["recording.*"]).create().await;
        let sample = tested(&millicast, &receiver, "Recordings", r#"{"streamName":"studio"}"#).await.json();
        assert_eq!((&sample["type"], &sample["event"]), (&json!("recording"), &json!("started")));
        assert_eq!(sample["data"]["streamName"], "studio");
    });
}
