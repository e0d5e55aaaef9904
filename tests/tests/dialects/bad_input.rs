//! What is not as it must be, on every route of every platform: answered in the platform's own envelope, and never by
//! a fault of ours.

use std::collections::HashMap;

use cuewire_tests::system::{System, test};
use cuewire_tests::{Receiver, Reply};
use jsonschema::Validator;
use serde_json::{Value, json};

use crate::platform::{Caller, Platform, Right, Route, Things};

const JSON: &str = "\nContent-Type: application/json";
/// A line that a client would never send with it.
const FORM: &str = "\nContent-Type: application/x-www-form-urlencoded";

/// What is no JSON.
const NOT_JSON: [&[u8]; 6] =
    [b"{", b"nope", b"{\"url\":\"http://1.1.1.1/\"}}", b"{'a':1}", b"\xff\xfe{}", b"{\"a\":\"\xff\"}"];
/// What is JSON of another kind.
const NOT_AN_OBJECT: [&[u8]; 6] = [b"[]", b"7", b"\"text\"", b"true", b"null", b"[{}]"];

/// What is no id anywhere.
const NO_IDS: [&str; 9] = [
    "x",
    "0",
    "-1",
    "%00",
    "%ff%fe",
    "..%2f..",
    "0190a6f2-4c1e-7b52-9c7d-2f6f1f3f8a1",
    "%C3%A4",
    "9223372036854775808",
];

/// The document's schemas of each operation's errors.
struct Described(HashMap<String, Validator>);

impl Described {
    async fn of(system: &System) -> Self {
        let document = system.operator().get("/openapi.json").await.expect(200);
        let mut schemas = HashMap::new();
        for (path, operations) in document["paths"].as_object().unwrap() {
            for (method, operation) in operations.as_object().unwrap() {
                let error = &operation["responses"]["default"]["content"]["application/json"]["schema"];
                let Some(reference) = error["$ref"].as_str() else { continue };
                let schema = document.pointer(reference.trim_start_matches('#')).unwrap();
                let line = format!("{} {}", method.to_uppercase(), path.trim_end_matches('/'));
                schemas.insert(line, jsonschema::validator_for(schema).unwrap());
            }
        }
        Self(schemas)
    }

    /// Whether an error of the route is one that the document describes.
    fn check(&self, platform: Platform, route: &Route, error: &Value) {
        let path = format!("/platforms/{}{}", platform.name(), route.path).replace("{event}", "{event_id}");
        let path = if platform == Platform::Quortex { path.replace("{id}", "{uuid}") } else { path };
        let schema = &self.0[&format!("{} {path}", route.method)];
        assert!(schema.is_valid(error), "{} {path}: {error} is not described", route.method);
    }
}

/// The status for a body that cannot be read.
fn malformed(platform: Platform, route: &Route) -> u16 {
    // So the platform documents it.
    if platform == Platform::Quortex && route.right != Right::Anybody { 404 } else { 400 }
}

async fn send(caller: &Caller, line: &str, headers: &str, body: &[u8]) -> Reply {
    caller.client.raw_bytes(&format!("{line} HTTP/1.1\n{}{headers}", caller.head), body).await
}

#[test]
fn a_body_that_cannot_be_read_is_answered_in_the_platforms_envelope_on_every_route() {
    test(async |system| {
        let described = Described::of(system).await;
        let organization = system.organization().await;
        for platform in Platform::ALL {
            let caller = platform.by(&organization.admin).await;
            let things = caller.make("http://127.0.0.1:9/").await;
            let before = caller.follow(platform.list(), &things).await;
            assert!(before.text.contains("127.0.0.1"), "{platform:?}: {}", before.text);
            for route in platform.routes().iter().filter(|route| !route.body.is_empty()) {
                let line = route.line(platform, &things);
                let good = things.put_into(route.body, &caller.client);
                let large = format!("{}{}", good.trim_end_matches('}'), " ".repeat(256 * 1024));
                let mut cases: Vec<(&str, &[u8], u16)> = Vec::new();
                for body in NOT_JSON.into_iter().chain(NOT_AN_OBJECT) {
                    cases.push((JSON, body, malformed(platform, route)));
                }
                cases.extend([(JSON, large.as_bytes(), 413), ("", NOT_JSON[0], malformed(platform, route))]);
                cases.push(("\nContent-Type: text/xml", good.as_bytes(), 415));
                cases.push(("\nContent-Type: text/plain", good.as_bytes(), 415));
                cases.push(("\nContent-Type: \u{1F525}", good.as_bytes(), 415));
                if platform != Platform::Aioz {
                    cases.push((FORM, b"url=http%3A%2F%2F1.1.1.1%2F", 415));
                }
                for (headers, body, status) in cases {
                    let reply = send(&caller, &line, headers, body).await;
                    let error = reply.json.clone();
                    let said = caller.failed(reply, status);
                    assert!(status != 415 || said.contains("application/json"), "{said}");
                    described.check(platform, route, &error);
                }
            }
            let untouched = caller.follow(platform.list(), &things).await;
            assert_eq!(untouched.text, before.text, "{platform:?}");
        }
    });
}

#[test]
fn a_body_of_which_no_type_is_said_is_read_as_json_on_every_route() {
    test(async |system| {
        let receiver = Receiver::healthy().await;
        for platform in Platform::ALL {
            let organization = system.organization().await;
            let caller = platform.by(&organization.admin).await;
            let things = caller.make(&receiver.url("/")).await;
            for route in platform.routes().iter().filter(|route| !route.body.is_empty()) {
                let body = things.put_into(route.body, &caller.client);
                for headers in ["", "\nContent-Type:", "\nTransfer-Encoding: chunked"] {
                    let line = route.line(platform, &things);
                    let _ = send(&caller, &line, headers, body.as_bytes()).await.expect(route.status);
                }
            }
        }
    });
}

