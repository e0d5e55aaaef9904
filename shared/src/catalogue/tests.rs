//! What holds of every entry of the catalogue.

use std::collections::{BTreeSet, HashSet};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::*;

/// Attributes of CloudEvents 1.0 itself, and the two that hold the data; the rest are extensions.
const OWN_ATTRIBUTES: [&str; 10] = [
    "specversion",
    "id",
    "source",
    "type",
    "subject",
    "time",
    "datacontenttype",
    "dataschema",
    "data",
    "data_base64",
];

fn sample(entry: &EventType) -> Map<String, Value> {
    serde_json::from_str(entry.sample.get()).expect("a sample is an object")
}

fn text<'a>(sample: &'a Map<String, Value>, attribute: &str) -> &'a str {
    sample.get(attribute).and_then(Value::as_str).unwrap_or_default()
}

/// The types of a platform, in the order of the catalogue.
fn types(platform: &str) -> Vec<&'static str> {
    all().iter().filter(|entry| entry.platform == platform).map(|entry| entry.name.as_str()).collect()
}

/// Each of these operations of a category.
fn each(category: &str, operations: &str) -> Vec<String> {
    operations.split(' ').map(|operation| format!("{category}.{operation}")).collect()
}

#[test]
fn every_platform_has_all_of_its_types() {
    let millicast = [
        each("feeds", "started ended"),
        each("media", "processing completed errored deleted"),
        each("recordings", "started completed error deleted"),
        each("transcoder", "ACTIVE STOPPED DELETED"),
        each("viewerConnection", "ViewerAttempt FirstViewerConnection NoActiveViewers"),
        each("thumbnail", "captured"),
    ];
    assert_eq!(types("millicast"), millicast.concat());
    let aioz =
        ["file.received", "encoding.started", "partial.finished", "encoding.finished", "encoding.failed"];
    assert_eq!(types("aioz"), aioz);
    let omegastream = "process_failed process_succeeded deleted failed_to_delete deletion_reverted uploaded \
                       ready_for_processing in_progress completed_processing ready_to_watch";
    assert_eq!(types("omegastream"), each("video", omegastream));
    // What the platform names as uses: an asset is made, metadata and access rights change, a collection gets
    // contents, a transcode and an analysis finish, a review is approved.
    let iconik = [
        "assets.create",
        "assets.update",
        "collections.update",
        "collections.create",
        "transcodes.update",
        "analyses.update",
        "reviews.update",
    ];
    assert_eq!(types("iconik"), iconik);
    assert_eq!(types("cuewire").len(), 4);
}

#[test]
fn every_category_and_operation_of_the_platform_with_the_most_is_there() {
    let (categories, operations): (BTreeSet<_>, BTreeSet<_>) =
        types("quortex").into_iter().map(|name| name.split_once('.').expect("a category")).unzip();
    let expected = "input stream target publishing_points processing access program drm_merchant vod_asset \
        push_endpoint ott_endpoint source destination sender receiver input_stream output_stream scheduled_event \
        output input_status pool_status pool transcoding_preset organization membership user api_key payment plan \
        service credit workspace cdn segment";
    assert_eq!(categories, expected.split_whitespace().collect());
    let expected = "creation update status_change deletion alarm_change";
    assert_eq!(operations, expected.split(' ').collect());
    for entry in all().iter().filter(|entry| entry.platform == "quortex") {
        let sample = sample(entry);
        let applications = ["play", "link", "organization", "billing", "user", "switch", "admin", "ingest"];
        assert!(applications.contains(&text(&sample, "application")), "{}", entry.name);
    }
}

#[test]
fn a_type_is_words_joined_by_dots_and_listed_once() {
    let mut seen = HashSet::new();
    for EventType { name, .. } in all() {
        let is_word = |word: &str| {
            !word.is_empty() && word.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
        };
        assert!(name.len() <= 128 && name.contains('.') && name.split('.').all(is_word), "{name}");
        assert!(seen.insert(name), "{name} is listed twice");
    }
}

#[test]
fn a_description_is_one_sentence() {
    for EventType { name, description, .. } in all() {
        assert!(description.ends_with('.') && description.starts_with(char::is_uppercase), "{name}");
        assert!(!description.contains(". "), "{name} has more than one sentence");
    }
}

