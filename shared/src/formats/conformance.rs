//! What holds of every format: one suite over all of them, and what its tests are made of.

use std::collections::HashSet;
use std::sync::LazyLock;
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;
use time::OffsetDateTime;
use time::macros::datetime;
use uuid::Uuid;

use super::*;
use crate::catalogue;
use crate::delivery::{Answer, Failure, Reason};
use crate::event::{AttributeValue, Data};

/// When every request of the tests is sent.
pub(super) const NOW: OffsetDateTime = datetime!(2026-01-31 09:30:00.123 UTC);

static OWNER: LazyLock<Owner> = LazyLock::new(|| Owner {
    id: OrganizationId(Uuid::from_u128(0x0190_a6f2_4c1e_7b52_9c7d_2f6f_1f3f_8a10)),
    name: "Acme".to_owned(),
    external_id: Some("acme-42".to_owned()),
});

/// The newest first, as while the second is being replaced.
pub(super) const SECRET_TEXTS: [&str; 2] =
    ["whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"];
static SECRETS: LazyLock<Vec<Secret>> =
    LazyLock::new(|| SECRET_TEXTS.iter().map(|text| text.parse().unwrap()).collect());

/// An event on its way to a webhook of an organization that has a name upstream.
pub(super) fn outgoing(event: &Event) -> Outgoing<'_> {
    Outgoing {
        event,
        owner: &OWNER,
        webhook: WebhookId(Uuid::from_u128(0x0190_a6f2_4c1e_7b52_9c7d_2f6f_1f3f_8a12)),
        delivery: DeliveryId(Uuid::from_u128(0x5f0c_7d0e_8a5b_5d3f_9b61_0d3f_4e1c_2a77)),
        secrets: &SECRETS,
        now: NOW,
    }
}

/// The catalogue's sample of a type.
pub(super) fn sample(event_type: &str) -> Event {
    read(catalogue::find(event_type).unwrap())
}

/// An entry's sample.
pub(super) fn read(entry: &catalogue::EventType) -> Event {
    Event::from_json(&Bytes::copy_from_slice(entry.sample.get().as_bytes())).unwrap()
}

/// A receiver's answer.
pub(super) fn answered(status: u16, body: &str, retry_after: Option<&str>) -> Outcome {
    let headers =
        retry_after.map(|value| ("Retry-After".to_owned(), Bytes::copy_from_slice(value.as_bytes())));
    let body = Bytes::copy_from_slice(body.as_bytes());
    Outcome::Answered(Answer { status, headers: headers.into_iter().collect(), body })
}

fn with_data(event_type: &str, data: Value) -> Event {
    Event { data: Data::Json(data.to_string().into()), ..sample(event_type) }
}

fn header<'a>(request: &'a Request, name: &str) -> Option<&'a str> {
    request.headers.iter().find(|(key, _)| *key == name).map(|(_, value)| value.as_str())
}

const CHAT: [Format; 3] = [Format::Slack, Format::GoogleChat, Format::Teams];
const PLATFORMS: [Format; 5] =
    [Format::Millicast, Format::Aioz, Format::Iconik, Format::Quortex, Format::Omegastream];

#[test]
fn a_format_is_known_by_its_name_alone_and_shown_by_the_same() {
    let names: HashSet<_> = Format::ALL.iter().map(|format| format.as_str()).collect();
    assert_eq!(names.len(), Format::ALL.len());
    for format in Format::ALL {
        assert_eq!(Format::parse(format.as_str()), Some(format));
        assert_eq!(serde_json::to_value(format).unwrap(), format.as_str());
    }
    assert_eq!(Format::parse("Slack"), None);
}

