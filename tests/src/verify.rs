//! Verifying signatures as receivers do, with code that is not Cuewire's.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use ed25519_dalek::{Signature, Verifier, VerifyingKey};
use hmac::{Hmac, KeyInit, Mac};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use sha1::Sha1;

use crate::receiver::Request;

/// Verifies `v1` with the library that Standard Webhooks publishes.
pub fn v1(secret: &str, request: &Request) -> Result<(), String> {
    let webhook = standardwebhooks::Webhook::new(secret).map_err(|error| error.to_string())?;
    webhook.verify(&request.body, &headers(request)).map_err(|error| error.to_string())
}

/// Verifies `v1a` with a public key, `whpk_…`, as the specification says: Ed25519 over `id.timestamp.body`.
pub fn v1a(public_key: &str, request: &Request) -> Result<(), String> {
    let decode = |text: Option<&str>| BASE64.decode(text?).ok();
    let key = decode(public_key.strip_prefix("whpk_")).ok_or("no public key")?;
    let key: [u8; 32] = key.try_into().map_err(|_| "a public key has 32 bytes")?;
    let key = VerifyingKey::from_bytes(&key).map_err(|error| error.to_string())?;
    let header = |name| request.header(name).ok_or(format!("no {name}"));
    let head = format!("{}.{}.", header("webhook-id")?, header("webhook-timestamp")?);
    let signed = [head.as_bytes(), &request.body].concat();
    let fits = |signature: &str| {
        let bytes = decode(signature.strip_prefix("v1a,"))?;
        key.verify(&signed, &Signature::from_slice(&bytes).ok()?).ok()
    };
    header("webhook-signature")?.split(' ').find_map(fits).ok_or("no signature fits".to_owned())
}

/// Verifies the signature of Millicast's webhooks as the platform documents it: HMAC-SHA1 of the body, by the
/// secret's decoded bytes.
pub fn millicast(secret: &str, request: &Request) -> Result<(), String> {
    let key = BASE64.decode(secret.trim_start_matches("whsec_")).map_err(|error| error.to_string())?;
    let mut mac = Hmac::<Sha1>::new_from_slice(&key).map_err(|error| error.to_string())?;
    mac.update(&request.body);
    let header = request.header("x-millicast-signature").ok_or("no signature")?;
    let signature = hex::decode(header.strip_prefix("sha1=").ok_or("no sha1= signature")?);
    mac.verify_slice(&signature.map_err(|error| error.to_string())?).map_err(|error| error.to_string())
}

fn headers(request: &Request) -> HeaderMap {
    let pair = |(name, value): &(String, String)| {
        Some((name.parse::<HeaderName>().ok()?, HeaderValue::from_str(value).ok()?))
    };
    request.headers.iter().filter_map(pair).collect()
}
