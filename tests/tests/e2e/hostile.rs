//! Receivers that mean harm.

use std::io::Write;
use std::time::{Duration, Instant};

use cuewire_tests::event::{events, id};
use cuewire_tests::system::test;
use cuewire_tests::{Answer, Receiver, Service, Setup};
use flate2::Compression;
use flate2::write::DeflateEncoder;
use serde_json::json;

#[test]
fn of_a_huge_answer_16_kib_are_kept_and_no_more_is_read() {
    test(async |system| {
        let huge = Answer::status(200).body(vec![b'x'; 8 * 1024 * 1024]);
        let receiver = Receiver::answering([huge]).await;
        let organization = system.organization().await;
        let webhook = organization.webhook(receiver.url("/")).create().await;
        let event = organization.event("a.b");
        system.amqp().await.publish(&event).await;
        let delivery = organization.delivery(id(&event), &webhook, "delivered").await;
        let path = format!("/v1/deliveries/{}", delivery["id"].as_str().unwrap());
        let attempt = organization.admin.get(&path).await.expect(200)["attempts"][0].clone();
        assert_eq!(attempt["response_body"].as_str().unwrap().len(), 16 * 1024);
    });
}

#[test]
fn an_answer_that_never_ends_ends_with_the_webhooks_timeout_and_holds_nobody_else() {
    let dripping_body = "HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n";
    let endless_headers = "HTTP/1.1 200 OK\r\n";
    let slow_chunks = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    let second = Duration::from_secs(1);
    for (first, again) in
        [(dripping_body, "x"), (endless_headers, "x-one-more: header\r\n"), (slow_chunks, "1\r\nx\r\n")]
    {
        test(async |system| {
            let endless = Receiver::answering([Answer::endless(first, again, second)]).await;
            let quick = Receiver::healthy().await;
            let organization = system.organization().await;
            // Each with so few requests that its breaker stays closed.
            for number in 0..5 {
                let slow = organization.webhook(endless.url("/")).types(&[&format!("slow{number}.*")]);
                slow.schedule(&[]).with("timeout_ms", 2_500).create().await;
            }
            organization.webhook(quick.url("/")).types(&["quick.*"]).create().await;
            let amqp = system.amqp().await;
            for number in 0..5 {
                amqp.publish_all(&events(4, &format!("slow{number}.event"), &organization.id)).await;
            }
            let hanging = endless.wait_for(1).await.remove(0);
            let published = Instant::now();
            amqp.publish_all(&events(50, "quick.event", &organization.id)).await;
            let last = quick.wait_for(50).await.pop().unwrap();
            assert!(last.at - published < second, "{:?}", last.at - published);
            let letters = organization.dead_letters(20).await;
            for letter in letters {
                let attempt = &letter["last_attempt"];
                assert_eq!(attempt["error"], "no complete answer within 2.5s", "{letter}");
                let took_ms = attempt["duration_ms"].as_f64().unwrap();
                assert!((2_500.0..3_500.0).contains(&took_ms), "{took_ms} ms");
            }
            assert!(hanging.at <= published, "it hung while the others were served");
        });
    }
}

#[test]
fn headers_without_an_end_that_come_fast_are_given_up() {
    test(async |system| {
        let headers =
            Answer::endless("HTTP/1.1 200 OK\r\n", &"x-one-more: header\r\n".repeat(50), Duration::ZERO);
        let receiver = Receiver::answering([headers]).await;
        let organization = system.organization().await;
        organization.webhook(receiver.url("/")).schedule(&[]).create().await;
        system.amqp().await.publish(&organization.event("a.b")).await;
        let letter = organization.dead_letters(1).await.remove(0);
        let attempt = &letter["last_attempt"];
        assert!(attempt["status"].is_null() && attempt["error"].is_string(), "{letter}");
        // Long before the timeout: nobody reads on for 15 s.
        assert!(attempt["duration_ms"].as_f64().unwrap() < 5_000.0, "{letter}");
    });
}

#[test]
fn of_an_endless_chunked_answer_16_kib_are_kept_and_its_status_is_its_verdict() {
    test(async |system| {
        let chunk = format!("400\r\n{}\r\n", "x".repeat(1_024));
        let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
        let receiver = Receiver::answering([Answer::endless(head, &chunk, Duration::ZERO)]).await;
        let organization = system.organization().await;
        let webhook = organization.webhook(receiver.url("/")).create().await;
        let event = organization.event("a.b");
        system.amqp().await.publish(&event).await;
        let delivery = organization.delivery(id(&event), &webhook, "delivered").await;
        let path = format!("/v1/deliveries/{}", delivery["id"].as_str().unwrap());
        let attempt = organization.admin.get(&path).await.expect(200)["attempts"][0].clone();
        assert_eq!(attempt["status"], 200);
        assert_eq!(attempt["response_body"].as_str().unwrap().len(), 16 * 1024);
    });
}