#[test]
fn every_request_is_whole_and_made_alike_twice() {
    for (format, entry) in
        Format::ALL.iter().flat_map(|format| catalogue::all().iter().map(move |it| (format, it)))
    {
        let what = format!("{} as {}", entry.name, format.as_str());
        let event = read(entry);
        let prepared = format.prepare(&outgoing(&event));
        assert_eq!(prepared, format.prepare(&outgoing(&event)), "{what}");
        assert_eq!(prepared.is_ok(), format.can_carry(&event).is_ok(), "{what}");
        let Ok(request) = prepared else { continue };

        let event_headers = request.event_headers.iter().map(|(name, value)| (name.as_str(), value));
        let headers: Vec<_> =
            request.headers.iter().map(|(name, value)| (*name, value)).chain(event_headers).collect();
        let mut names = HashSet::new();
        for (name, value) in headers {
            assert!(names.insert(name), "{what}: {name} twice");
            assert_eq!(name, name.to_ascii_lowercase());
            assert!(name.parse::<axum::http::HeaderName>().is_ok(), "{what}: {name}");
            assert!(axum::http::HeaderValue::from_str(value).is_ok(), "{what}: {value}");
        }
        let content_type = header(&request, "content-type").expect(&what);
        if crate::event::is_json(content_type) {
            assert!(serde_json::from_slice::<Value>(&request.body).unwrap().is_object(), "{what}");
        } else {
            assert_eq!(event.data, Data::Binary(request.body.clone()), "{what}");
        }
        let is_signed = names.contains("webhook-signature");
        let has_hmac = names.contains("x-millicast-signature");
        let expected = match format.signing() {
            Signing::StandardWebhooks => (true, false),
            Signing::SingleHmac => (false, true),
            Signing::None => (false, false),
        };
        assert_eq!((is_signed, has_hmac), expected, "{what}");
    }
}

#[test]
fn a_format_that_is_no_platforms_carries_every_sample_and_a_platforms_all_of_its_own() {
    for entry in catalogue::all() {
        for format in Format::ALL {
            if !PLATFORMS.contains(&format) || entry.platform == format.as_str() {
                let carried = format.can_carry(&read(entry));
                assert_eq!(carried, Ok(()), "{} as {}", entry.name, format.as_str());
            }
        }
    }
}

#[test]
fn a_platforms_receiver_sees_the_documented_fields_in_their_order_and_no_others() {
    let quortex = [
        "application",
        "category",
        "operation",
        "resource_uuid",
        "organization_uuid",
        "organization",
        "message",
        "pool_uuid",
        "metadata",
    ];
    let cases: [(Format, &str, &[&str]); 8] = [
        (Format::Millicast, "recordings.completed", &["type", "event", "timestamp", "data"]),
        (
            Format::Aioz,
            "encoding.finished",
            &["type", "emitted_at", "media_id", "media_type", "qualities", "title", "status", "user_id"],
        ),
        (
            Format::Iconik,
            "collections.create",
            &[
                "system_domain_id",
                "event_type",
                "object_id",
                "user_id",
                "realm",
                "operation",
                "data",
                "request_id",
            ],
        ),
        (Format::Quortex, "input.status_change", &quortex),
        (Format::Quortex, "input.creation", &quortex[..8]),
        (Format::Quortex, "payment.creation", &quortex[..7]),
        (
            Format::Omegastream,
            "video.deleted",
            &["id", "coid", "api_version", "created", "type", "data", "endpoint_id", "response"],
        ),
        (
            Format::Standard,
            "feeds.started",
            &["id", "type", "timestamp", "source", "subject", "organization", "data"],
        ),
    ];
    for (format, event_type, fields) in cases {
        let mut event = sample(event_type);
        // What a format does not document must not slip in.
        event.set_extension("traceparent", AttributeValue::Text("00-1-2-01".to_owned()));
        if format == Format::Standard {
            event = sample(event_type);
        }
        let body = format.prepare(&outgoing(&event)).unwrap().body;
        let json: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(json.as_object().unwrap().len(), fields.len(), "{}: {json}", format.as_str());
        let text = std::str::from_utf8(&body).unwrap();
        let places: Vec<_> = fields.iter().map(|field| text.find(&format!("\"{field}\":"))).collect();
        assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{}: {text}", format.as_str());
    }
}