#[test]
fn types_that_are_not_always_sent_say_so() {
    let names = |state| -> Vec<&str> {
        all().iter().filter(|entry| entry.state == state).map(|entry| entry.name.as_str()).collect()
    };
    assert_eq!(names(State::Limited), ["video.uploaded"]);
    assert_eq!(
        names(State::NoEffect),
        [
            "video.ready_for_processing",
            "video.in_progress",
            "video.completed_processing",
            "video.ready_to_watch",
        ]
    );
}

#[test]
fn a_sample_is_a_whole_cloudevent_of_its_type() {
    for entry in all() {
        let (name, sample) = (&entry.name, sample(entry));
        assert_eq!(text(&sample, "specversion"), "1.0", "{name}");
        assert_eq!(text(&sample, "type"), name);
        assert!(!text(&sample, "id").is_empty() && !text(&sample, "source").is_empty(), "{name}");
        assert!(OffsetDateTime::parse(text(&sample, "time"), &Rfc3339).is_ok(), "{name}");
        assert!(!(sample.contains_key("data") && sample.contains_key("data_base64")), "{name}");
        assert!(!sample.contains_key("organization"), "{name} could be published by one tenant alone");
    }
}

#[test]
fn the_extensions_of_a_sample_are_strings_with_names_that_cloudevents_allows() {
    for entry in all() {
        for (attribute, value) in sample(entry) {
            let allowed = OWN_ATTRIBUTES.contains(&attribute.as_str())
                || value.is_string()
                    && attribute.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
            assert!(allowed, "{}: {attribute}", entry.name);
        }
    }
}

#[test]
fn a_sample_carries_what_a_delivery_in_its_platforms_format_needs() {
    for entry in all() {
        let sample = sample(entry);
        let needed: &[&str] = match entry.platform.as_str() {
            "millicast" if entry.name == "thumbnail.captured" => {
                &["subject", "feedid", "tokenid", "datacontenttype", "data_base64"]
            }
            "iconik" => &["subject", "realm", "userid", "requestid", "data"],
            "quortex" if ["play", "link"].contains(&text(&sample, "application")) => {
                &["subject", "application", "message", "pooluuid"]
            }
            "quortex" => &["subject", "application", "message"],
            _ => &["data"],
        };
        for attribute in needed {
            assert!(sample.contains_key(*attribute), "{} lacks {attribute}", entry.name);
        }
    }
}

fn validator(entry: &EventType) -> jsonschema::Validator {
    let schema: Value = serde_json::from_str(entry.schema.get()).expect("a schema is JSON");
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema", "{}", entry.name);
    let options = jsonschema::draft202012::options().should_validate_formats(true);
    options.build(&schema).unwrap_or_else(|error| panic!("{}: {error}", entry.name))
}

#[test]
fn a_sample_validates_against_the_schema_beside_it() {
    for entry in all() {
        let sample = Value::Object(sample(entry));
        let errors: Vec<_> = validator(entry).iter_errors(&sample).map(|error| error.to_string()).collect();
        assert!(errors.is_empty(), "{}: {errors:?}", entry.name);
    }
}

#[test]
fn an_event_without_a_part_that_is_always_there_or_with_one_of_another_kind_does_not_validate() {
    for entry in all() {
        let (validator, sample) = (validator(entry), sample(entry));
        let schema: Value = serde_json::from_str(entry.schema.get()).expect("a schema is JSON");
        let required = schema["required"].as_array().expect("every type needs something");
        assert!(!required.is_empty(), "{}", entry.name);
        for name in required.iter().filter_map(Value::as_str) {
            let mut spoilt = sample.clone();
            spoilt.remove(name);
            assert!(!validator.is_valid(&spoilt.clone().into()), "{} without {name}", entry.name);
            spoilt.insert(name.to_owned(), true.into());
            assert!(!validator.is_valid(&spoilt.into()), "{} with {name}: true", entry.name);
        }
        let more = ("further".to_owned(), Value::from("text"));
        let mut extended = sample.clone();
        extended.extend([more.clone()]);
        if let Some(Value::Object(data)) = extended.get_mut("data") {
            data.extend([more]);
        }
        assert!(validator.is_valid(&extended.into()), "{} with further members", entry.name);
    }
}

