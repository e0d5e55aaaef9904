//! Signatures, as an independent verifier sees them.

use cuewire_tests::system::test;
use cuewire_tests::{Receiver, verify};
use serde_json::json;

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
        request.body = [&request.body[..], b" "].concat().into();
        assert!(verify::v1a(public_key, &request).is_err());
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
