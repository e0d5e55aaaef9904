//! Addresses that are none of a webhook's business, in every form, when it is saved and when it is sent to.

use cuewire_tests::event::id;
use cuewire_tests::{Receiver, Setup};
use serde_json::json;

/// Hosts that are 127.0.0.1, or lead there.
const THIS_MACHINE: [&str; 15] = [
    "127.0.0.1",
    "127.0.0.1.",
    "127.1",
    "2130706433",
    "0x7f000001",
    "0x7f.0.0.1",
    "017700000001",
    "0177.0.0.1",
    "%31%32%37.0.0.1",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[::127.0.0.1]",
    "[64:ff9b::7f00:1]",
    "[2002:7f00:1::]",
    "0.0.0.0",
];
/// Hosts that no configuration opens.
const NEVER_OPENED: [&str; 9] = [
    "169.254.169.254",
    "169.254.1.1",
    "[::ffff:169.254.169.254]",
    "[64:ff9b::a9fe:a9fe]",
    "[2002:a9fe:a9fe::]",
    "[fe80::1]",
    "[fd00:ec2::254]",
    "100.100.100.200",
    "168.63.129.16",
];
/// Hosts that are closed unless the configuration opens them.
const PRIVATE: [&str; 8] = [
    "10.1.2.3",
    "172.16.0.1",
    "192.168.0.1",
    "100.64.0.1",
    "[::1]",
    "[::]",
    "[fc00::1]",
    "[64:ff9b:1::a00:1]",
];
/// Names of this machine, whether or not its resolver knows them.
const NAMES: [&str; 4] = ["localhost", "LOCALHOST", "localhost.", "hooks.localhost"];

fn tells_an_address(text: &str) -> bool {
    ["127.0.0.1", "::1"].iter().any(|address| text.contains(address))
}

#[test]
fn what_leads_into_a_private_range_is_refused_when_a_webhook_is_saved() {
    let setup =
        Setup::default().variable("CUEWIRE_ALLOWED_NETWORKS", "127.0.0.2/32,169.254.0.0/16,fe80::/10");
    setup.run(async |system| {
        let organization = system.organization().await;
        let webhook = organization.webhook("http://127.0.0.2:9/").create().await;
        let hosts = THIS_MACHINE.iter().chain(&NEVER_OPENED).chain(&PRIVATE).chain(&NAMES);
        let urls = hosts.map(|host| format!("http://{host}:8080/hook"));
        let others =
            ["ftp://1.1.1.1/", "file:///etc/passwd", "http://user:password@1.1.1.1/", "http://", "no url"];
        for url in urls.chain(others.map(str::to_owned)) {
            let body = json!({"url": url});
            for reply in [
                organization.admin.post("/v1/webhooks", &body).await,
                organization.admin.patch(&format!("/v1/webhooks/{}", webhook.id), &body).await,
            ] {
                let detail = reply.problem(422);
                assert!(detail.starts_with("`url` "), "{url}: {detail}");
                if url.to_ascii_lowercase().contains("localhost") {
                    assert!(!tells_an_address(&detail), "what our resolver says is not told: {detail}");
                }
            }
        }
    });
}

#[test]
fn what_leads_into_a_private_range_is_not_connected_to_though_it_was_saved() {
    let setup =
        Setup::default().variable("CUEWIRE_ALLOWED_NETWORKS", "127.0.0.2/32,169.254.0.0/16,fe80::/10");
    setup.run(async |system| {
        let organization = system.organization().await;
        let receiver = Receiver::healthy().await;
        let port = receiver.url("").rsplit(':').next().unwrap().to_owned();
        let hosts: Vec<&str> = [&THIS_MACHINE[..], &NEVER_OPENED, &PRIVATE, &NAMES].concat();
        let database = system.database().await;
        for host in &hosts {
            let webhook = organization.webhook("http://127.0.0.2:9/").schedule(&[]).create().await;
            // It was saved when the network was still open, or the name led elsewhere.
            let update = "UPDATE webhooks SET url = $1, name = $2 WHERE id = $3::text::uuid";
            let url = format!("http://{host}:{port}/");
            database.execute(update, &[&url, host, &webhook.id]).await.unwrap();
        }
        organization.in_effect().await;
        let event = organization.event("a.b");
        system.amqp().await.publish(&event).await;
        let letters = organization.dead_letters(hosts.len()).await;
        let webhooks = organization.admin.get("/v1/webhooks?limit=100").await.expect(200);
        let webhooks = webhooks["data"].as_array().unwrap();
        for letter in letters {
            let webhook = webhooks.iter().find(|webhook| webhook["id"] == letter["webhook_id"]).unwrap();
            let (host, detail) = (webhook["name"].as_str().unwrap(), letter["detail"].as_str().unwrap());
            assert_eq!(letter["event_id"], id(&event));
            let blocked = detail.contains("private or reserved range");
            if NAMES.contains(&host) {
                // A name that the resolver does not know leads nowhere.
                assert!(blocked || detail.starts_with("no connection: "), "{host}: {detail}");
                assert!(!tells_an_address(detail), "what our resolver says is not told: {detail}");
            } else {
                assert!(blocked && detail.starts_with("the URL leads to "), "{host}: {detail}");
            }
            assert!(letter["last_attempt"]["status"].is_null(), "{letter}");
            if host == "localhost" {
                assert!(blocked, "every resolver knows it: {detail}");
            }
        }
        system.stop_all().await;
        assert_eq!(receiver.count(), 0);
    });
}

#[test]
fn a_url_with_a_user_or_a_password_is_not_sent_to_though_it_was_saved() {
    Setup::default().run(async |system| {
        let organization = system.organization().await;
        let receiver = Receiver::healthy().await;
        let place = receiver.url("/").replace("http://", "");
        let database = system.database().await;
        let credentials = ["user:password@", "user@", ":password@"];
        for credentials in credentials {
            let webhook = organization.webhook(receiver.url("/")).schedule(&[]).create().await;
            // An old version has saved it.
            let update = "UPDATE webhooks SET url = $1 WHERE id = $2::text::uuid";
            let url = format!("http://{credentials}{place}");
            assert_eq!(database.execute(update, &[&url, &webhook.id]).await.unwrap(), 1);
        }
        organization.in_effect().await;
        let event = organization.event("a.b");
        system.amqp().await.publish(&event).await;
        let error = "the URL holds a user name or password; set a header of the webhook instead";
        for letter in organization.dead_letters(credentials.len()).await {
            assert_eq!((&letter["event_id"], &letter["detail"]), (&event["id"], &json!(error)));
            let path = format!("/v1/deliveries/{}", letter["delivery_id"].as_str().unwrap());
            let delivery = organization.admin.get(&path).await.expect(200);
            let attempts = delivery["attempts"].as_array().unwrap();
            assert_eq!(attempts.len(), 1, "{delivery}");
            assert_eq!((&attempts[0]["status"], &attempts[0]["error"]), (&json!(null), &json!(error)));
        }
        system.stop_all().await;
        assert_eq!(receiver.count(), 0);
    });
}