#[test]
fn a_parameter_that_is_repeated_or_unknown_is_no_fault_on_any_route() {
    test(async |system| {
        let receiver = Receiver::healthy().await;
        let organization = system.organization().await;
        for platform in Platform::ALL {
            let caller = platform.by(&organization.admin).await;
            let things = caller.make(&receiver.url("/")).await;
            for route in platform.routes().iter().filter(|route| route.right == Right::Read) {
                let known = [
                    "startingId=0",
                    "itemCount=5",
                    "item_count=5",
                    "isDescending=true",
                    "search=",
                    "sort_by=name",
                    "order_by=desc",
                    "offset=0",
                    "limit=5",
                    "encoding_finished=",
                    "page=1",
                    "per_page=5",
                    "page_size=5",
                    "application=link",
                    "in_message=a",
                ];
                let once = known.join("&");
                let line = format!(
                    "{}?colour=red&{once}&{once}&colour=blue&x[]=1&x[]=2&=&&=",
                    route.line(platform, &things)
                );
                let reply = caller.call(&line, "").await;
                if !route.path.contains("{event}") {
                    let _ = reply.expect(200);
                }
            }
        }
    });
}

#[test]
fn a_path_a_method_and_an_id_that_are_none_are_told_in_the_platforms_envelope() {
    test(async |system| {
        let described = Described::of(system).await;
        let organization = system.organization().await;
        for platform in Platform::ALL {
            let caller = platform.by(&organization.admin).await;
            let mount = format!("/platforms/{}", platform.name());
            for path in
                ["", "/", "/nothing", "/api", "/v1/webhooks", "/openapi.json", "/docs/", "/%ff", "//", "/.."]
            {
                caller.failed(caller.call(&format!("GET {mount}{path}"), "").await, 404);
            }
            let things = caller.make("http://127.0.0.1:9/").await;
            for route in platform.routes() {
                let path = route.at(platform, &things);
                let line = |method: &str, rest: &str| format!("{method} {path}{rest}");
                for method in ["TRACE", "OPTIONS", "PROPFIND"] {
                    let reply = caller.call(&line(method, ""), "").await;
                    assert!(reply.headers.contains_key("allow"), "{reply:?}");
                    caller.failed(reply, 405);
                }
                caller.failed(caller.call(&line(route.method, "/and/further/still"), route.body).await, 404);
                let long = format!("?x={}", "x".repeat(30_000));
                caller.failed(caller.call(&line(route.method, &long), route.body).await, 414);
                let many = "\nX-Many: 1".repeat(150);
                let line = line(route.method, "");
                caller.failed(caller.with_headers(&line, &format!("{JSON}{many}"), route.body).await, 431);
                for id in NO_IDS.into_iter().filter(|_| route.names_one()) {
                    let nothing = Things { id: id.to_owned(), ..things.clone() };
                    let reply = caller.follow(route, &nothing).await;
                    described.check(platform, route, &reply.json);
                    caller.failed(reply, 404);
                }
            }
        }
    });
}

#[test]
fn the_document_says_of_each_platform_how_a_key_is_shown_and_how_an_error_looks() {
    test(async |system| {
        let document = system.operator().get("/openapi.json").await.expect(200);
        let expected = |platform: &str| match platform {
            "millicast" => json!([{"millicast_bearer": []}]),
            "aioz" => json!([
                {"aioz_bearer": []}, {"aioz_basic": []},
                {"aioz_stream_public_key": [], "aioz_stream_secret_key": []},
            ]),
            "iconik" => json!([{"iconik_app_id": [], "iconik_auth_token": []}]),
            "quortex" => json!([{"quortex_bearer": []}]),
            "omegastream" => json!([{"omegastream_bearer": []}]),
            other => panic!("no platform: {other}"),
        };
        let schemes = &document["components"]["securitySchemes"];
        let mut described = 0;
        for (path, operations) in document["paths"].as_object().unwrap() {
            let Some(platform) = path.strip_prefix("/platforms/").and_then(|rest| rest.split('/').next())
            else {
                continue;
            };
            for operation in operations.as_object().unwrap().values() {
                described += 1;
                let is_token = operation["operationId"] == "quortex_token";
                let security = if is_token { json!([{}]) } else { expected(platform) };
                assert_eq!(operation["security"], security, "{path}");
                for name in
                    security.as_array().unwrap().iter().flat_map(|all| all.as_object().unwrap().keys())
                {
                    assert!(schemes[name]["description"].is_string(), "{name}");
                }
                for (status, answer) in operation["responses"].as_object().unwrap() {
                    let content = &answer["content"];
                    if status.starts_with('2') {
                        assert!(content.is_null() == (status == "204"), "{path}: {status}");
                    } else {
                        assert!(content["application/json"].is_object(), "{path}: {status}");
                        assert!(content["application/problem+json"].is_null(), "{path}: {status}");
                    }
                }
            }
        }
        assert_eq!(described, Platform::ALL.iter().map(|it| it.routes().len()).sum::<usize>());
        assert_eq!(schemes["aioz_basic"]["scheme"], "basic");
        assert_eq!(schemes["aioz_stream_public_key"]["name"], "stream-public-key");
        assert_eq!(
            schemes["iconik_app_id"],
            json!({"type": "apiKey", "in": "header", "name": "App-ID", "description": "A key's id"})
        );
    });
}
