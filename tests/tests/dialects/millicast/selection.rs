//! Which events a webhook takes: flags choose the types, the filter the streams.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use cuewire_tests::system::test;
use cuewire_tests::{Organization, Receiver};
use serde_json::{Value, json};

use super::{add, at, read, update};
use crate::platform::Platform;
use crate::taken_by;

fn event_of(organization: &Organization<'_>, event_type: &str, data: Value) -> Value {
    let mut event = organization.event(event_type);
    event["data"] = data;
    event
}

/// A picture of the stream with this id.
fn thumbnail(organization: &Organization<'_>, stream: &str) -> Value {
    let mut event = organization.event("thumbnail.captured");
    event.as_object_mut().unwrap().remove("data");
    let jpeg = BASE64.encode([0xFF, 0xD8, 0xFF, 0xE0, 0x00]);
    let members = json!({
        "subject": stream, "feedid": "f", "tokenid": "1", "datacontenttype": "image/jpeg", "data_base64": jpeg,
    });
    event.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
    event
}

#[test]
fn a_millicast_filter_is_applied_to_a_thumbnails_name_and_never_to_its_account() {
    test(async |system| {
        let receiver = Receiver::healthy().await;
        let organization = system.organization().await;
        let millicast = Platform::Millicast.by(&organization.admin).await;
        let fields = json!({"url": receiver.url("/"), "isFeedHooks": false, "isThumbnailHooks": true});
        let made = add(&millicast, &fields).await;
        for (regex, taken, left) in [
            ("(^live|test)", ["acct/live1", "acct/my-test"], ["test/cam", "acct/alive"]),
            ("(?:^a|^b)+/", ["acct/a/c", "acct/b/"], ["a/c", "b/x"]),
            ("^[^/]*$", ["acct/one", "a/"], ["acct/one/two", "acct//"]),
            (r"(\A|-)live", ["acct/live", "acct/my-live"], ["live/cam", "-live/cam"]),
        ] {
            let changed = update(&millicast, &made, &json!({"filter": regex}).to_string()).await;
            assert_eq!(changed["filter"], regex);
            organization.in_effect().await;
            for (streams, count) in [(taken, 1), (left, 0)] {
                for stream in streams {
                    let taken = taken_by(&organization, &thumbnail(&organization, stream)).await;
                    assert_eq!(taken.len(), count, "{regex} on {stream}");
                }
            }
        }
    });
}

#[test]
fn millicast_flags_choose_the_types_and_the_filter_the_streams() {
    test(async |system| {
        let receiver = Receiver::healthy().await;
        let organization = system.organization().await;
        let millicast = Platform::Millicast.by(&organization.admin).await;
        let nothing = add(&millicast, &json!({"url": receiver.url("/nothing"), "isFeedHooks": false})).await;
        let made = add(&millicast, &json!({
            "url": receiver.url("/some"), "isFeedHooks": false, "isRecordingHooks": true, "isTranscoderHooks": true,
            "isThumbnailHooks": true, "filter": "^live/",
        })).await;
        assert_eq!(made["filter"], "^live/");
        organization.in_effect().await;
        let amqp = system.amqp().await;
        let event = |event_type: &str, data: Value| event_of(&organization, event_type, data);
        let thumbnail = |stream: &str| thumbnail(&organization, stream);
        for (event, wanted) in [
            (event("recordings.started", json!({"streamName": "live/one"})), true),
            (event("recording.started", json!({"streamName": "live/two"})), true),
            (event("recordings.started", json!({"streamName": "not/live/"})), false),
            (event("transcoder.ACTIVE", json!({"transcoderName": "live/three"})), true),
            (event("transcoder.ACTIVE", json!({"transcoderName": "other"})), false),
            (event("feeds.started", json!({"name": "live/four"})), false),
            (thumbnail("account/live/five"), true),
            (thumbnail("live/six"), false),
        ] {
            amqp.publish(&event).await;
            assert_eq!(organization.deliveries(&event).await.len(), usize::from(wanted), "{event}");
        }
        let clips = json!({"url": receiver.url("/clips"), "isFeedHooks": false, "isClipHooks": true});
        assert_eq!(add(&millicast, &clips).await["isClipHooks"], true);
        organization.in_effect().await;
        let clip = event("clip.created", json!({"streamName": "other"}));
        amqp.publish(&clip).await;
        assert_eq!(organization.deliveries(&clip).await.len(), 1);
        let changed = update(&millicast, &made, r#"{"filter":"a/b|c\\/d","isMediaHooks":true}"#).await;
        assert_eq!((&changed["filter"], &changed["isMediaHooks"]), (&json!("a/b|c/d"), &json!(true)));
        let cleared = update(&millicast, &made, r#"{"filter":null,"isRecordingHooks":null}"#).await;
        assert_eq!((&cleared["filter"], &cleared["isRecordingHooks"]), (&Value::Null, &json!(true)));
        let refused = millicast.call(&format!("PUT {}", at(&made)), r#"{"filter":"(unclosed"}"#).await;
        assert!(refused.json["data"]["errors"]["filter"].is_array(), "{}", refused.text);
        millicast.failed(refused, 400);
        assert_eq!(read(&millicast, &nothing).await, nothing);
    });
}

#[test]
fn a_millicast_flag_that_is_switched_off_widens_nothing() {
    test(async |system| {
        let receiver = Receiver::healthy().await;
        let organization = system.organization().await;
        let millicast = Platform::Millicast.by(&organization.admin).await;
        let native =
            organization.webhook(receiver.url("/")).types(&["*.deleted"]).with("format", "millicast");
        let native = native.create().await;
        let made = json!({"id": native.json["number"]});
        let changed = update(&millicast, &made, r#"{"isMediaHooks":false}"#).await;
        assert_eq!((&changed["isMediaHooks"], &changed["isRecordingHooks"]), (&json!(false), &json!(true)));
        organization.in_effect().await;
        for (event_type, count) in [
            ("media.deleted", 0),
            ("recordings.deleted", 1),
            ("recording.deleted", 1),
            ("recordings.started", 0),
            ("recording.completed", 0),
            ("feeds.started", 0),
        ] {
            let event = event_of(&organization, event_type, json!({"streamName": "s"}));
            assert_eq!(taken_by(&organization, &event).await.len(), count, "{event_type}");
        }
        let none = update(&millicast, &made, r#"{"isRecordingHooks":false}"#).await;
        assert!(none.as_object().unwrap().values().all(|value| *value != true), "{none}");
        organization.in_effect().await;
        let event = event_of(&organization, "recordings.deleted", json!({"streamName": "s"}));
        assert_eq!(taken_by(&organization, &event).await, [""; 0]);
    });
}