/// A gzip file of 1 GiB of zeros: one MiB of them, compressed to about a KiB, again and again. Its check sum is
/// not right, and who has read so far has lost already.
fn gzip_bomb() -> Vec<u8> {
    const MIB: usize = 1024 * 1024;
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(&vec![0; MIB]).unwrap();
    // Ends at a byte's end, so that it can be repeated.
    encoder.flush().unwrap();
    let mib_of_zeros = encoder.get_ref();
    let header = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 2, 0xff];
    let last_block = [3, 0];
    [&header[..], &mib_of_zeros.repeat(1_024), &last_block, &[0; 8]].concat()
}

#[test]
fn a_gzip_bomb_costs_no_more_than_what_is_kept_and_its_status_is_its_verdict() {
    Setup::processes().run(async |system| {
        let bomb = gzip_bomb();
        assert!(bomb.len() < 2 * 1024 * 1024, "{} bytes", bomb.len());
        let receiver =
            Receiver::answering([Answer::status(200).header("content-encoding", "gzip").body(bomb)]).await;
        let organization = system.organization().await;
        let webhook = organization.webhook(receiver.url("/")).create().await;
        let memory = "process_resident_memory_bytes";
        let before = system.sum(Service::Sender, memory).await;
        let events = events(16, "a.b", &organization.id);
        system.amqp().await.publish_all(&events).await;
        for event in &events {
            organization.delivery(id(event), &webhook, "delivered").await;
        }
        let grown = system.sum(Service::Sender, memory).await - before;
        assert!(before > 0.0 && grown < 64.0 * 1024.0 * 1024.0, "{grown} bytes more than {before}");
        let attempts = format!("/v1/webhooks/{}/attempts?limit=16", webhook.id);
        let attempts = organization.admin.get(&attempts).await.expect(200);
        for attempt in attempts["data"].as_array().unwrap() {
            assert_eq!(attempt["status"], 200);
            // A GiB takes seconds to decompress.
            assert!(attempt["duration_ms"].as_f64().unwrap() < 1_000.0, "{attempt}");
        }
    });
}

#[test]
fn an_answer_that_is_no_text_is_kept_and_harms_nothing() {
    test(async |system| {
        let odd = Answer::status(500).body(&b"\xff\xfe\0binary"[..]).header("x-odd", "caf\u{e9}");
        let receiver = Receiver::answering([odd]).await;
        let organization = system.organization().await;
        organization.webhook(receiver.url("/")).schedule(&[]).create().await;
        system.amqp().await.publish(&organization.event("a.b")).await;
        let letter = organization.dead_letters(1).await.remove(0);
        let path = format!("/v1/deliveries/{}", letter["delivery_id"].as_str().unwrap());
        let attempt = organization.admin.get(&path).await.expect(200)["attempts"][0].clone();
        assert!(attempt["response_body"].as_str().unwrap().ends_with("binary"), "{attempt}");
    });
}

#[test]
fn a_redirect_is_a_failure_and_is_not_followed() {
    test(async |system| {
        let elsewhere = Receiver::healthy().await;
        let receiver =
            Receiver::answering([Answer::status(307).header("location", &elsewhere.url("/"))]).await;
        let organization = system.organization().await;
        organization.webhook(receiver.url("/")).schedule(&[]).create().await;
        system.amqp().await.publish(&organization.event("a.b")).await;
        let letter = organization.dead_letters(1).await.remove(0);
        assert_eq!(letter["last_attempt"]["status"], 307);
        system.stop_all().await;
        assert_eq!((receiver.count(), elsewhere.count()), (1, 0));
    });
}

#[test]
fn a_webhooks_own_headers_are_sent_and_cannot_replace_those_that_matter() {
    test(async |system| {
        let receiver = Receiver::healthy().await;
        let organization = system.organization().await;
        for name in
            ["Host", "content-type", "Content-Length", "Connection", "transfer-encoding", "Webhook-Id"]
        {
            let webhook = json!({"url": receiver.url("/"), "headers": {name: "x"}});
            let detail = organization.admin.post("/v1/webhooks", &webhook).await.problem(422);
            assert!(detail.contains("headers"), "{name}: {detail}");
        }
        let headers = json!({"AUTH-TOKEN": "XYZ", "x-two": "zwei"});
        organization.webhook(receiver.url("/")).with("headers", headers).create().await;
        system.amqp().await.publish(&organization.event("a.b")).await;
        let request = receiver.wait_for(1).await.remove(0);
        assert_eq!(request.header("auth-token"), Some("XYZ"));
        assert_eq!(request.header("x-two"), Some("zwei"));
    });
}

#[test]
fn connections_are_kept_and_used_again() {
    test(async |system| {
        let receiver = Receiver::answering([Answer::status(200).after(Duration::from_millis(1))]).await;
        let organization = system.organization().await;
        organization.webhook(receiver.url("/")).create().await;
        let events = events(200, "a.b", &organization.id);
        system.amqp().await.publish_all(&events).await;
        let requests = receiver.wait_for(200).await;
        let connections = requests.iter().map(|request| request.connection).max().unwrap() + 1;
        // A client that finds none idle begins one, and may be given another meanwhile.
        assert!(connections <= 2 * 16, "{connections} connections for 16 requests at a time");
    });
}
