//! Signatures, as an independent verifier sees them.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use cuewire::catalogue;
use cuewire::formats::{Format, Signing};
use cuewire_tests::system::test;
use cuewire_tests::{Organization, Receiver, Request, System, verify};
use serde_json::{Value, json};
use uuid::Uuid;

/// The vector that Standard Webhooks publishes.
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

#[test]
fn the_verifiers_agree_with_us_on_the_published_vector() {
    let (id, timestamp, body) = ("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#);
    let signature = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
    let theirs = standardwebhooks::Webhook::new(SECRET).unwrap().sign(id, timestamp, body).unwrap();
    let ours = cuewire::signature::sign(&[SECRET.parse().unwrap()], id, timestamp, body);
    assert_eq!((theirs.as_str(), ours.as_str()), (signature, signature));
}

#[test]
fn a_secret_of_ones_own_signs_and_a_wrong_one_or_a_changed_body_does_not_verify() {
    test(async |system| {
        let receiver = Receiver::healthy().await;
        let organization = system.organization().await;
        let webhook = organization.webhook(receiver.url("/")).with("secret", SECRET).create().await;
        assert_eq!(webhook.secret, SECRET);
        system.amqp().await.publish(&organization.event("a.b")).await;
        let mut request = receiver.wait_for(1).await.remove(0);
        verify::v1(SECRET, &request).unwrap();
        let wrong = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
        assert!(verify::v1(wrong, &request).is_err());
        request.body = [&request.body[..], b" "].concat().into();
        assert!(verify::v1(SECRET, &request).is_err());
    });
}

/// Python's standard library, which also verifies the golden requests.
fn python(requests: &str, secrets: &[String]) -> Output {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/src/formats/golden/verify.py");
    let mut child = Command::new("python3");
    let child = child.arg(program).arg("/dev/stdin").args(secrets);
    fed(child, requests.as_bytes())
}

/// What a program says that is given this.
fn fed(program: &mut Command, input: &[u8]) -> Output {
    let piped = program.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn().expect("the program runs");
    child.stdin.take().unwrap().write_all(input).unwrap();
    child.wait_with_output().unwrap()
}

/// A request as the golden files have it, its body as it came.
fn written(request: &Request, body: &[u8]) -> String {
    let headers = request.headers.iter().map(|(name, value)| format!("{name}: {value}\n"));
    let (headers, body) = (headers.collect::<String>(), BASE64.encode(body));
    format!("=== received\nPOST\n{headers}\nbase64 {body}\n\n")
}

/// What a receiver gets of a format while its secret is being replaced, if that can be; with the secrets that sign,
/// the newest first.
async fn received(
    system: &System,
    organization: &Organization<'_>,
    format: Format,
) -> (Vec<Request>, Vec<String>) {
    let receiver = Receiver::healthy().await;
    let webhook = organization.webhook(receiver.url("/")).with("format", format.as_str()).create().await;
    let overlap = if format.signing() == Signing::SingleHmac { json!({}) } else { json!({"overlap": "1h"}) };
    let path = format!("/v1/webhooks/{}/secret/rotate", webhook.id);
    let rotated = organization.admin.post(&path, &overlap).await.expect(200);
    organization.in_effect().await;
    let own = |entry: &&catalogue::EventType| {
        entry.platform == format.as_str() || matches!(format, Format::Standard | Format::Cloudevents)
    };
    let mut sent = 0;
    for entry in catalogue::all().iter().filter(|entry| entry.platform != "cuewire").filter(own) {
        let mut event: Value = serde_json::from_str(entry.sample.get()).unwrap();
        event["id"] = Uuid::new_v4().to_string().into();
        event["organization"] = organization.id.as_str().into();
        system.amqp().await.publish(&event).await;
        sent += 1;
    }
    let requests = receiver.wait_for(sent).await;
    let _ = organization.admin.delete(&format!("/v1/webhooks/{}", webhook.id)).await;
    organization.in_effect().await;
    let secrets = rotated["secrets"].as_array().unwrap().iter();
    (requests, secrets.map(|it| it["secret"].as_str().unwrap().to_owned()).collect())
}

#[test]
fn another_implementation_verifies_every_signed_format_over_the_bytes_that_were_sent() {
    test(async |system| {
        let organization = system.organization().await;
        for format in Format::ALL.into_iter().filter(|format| format.signing() != Signing::None) {
            let (requests, secrets) = received(system, &organization, format).await;
            let expected = if format.signing() == Signing::SingleHmac { 1 } else { 2 };
            assert_eq!(secrets.len(), expected, "{format:?}");
            let all: String = requests.iter().map(|request| written(request, &request.body)).collect();
            let output = python(&all, &secrets);
            let told = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(output.status.success(), "{format:?}: {told}{}", String::from_utf8_lossy(&output.stderr));
            assert_eq!(told.trim(), format!("{} requests verified", requests.len()), "{format:?}");
            let changed = [&requests[0].body[..], b" "].concat();
            assert!(!python(&written(&requests[0], &changed), &secrets).status.success(), "{format:?}");
        }
    });
}

/// Node's standard library: Ed25519 over `id.timestamp.body` by a public key, `whpk_…`.
const NODE: &str = r#"
import { createPublicKey, verify } from "node:crypto";
import { readFileSync } from "node:fs";
const { publicKey, id, timestamp, signature, body } = JSON.parse(readFileSync(0));
const x = Buffer.from(publicKey.replace("whpk_", ""), "base64").toString("base64url");
const key = createPublicKey({ key: { kty: "OKP", crv: "Ed25519", x }, format: "jwk" });
const signed = Buffer.concat([Buffer.from(`${id}.${timestamp}.`), Buffer.from(body, "base64")]);
const verified = (text) => text.startsWith("v1a,") && verify(null, signed, key, Buffer.from(text.slice(4), "base64"));
console.log(signature.split(" ").some(verified));
"#;

/// Whether Node verifies the request with this body.
fn node(public_key: &str, request: &Request, body: &[u8]) -> bool {
    let header = |name| request.header(name).unwrap();
    let input = json!({
        "publicKey": public_key, "id": header("webhook-id"), "timestamp": header("webhook-timestamp"),
        "signature": header("webhook-signature"), "body": BASE64.encode(body),
    });
    let output =
        fed(Command::new("node").args(["--input-type=module", "-e", NODE]), input.to_string().as_bytes());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim() == "true"
}

#[test]
fn a_webhook_with_an_ed25519_key_is_signed_by_v1a() {
    test(async |system| {
        let receiver = Receiver::healthy().await;
        let organization = system.organization().await;
        let webhook = organization.webhook(receiver.url("/")).with("signature", "v1a").create().await;
        system.amqp().await.publish(&organization.event("a.b")).await;
        let mut request = receiver.wait_for(1).await.remove(0);
        let public_key = webhook.json["public_key"].as_str().unwrap();
        verify::v1a(public_key, &request).unwrap();
        assert!(node(public_key, &request, &request.body), "another implementation verifies it too");
        request.body = [&request.body[..], b" "].concat().into();
        assert!(verify::v1a(public_key, &request).is_err());
        assert!(!node(public_key, &request, &request.body));
    });
}

#[test]
fn while_a_secret_is_replaced_both_the_old_and_the_new_one_verify() {
    test(async |system| {
        let receiver = Receiver::healthy().await;
        let organization = system.organization().await;
        let webhook = organization.webhook(receiver.url("/")).create().await;
        let path = format!("/v1/webhooks/{}/secret", webhook.id);
        let rotated = organization.admin.post(&format!("{path}/rotate"), &json!({"overlap": "24h"})).await;
        assert!(rotated.status.is_success(), "{}", rotated.text);
        organization.in_effect().await;
        let secrets = organization.admin.get(&path).await.expect(200);
        let new = secrets["secret"].as_str().unwrap();
        assert_ne!(new, webhook.secret);
        let all: Vec<_> = secrets["secrets"].as_array().unwrap().iter().map(|it| &it["secret"]).collect();
        assert_eq!(all, [new, &webhook.secret], "the newest first");
        system.amqp().await.publish(&organization.event("a.b")).await;
        let request = receiver.wait_for(1).await.remove(0);
        assert_eq!(request.header("webhook-signature").unwrap().split(' ').count(), 2);
        verify::v1(new, &request).unwrap();
        verify::v1(&webhook.secret, &request).unwrap();

        // Without an overlap, the others end at once.
        let rotated = organization.admin.post(&format!("{path}/rotate"), &json!({"overlap": "0s"})).await;
        assert!(rotated.status.is_success(), "{}", rotated.text);
        organization.in_effect().await;
        let last = organization.admin.get(&path).await.expect(200)["secret"].as_str().unwrap().to_owned();
        system.amqp().await.publish(&organization.event("a.b")).await;
        let request = receiver.wait_for(2).await.remove(1);
        verify::v1(&last, &request).unwrap();
        assert!(verify::v1(new, &request).is_err());
    });
}
