//! Requests that are made up: ids, cursors, times and bodies as no client would send them, to every native route.
//! None is our error, and each that is refused is told why.

mod maker;

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use cuewire_tests::system::test;
use cuewire_tests::{Client, Receiver, seed};
use futures_util::{StreamExt, stream};
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::{Value, json};

use self::maker::Maker;
use crate::native::{Route, Things, routes, things};

/// Four thousand requests, in some ten seconds.
const REQUESTS_A_ROUTE: usize = 120;
const AT_A_TIME: usize = 8;
/// Longer than any request takes that no sender has to answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Sends a request. It is not our error, and one that is refused is told why.
async fn try_out(api: &Client, request: Vec<u8>, seed: u64) {
    let line_end = request.windows(2).position(|pair| pair == b"\r\n").unwrap() + 2;
    let host = api.base().trim_start_matches("http://");
    let mut whole = request[..line_end].to_vec();
    whole.extend(format!("host: {host}\r\nconnection: close\r\n").bytes());
    if let Some(key) = api.key() {
        whole.extend(format!("authorization: Bearer {key}\r\n").bytes());
    }
    whole.extend(&request[line_end..]);
    let shown = String::from_utf8_lossy(&request[..request.len().min(2_000)]).into_owned();
    let told = format!("with CUEWIRE_TEST_SEED={seed}, to the request\n{shown}\n");
    let answer = tokio::time::timeout(PATIENCE, api.raw_whole(&whole)).await;
    let reply = answer.unwrap_or_else(|_| panic!("there is no answer {told}"));
    let status = reply.status.as_u16();
    assert!(status < 500, "{status} {} {told}", reply.text);
    // What is no HTTP at all is refused by whoever reads HTTP, without a word.
    let is_http = std::str::from_utf8(&request[..line_end]).is_ok();
    if status >= 400 && (is_http || status != 400) {
        let problem = reply.headers.get("content-type").is_some_and(|it| it == "application/problem+json");
        let detail = reply.json["detail"].as_str().unwrap_or_default();
        assert!(problem && !detail.is_empty(), "{status} {:?} {} {told}", reply.headers, reply.text);
        // That is said of what no check of ours has seen.
        assert!(!detail.contains("cannot be stored"), "{} {told}", reply.text);
    }
}

/// Whose key goes with a request to this route: nobody's webhooks may take what is published, since they may be
/// any by then.
fn caller<'a>(route: &Route, number: usize, callers: &'a Callers) -> &'a Client {
    match number % 8 {
        0 => &callers.nobody,
        1 => &callers.viewer,
        2 => &callers.operator,
        _ if route.path.starts_with("/v1/organizations") => &callers.operator,
        _ if route.method == "POST" && route.path == "/v1/events" => &callers.publisher,
        _ => &callers.owner,
    }
}

/// The place after the first entry of a list, where the route is one.
async fn second_place(route: &Route, things: &Things, callers: &Callers) -> Option<Value> {
    if !route.query.iter().any(|name| name == "cursor") {
        return None;
    }
    let api = caller(route, usize::MAX, callers);
    let page = api.get(&format!("{}?limit=1", route.filled(things))).await.expect(200);
    let cursor =
        page["next_cursor"].as_str().unwrap_or_else(|| panic!("{} has no entry: {page}", route.path));
    let cursor = BASE64.decode(cursor).unwrap();
    Some(serde_json::from_slice(&cursor).unwrap())
}

/// The API by different keys.
struct Callers {
    nobody: Client,
    viewer: Client,
    operator: Client,
    /// Of an organization without webhooks.
    publisher: Client,
    owner: Client,
}

#[test]
fn no_request_that_is_made_up_is_our_error() {
    test(async |system| {
        let seed = seed();
        let receiver = Receiver::healthy().await;
        let (owner, doomed) = (system.organization().await, system.organization().await);
        let callers = Callers {
            nobody: system.operator().with_key(Some("cw_wrong")),
            viewer: owner.with_role("viewer").await,
            operator: system.operator(),
            publisher: system.organization().await.admin,
            owner: owner.admin.clone(),
        };
        let of_doomed = things(system, &doomed).await;
        let mut of_owner = things(system, &owner).await;
        // What all the others belong to must stay.
        for kept in ["/v1/organizations/", "/v1/organizations/{id}/api-keys/"] {
            of_owner.insert(kept, of_doomed[kept].clone());
        }
        // The type of the document's example.
        of_owner.insert("/v1/event-types/", "slate.shown".to_owned());
        let webhook = format!("/v1/webhooks/{}", of_owner["/v1/webhooks/"]);
        let here = json!({"url": receiver.url("/")});
        let _ = owner.admin.patch(&webhook, &here).await.expect(200);
        owner.in_effect().await;
        let mut maker = Maker {
            random: StdRng::seed_from_u64(seed),
            things: [&of_owner, &of_doomed],
            receiver: receiver.url("/"),
            place: None,
        };
        let mut routes = routes(&system.operator()).await;
        assert!(routes.len() >= 35, "{} routes", routes.len());
        routes.sort_by_key(|route| route.method == "DELETE");
        for route in &routes {
            maker.place = second_place(route, &of_owner, &callers).await;
            let requests: Vec<_> = (0..REQUESTS_A_ROUTE).map(|_| maker.request(route)).collect();
            let sent = requests
                .into_iter()
                .enumerate()
                .map(|(number, request)| try_out(caller(route, number, &callers), request, seed));
            stream::iter(sent).buffer_unordered(AT_A_TIME).collect::<Vec<()>>().await;
        }
    });
}