#[test]
fn an_event_that_lacks_what_a_format_needs_is_not_sent_and_the_attribute_is_named() {
    let subject: fn(&mut Event) = |event| event.subject = None;
    let data: fn(&mut Event) = |event| event.data = Data::Absent;
    let cases: [(Format, &str, fn(&mut Event), &str); 8] = [
        (Format::Millicast, "feeds.started", data, "data"),
        (Format::Aioz, "encoding.finished", data, "data"),
        (Format::Iconik, "assets.update", subject, "subject"),
        (Format::Iconik, "assets.update", data, "data"),
        (Format::Quortex, "input.creation", subject, "subject"),
        (Format::Omegastream, "video.deleted", data, "data"),
        (Format::Quortex, "input.creation", |event| event.set_extension("message", text("")), "message"),
        (Format::Iconik, "assets.update", |event| event.set_extension("userid", text("")), "userid"),
    ];
    for (format, event_type, remove, attribute) in cases {
        let mut event = sample(event_type);
        remove(&mut event);
        let error = format.prepare(&outgoing(&event)).unwrap_err();
        assert_eq!(error, Unsendable::Lacks(attribute), "{}", format.as_str());
        assert_eq!(
            error.to_string(),
            format!("the event has no `{attribute}`, which the webhook's format needs")
        );
    }
    let extensions: [(Format, &str, &[&'static str]); 3] = [
        (Format::Iconik, "assets.update", &["realm", "userid"]),
        (Format::Quortex, "input.creation", &["application", "message", "pooluuid"]),
        (Format::Quortex, "payment.creation", &["application", "message"]),
    ];
    for (format, event_type, names) in extensions {
        for name in names {
            let mut event = sample(event_type);
            event.extensions.retain(|(key, _)| key != name);
            assert_eq!(format.prepare(&outgoing(&event)), Err(Unsendable::Lacks(name)));
        }
    }
}

fn text(text: &str) -> AttributeValue {
    AttributeValue::Text(text.to_owned())
}

#[test]
fn every_member_of_the_flat_object_is_needed_and_is_text() {
    let members =
        ["data.media_id", "data.media_type", "data.qualities", "data.title", "data.status", "data.user_id"];
    let Data::Json(whole) = sample("encoding.finished").data else { panic!("the sample has data") };
    for path in members {
        let prepare = |value: Option<Value>| {
            let mut data: Value = serde_json::from_slice(&whole).unwrap();
            let object = data.as_object_mut().unwrap();
            let name = path.trim_start_matches("data.");
            object.remove(name);
            object.extend(value.map(|value| (name.to_owned(), value)));
            let event = with_data("encoding.finished", data);
            Format::Aioz.prepare(&outgoing(&event)).map(drop)
        };
        assert_eq!(prepare(None), Err(Unsendable::Lacks(path)));
        assert_eq!(prepare(Some(Value::Null)), Err(Unsendable::Lacks(path)));
        assert_eq!(prepare(Some(7.into())), Err(Unsendable::IsNot { attribute: path, needed: "text" }));
        assert_eq!(prepare(Some("".into())), Ok(()));
    }
    let list = with_data("encoding.finished", serde_json::json!([]));
    let error = Format::Aioz.prepare(&outgoing(&list)).unwrap_err();
    assert_eq!(error.to_string(), "the event's `data` is not an object, which the webhook's format needs");
}

#[test]
fn binary_data_goes_where_bytes_can_go_and_is_refused_by_an_envelope_of_json() {
    let own = ["feeds.started", "encoding.finished", "assets.update", "input.status_change", "video.deleted"];
    for (format, event_type) in PLATFORMS.into_iter().zip(own) {
        let event = Event {
            data: Data::Binary(Bytes::from_static(&[0xff, 0, 1])),
            datacontenttype: Some("application/octet-stream".to_owned()),
            ..sample(event_type)
        };
        let error = format.prepare(&outgoing(&event)).unwrap_err();
        assert_eq!(error.to_string(), "the event's `data` is not JSON, which the webhook's format needs");
        for format in Format::ALL.into_iter().filter(|format| !PLATFORMS.contains(format)) {
            assert_eq!(format.can_carry(&event), Ok(()), "{}", format.as_str());
        }
    }
}

#[test]
fn an_organization_is_named_as_upstream_names_it_or_else_by_its_id() {
    let unnamed = Owner { external_id: None, ..OWNER.clone() };
    for (format, event_type, field) in [
        (Format::Iconik, "assets.update", "system_domain_id"),
        (Format::Quortex, "input.creation", "organization_uuid"),
        (Format::Omegastream, "video.deleted", "coid"),
    ] {
        let event = sample(event_type);
        let named_by = |owner: &Owner| {
            let request = format.prepare(&Outgoing { owner, ..outgoing(&event) }).unwrap();
            serde_json::from_slice::<Value>(&request.body).unwrap()[field].clone()
        };
        assert_eq!(named_by(&OWNER), "acme-42");
        assert_eq!(named_by(&unnamed), OWNER.id.to_string());
    }
}

#[test]
fn an_event_without_a_time_is_told_by_the_time_of_its_sending() {
    for (format, event_type, field, expected) in [
        (Format::Aioz, "encoding.finished", "emitted_at", Value::from("2026-01-31T09:30:00.123Z")),
        (Format::Omegastream, "video.deleted", "created", Value::from(1_769_851_800)),
    ] {
        let event = Event { time: None, ..sample(event_type) };
        let request = format.prepare(&outgoing(&event)).unwrap();
        assert_eq!(serde_json::from_slice::<Value>(&request.body).unwrap()[field], expected);
    }
}

#[test]
fn schedules_that_a_platform_fixes_are_fixed() {
    let seconds = |format: Format| format.fixed_schedule().map(|schedule| schedule.to_millis());
    for format in Format::ALL {
        let expected = match format {
            Format::Millicast => Some(vec![]),
            Format::Aioz => Some(vec![3_000; 3]),
            _ => None,
        };
        assert_eq!(seconds(format), expected, "{}", format.as_str());
    }
}

#[test]
fn outcomes_that_mean_the_same_everywhere_are_judged_alike() {
    for format in Format::ALL {
        let judge = |outcome: &Outcome| format.judge(outcome, NOW);
        let failed = |kind| Outcome::Failed { kind, error: String::new() };
        assert_eq!(judge(&failed(Failure::Unsendable)), Verdict::Permanent(Reason::Rejected));
        for kind in [Failure::Timeout, Failure::Connection, Failure::Blocked] {
            assert_eq!(judge(&failed(kind)), Verdict::Retry(None));
        }
        assert_eq!(judge(&answered(200, "ok", None)), Verdict::Success);
        assert_eq!(judge(&answered(204, "", None)), Verdict::Success);
        assert_eq!(judge(&answered(302, "", None)), Verdict::Retry(None));
        assert_eq!(judge(&answered(500, "", None)), Verdict::Retry(None));
        assert_eq!(judge(&answered(410, "", None)), Verdict::Permanent(Reason::Gone));
        let honoured = format.fixed_schedule().is_none().then_some(Duration::from_secs(120));
        assert_eq!(judge(&answered(503, "", Some("120"))), Verdict::Retry(honoured), "{}", format.as_str());
    }
}

/// What people write into the names of their streams.
fn hostile_texts() -> Vec<String> {
    let repeated = |text: &str| text.repeat(100_000 / text.len());
    let all: String = (0..=0x2_ffff).filter_map(char::from_u32).collect();
    [
        "",
        " ",
        "\0",
        "a\0b\u{1}\u{7f}\u{9f}",
        "\r\n\r\n# x\n- y",
        "<!channel> <@U1> <https://evil|here> &amp; &lt;",
        "<users/all> <b>x</b> <a href=\"x\">y</a> <script>",
        "**x** _y_ `z` ~w~ [a](javascript:b) {{DATE(x)}} \\",
        "שלום עולם \u{202e}gpj.exe\u{2066}",
        "👩\u{200d}👩\u{200d}👧\u{1f3fd}🇩🇪",
        "\"\\\"\\",
        "null",
        "{\"a\":1}",
        "$(x) {{x}} %s",
    ]
    .map(str::to_owned)
    .into_iter()
    .chain(["x", "<", "&", "\"", "\\", "*", "\0", "👩\u{200d}👧", "ש", "e\u{301}", "a b"].map(repeated))
    .chain([all, "\u{301}".repeat(50_000)])
    .collect()
}

/// An event that has the text wherever text can be.
fn hostile_event(text: &str) -> Event {
    let members =
        ["name", "title", "reason", "status", "type", "quality", "duration", "size", "path", "x", text];
    let mut data: serde_json::Map<String, Value> =
        members.into_iter().map(|member| (member.to_owned(), text.into())).collect();
    data.insert("url".to_owned(), format!("https://example.com/?{text}").into());
    let mut event = with_data("input.status_change", data.into());
    event.subject = Some(text.to_owned());
    event.source = text.to_owned();
    for name in ["message", "application", "pooluuid"] {
        event.set_extension(name, AttributeValue::Text(text.to_owned()));
    }
    event
}

#[test]
fn hostile_text_breaks_neither_json_nor_a_services_limits() {
    let mut events: Vec<_> = hostile_texts().iter().map(|text| hostile_event(text)).collect();
    // As large as may be: a link and facts at their limits, of what grows most in JSON.
    for link in ["x", "\\", "&"] {
        let mut largest = hostile_event(&"\\".repeat(1_000));
        let data = serde_json::json!({
            "url": format!("https://example.com/?{}", link.repeat(1_980 / if link == "&" { 5 } else { 1 })),
            "a": "\"".repeat(9_000), "b": "\\".repeat(9_000), "c": "_".repeat(9_000), "d": "<".repeat(9_000),
            "e": "&".repeat(9_000), "f": "é".repeat(9_000), "g": "👩".repeat(9_000), "h": "x".repeat(9_000),
        });
        largest.data = Data::Json(data.to_string().into());
        largest.set_extension("message", text(&"\"".repeat(100_000)));
        events.push(largest);
    }
    for event in &events {
        for format in CHAT {
            let body = format.prepare(&outgoing(event)).unwrap().body;
            let json: Value = serde_json::from_slice(&body).unwrap();
            match format {
                Format::Slack => accepted_by_slack(&json),
                Format::GoogleChat => accepted_by_google_chat(&json, body.len()),
                _ => accepted_by_teams(&json, body.len()),
            }
        }
    }
}

fn accepted_by_slack(message: &Value) {
    let characters = |text: &Value| {
        let text = text["text"].as_str().unwrap();
        assert!(!text.contains('\0') && !text.contains("<!") && !text.contains("<@"), "{text}");
        assert!(!text.is_empty());
        text.encode_utf16().count()
    };
    assert!(characters(message) <= 3_000);
    let blocks = message["blocks"].as_array().unwrap();
    assert!((3..=50).contains(&blocks.len()));
    for block in blocks {
        match block["type"].as_str().unwrap() {
            "header" => assert!(block["text"]["type"] == "plain_text" && characters(&block["text"]) <= 150),
            "context" => assert!(characters(&block["elements"][0]) <= 3_000),
            "section" if block["fields"].is_array() => {
                let fields = block["fields"].as_array().unwrap();
                assert!((1..=10).contains(&fields.len()));
                assert!(fields.iter().all(|field| characters(field) <= 2_000));
            }
            "section" => assert!(characters(&block["text"]) <= 3_000),
            other => panic!("a block of the type {other}"),
        }
    }
    let all = message["blocks"].to_string().encode_utf16().count();
    assert!(all <= 13_000, "{all} characters of blocks");
}

fn accepted_by_google_chat(message: &Value, bytes: usize) {
    assert!(bytes <= 32_000, "{bytes} bytes");
    let text = message["text"].as_str().unwrap();
    assert!(!text.contains(['<', '\0']), "{text}");
    let widgets = message["cardsV2"][0]["card"]["sections"][0]["widgets"].as_array().unwrap();
    assert!(widgets.len() <= 100);
    for text in widgets.iter().filter_map(|widget| widget["decoratedText"]["text"].as_str()) {
        assert!(!text.is_empty() && !text.contains(['<', '>', '\0']), "{text}");
    }
}

fn accepted_by_teams(message: &Value, bytes: usize) {
    assert!(bytes <= 28 * 1_024, "{bytes} bytes");
    let card = &message["attachments"][0]["content"];
    assert_eq!((&card["type"], &card["version"]), (&"AdaptiveCard".into(), &"1.2".into()));
    for element in card["body"].as_array().unwrap() {
        match element["type"].as_str().unwrap() {
            "TextBlock" => assert!(!element["text"].as_str().unwrap().is_empty()),
            "FactSet" => assert!((1..=6).contains(&element["facts"].as_array().unwrap().len())),
            "ActionSet" => assert!(element["actions"][0]["url"].as_str().unwrap().starts_with("http")),
            other => panic!("an element of the type {other}"),
        }
    }
}

#[test]
fn a_sentence_of_exactly_a_services_limit_is_whole_and_one_more_is_cut() {
    for (format, limit, cut) in
        [(Format::Slack, 3_000, 2_999), (Format::GoogleChat, 16_000, 15_997), (Format::Teams, 14_000, 13_997)]
    {
        let body = |length: usize| {
            let mut event = sample("input.status_change");
            event.set_extension("message", text(&"x".repeat(length)));
            String::from_utf8(format.prepare(&outgoing(&event)).unwrap().body.to_vec()).unwrap()
        };
        let quoted = |length: usize, end: &str| format!("\"{}{end}\"", "x".repeat(length));
        assert!(body(limit).contains(&quoted(limit, "")), "{}", format.as_str());
        assert!(body(limit + 1).contains(&quoted(cut, "…")), "{}", format.as_str());
    }
}
