//! The handshake by which another sender of CloudEvents asks whether it may send its events here.

use cuewire_tests::system::{System, test};
use cuewire_tests::{Reply, Setup, event};
use reqwest::header::HeaderMap;
use serde_json::json;

/// What a sender without a key is answered that asks with these further lines of its request's head.
async fn ask(system: &System, lines: &str) -> Reply {
    let nobody = system.operator().with_key(None);
    nobody.raw(&format!("OPTIONS /v1/events HTTP/1.1{lines}\n\n")).await
}

/// The header's value, if it is there.
fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).map(|value| value.to_str().unwrap())
}

#[test]
fn a_sender_of_cloudevents_may_send_here_from_wherever_it_says_that_it_is() {
    test(async |system| {
        for (lines, origin, rate) in [
            ("\nWebHook-Request-Origin: eventgrid.example.net", Some("eventgrid.example.net"), None),
            (
                "\nwebhook-request-origin: grid.example\nWebHook-Request-Callback: https://grid.example/?id=1\n\
                 WebHook-Request-Rate: 120",
                Some("grid.example"),
                // 5,000 events a second, one in each request.
                Some("300000"),
            ),
            ("", None, None),
            ("\nOrigin: https://page.example\nAccess-Control-Request-Method: POST", None, None),
        ] {
            let reply = ask(system, lines).await;
            assert_eq!((reply.status.as_u16(), reply.text.as_str()), (200, ""), "{lines}");
            assert_eq!(header(&reply.headers, "allow"), Some("GET, HEAD, POST, OPTIONS"), "{lines}");
            assert_eq!(header(&reply.headers, "webhook-allowed-origin"), origin, "{lines}");
            assert_eq!(header(&reply.headers, "webhook-allowed-rate"), rate, "{lines}");
            assert_eq!(header(&reply.headers, "access-control-allow-origin"), None, "{lines}");
        }
        let organization = system.organization().await;
        let sent = event::event("feeds.started", &organization.id).to_string();
        let by = &organization.admin;
        let head = format!(
            "POST /v1/events HTTP/1.1\nAuthorization: Bearer {}\nWebHook-Request-Origin: grid.example\n\
             Content-Type: application/cloudevents+json",
            by.key().unwrap()
        );
        assert_eq!(by.raw(&format!("{head}\n\n{sent}")).await.expect(202)["accepted"], 1);
        let mute = by.with_key(None).post("/v1/events", &json!({})).await;
        let _ = mute.problem(401);

        let document = system.operator().get("/openapi.json").await.expect(200);
        let described = &document["paths"]["/v1/events"]["options"];
        assert_eq!((&described["tags"][0], &described["security"]), (&json!("Events"), &json!([{}])));
        for method in ["get", "post"] {
            assert!(document["paths"]["/v1/events"][method].is_object(), "{method}");
        }
    });
}

#[test]
fn where_events_have_no_limit_a_sender_may_send_at_any_rate() {
    Setup::default().variable("CUEWIRE_INGEST_LIMIT_PER_SECOND", "0").run(async |system| {
        let asked = "\nWebHook-Request-Origin: grid.example\nWebHook-Request-Rate: 120";
        let reply = ask(system, asked).await;
        assert_eq!(header(&reply.headers, "webhook-allowed-rate"), Some("*"));
    });
}