#[test]
fn a_schema_knows_what_the_platform_documents_of_the_data() {
    let is_valid = |name: &str, change: &dyn Fn(&mut Value)| {
        let entry = find(name).expect("the catalogue has the type");
        let mut event = Value::Object(sample(entry));
        change(&mut event);
        validator(entry).is_valid(&event)
    };
    for (name, pointer, value, valid) in [
        ("feeds.started", "/data/feedId", Value::Null, false),
        ("media.completed", "/data/type", "film".into(), false),
        ("recordings.completed", "/data/metadata/tracks/0/width", "wide".into(), false),
        ("transcoder.ACTIVE", "/data/createdOn", "yesterday".into(), false),
        ("encoding.finished", "/data/status", "fine".into(), false),
        ("encoding.finished", "/data/media_type", "live-stream".into(), true),
        ("assets.update", "/data/external_id", Value::Null, true),
        ("collections.create", "/data/object_type", 7.into(), false),
        ("input.status_change", "/data/current_status", "asleep".into(), false),
        ("input.status_change", "/data/stream", "failover".into(), true),
        ("publishing_points.update", "/data/configuration/enabled", "yes".into(), false),
        ("video.deleted", "/data/video", "film".into(), false),
        ("webhook.failing", "/data/failures_in_a_row", 0.into(), false),
    ] {
        let change = |event: &mut Value| *event.pointer_mut(pointer).expect(pointer) = value.clone();
        assert_eq!(is_valid(name, &change), valid, "{name} with {pointer}: {value}");
    }
    let remove = |event: &mut Value, name: &str| drop(event.as_object_mut().map(|event| event.remove(name)));
    assert!(!is_valid("input.creation", &|event| remove(event, "pooluuid")));
    assert!(!is_valid("input.status_change", &|event| remove(event, "data")));
    assert!(is_valid("input.status_change", &|event| {
        event["application"] = "play".into();
        remove(event, "data");
    }));
    assert!(is_valid("collections.create", &|event| {
        event["realm"] = "entity".into();
        event["data"] = serde_json::json!({});
    }));
    assert!(is_valid("media.completed", &|event| {
        let data = event["data"].as_object_mut().expect("an object");
        for name in ["tokenId", "streamName", "streamId"] {
            data.remove(name);
        }
        data.insert("channelId".to_owned(), "c1".into());
    }));
}

#[test]
fn every_schema_is_used() {
    for (entries, schemas) in FILES {
        let schemas: Map<String, Value> = serde_json::from_str(schemas).expect("an object of schemas");
        for name in schemas.keys() {
            assert!(entries.contains(&format!(r#""schema":"{name}""#)), "no type has the schema {name}");
        }
    }
}

#[test]
fn the_sample_of_a_thumbnail_is_a_jpeg() {
    let sample = sample(find("thumbnail.captured").expect("the catalogue has thumbnails"));
    let jpeg = STANDARD.decode(text(&sample, "data_base64")).expect("data_base64 is base64");
    assert!(jpeg.starts_with(&[0xff, 0xd8]) && jpeg.ends_with(&[0xff, 0xd9]));
    assert_eq!(text(&sample, "datacontenttype"), "image/jpeg");
}

#[test]
fn a_type_is_found_by_its_exact_name() {
    assert_eq!(find("transcoder.ACTIVE").map(|entry| entry.platform.as_str()), Some("millicast"));
    assert!(find("transcoder.active").is_none());
    assert!(find("transcoder").is_none());
}

#[test]
fn the_answer_shows_an_entry_as_its_file_has_it() {
    let entry = find("feeds.ended").expect("the catalogue has feeds");
    let json = serde_json::to_string(entry).expect("an entry can be written");
    let schema = format!(r#""schema":{},"#, entry.schema);
    assert_eq!(
        json.replace(&schema, ""),
        concat!(
            r#"{"type":"feeds.ended","platform":"millicast","state":"live","#,
            r#""description":"A feed stopped being published to a stream.","#,
            r#""sample":{"specversion":"1.0","id":"sample-feeds.ended","source":"/samples/millicast","#,
            r#""type":"feeds.ended","time":"2021-12-02T16:45:01.075Z","#,
            r#""data":{"feedId":"369e4a86-f937-4254-bd9f-99dc484d2bd6","accountId":"ZG6NWV","#,
            r#""name":"sample_stream","streamId":"ZG6NWV/sample_stream","active":false,"#,
            r#""ended":1638463500963}}}"#,
        )
    );
}

#[test]
fn a_category_that_no_platform_has_is_other_as_a_label() {
    for (category, label) in [("recordings", "recordings"), ("Recordings", "other"), ("made-up", "other")] {
        assert_eq!(category_label(category), label);
    }
}
