//! Signatures by Standard Webhooks: `v1` (HMAC-SHA256) and `v1a` (Ed25519) over `id.timestamp.body`.
//!
//! <https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>.
//! A webhook may have several secrets at a time while one is being replaced; each signs, and the header
//! lists the signatures with a space between them. Keys are prepared once, when a secret is read.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use ed25519_dalek::{Signer, SigningKey};
use hmac::{Hmac, KeyInit, Mac};
use rand::RngExt;
use sha2::Sha256;

/// Length of the secrets that Cuewire makes, in bytes; the specification allows 24 to 64.
const SECRET_BYTES: usize = 32;
const SECRET_BYTES_ALLOWED: std::ops::RangeInclusive<usize> = 24..=64;

/// What a webhook's deliveries are signed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scheme {
    /// HMAC-SHA256 with a secret that both sides know: `whsec_…`.
    #[default]
    V1,
    /// Ed25519: Cuewire keeps `whsk_…`, the receiver verifies with `whpk_…`.
    V1a,
}

impl Scheme {
    /// As it is stored and shown.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V1 => "v1",
            Self::V1a => "v1a",
        }
    }
}

/// A signing secret, ready to sign.
#[derive(Clone)]
pub enum Secret {
    /// `whsec_` and base64 of 24 to 64 bytes.
    V1 {
        /// The bytes, to be shown again.
        key: Vec<u8>,
        /// The HMAC keyed with them, to be cloned for each signature.
        mac: Box<Hmac<Sha256>>,
    },
    /// `whsk_` and base64 of the 32 bytes of an Ed25519 private key.
    V1a(Box<SigningKey>),
}

impl Secret {
    /// A new random secret.
    #[must_use]
    pub fn generate(scheme: Scheme) -> Self {
        let bytes: [u8; SECRET_BYTES] = rand::rng().random();
        match scheme {
            Scheme::V1 => Self::v1(bytes.to_vec()),
            Scheme::V1a => Self::V1a(Box::new(SigningKey::from_bytes(&bytes))),
        }
    }

    fn v1(key: Vec<u8>) -> Self {
        let mac = Hmac::new_from_slice(&key).expect("HMAC takes keys of any length");
        Self::V1 { key, mac: Box::new(mac) }
    }

    /// The scheme that this secret signs by.
    #[must_use]
    pub fn scheme(&self) -> Scheme {
        match self {
            Self::V1 { .. } => Scheme::V1,
            Self::V1a(_) => Scheme::V1a,
        }
    }

    /// What the receiver verifies with: the secret itself, or the public key of a pair.
    #[must_use]
    pub fn verifier(&self) -> String {
        match self {
            Self::V1 { .. } => self.to_string(),
            Self::V1a(key) => format!("whpk_{}", BASE64.encode(key.verifying_key().as_bytes())),
        }
    }

    /// The bytes of a symmetric secret.
    #[must_use]
    pub fn symmetric_key(&self) -> Option<&[u8]> {
        match self {
            Self::V1 { key, .. } => Some(key),
            Self::V1a(_) => None,
        }
    }

    fn sign(&self, id: &str, timestamp: i64, body: &[u8]) -> String {
        let head = format!("{id}.{timestamp}.");
        match self {
            Self::V1 { mac, .. } => {
                let mut mac = mac.as_ref().clone();
                mac.update(head.as_bytes());
                mac.update(body);
                format!("v1,{}", BASE64.encode(mac.finalize().into_bytes()))
            }
            Self::V1a(key) => {
                let message = [head.as_bytes(), body].concat();
                format!("v1a,{}", BASE64.encode(key.sign(&message).to_bytes()))
            }
        }
    }
}

/// The `webhook-signature` header: `id` is the delivery's, `timestamp` the attempt's in unix seconds.
#[must_use]
pub fn sign(secrets: &[Secret], id: &str, timestamp: i64, body: &[u8]) -> String {
    let signatures: Vec<_> = secrets.iter().map(|secret| secret.sign(id, timestamp, body)).collect();
    signatures.join(" ")
}

impl FromStr for Secret {
    type Err = String;

    /// Reads `whsec_…` or `whsk_…`; the error is a sentence to be read after the field's name.
    fn from_str(text: &str) -> Result<Self, String> {
        let decode = |base64: &str| {
            BASE64.decode(base64).map_err(|error| format!("is not base64 after its prefix: {error}"))
        };
        if let Some(base64) = text.strip_prefix("whsec_") {
            let key = decode(base64)?;
            if !SECRET_BYTES_ALLOWED.contains(&key.len()) {
                return Err(format!("holds {} bytes, and 24 to 64 are accepted", key.len()));
            }
            return Ok(Self::v1(key));
        }
        if let Some(base64) = text.strip_prefix("whsk_") {
            let key: [u8; 32] = decode(base64)?
                .try_into()
                .map_err(|key: Vec<u8>| format!("holds {} bytes, and an Ed25519 key has 32", key.len()))?;
            return Ok(Self::V1a(Box::new(SigningKey::from_bytes(&key))));
        }
        Err("must begin with whsec_ (HMAC) or whsk_ (Ed25519)".to_owned())
    }
}

/// The secret as text: handle with care.
impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::V1 { key, .. } => write!(f, "whsec_{}", BASE64.encode(key)),
            Self::V1a(key) => write!(f, "whsk_{}", BASE64.encode(key.as_bytes())),
        }
    }
}

/// Never shows the secret, which would end in a log.
impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({})", self.scheme().as_str())
    }
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::Verifier;

    use super::*;

    #[test]
    fn the_published_vector_of_standard_webhooks_is_met() {
        let secret: Secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".parse().unwrap();
        let header =
            sign(&[secret], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#);
        assert_eq!(header, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn while_a_secret_is_replaced_both_sign() {
        let (old, new) = (Secret::generate(Scheme::V1), Secret::generate(Scheme::V1));
        let header = sign(&[new.clone(), old.clone()], "id", 1, b"body");
        assert_eq!(header, format!("{} {}", sign(&[new], "id", 1, b"body"), sign(&[old], "id", 1, b"body")));
    }

    #[test]
    fn a_v1a_signature_verifies_with_the_public_key() {
        let secret = Secret::generate(Scheme::V1a);
        let header = sign(std::slice::from_ref(&secret), "id", 7, b"body");
        let signature: [u8; 64] =
            BASE64.decode(header.strip_prefix("v1a,").unwrap()).unwrap().try_into().unwrap();
        let public: [u8; 32] =
            BASE64.decode(secret.verifier().strip_prefix("whpk_").unwrap()).unwrap().try_into().unwrap();
        let public = ed25519_dalek::VerifyingKey::from_bytes(&public).unwrap();
        public.verify(b"id.7.body", &ed25519_dalek::Signature::from_bytes(&signature)).unwrap();
    }

    #[test]
    fn a_secret_reads_back_and_never_shows_in_a_log() {
        for scheme in [Scheme::V1, Scheme::V1a] {
            let secret = Secret::generate(scheme);
            let again: Secret = secret.to_string().parse().unwrap();
            assert_eq!(again.to_string(), secret.to_string());
            assert!(!format!("{secret:?}").contains(&secret.to_string()[6..]));
        }
    }

    #[test]
    fn a_secret_that_is_none_is_refused_with_a_sentence() {
        for (text, sentence) in [
            ("hunter2", "must begin with whsec_ (HMAC) or whsk_ (Ed25519)"),
            ("whsec_AAAA", "holds 3 bytes, and 24 to 64 are accepted"),
            ("whsk_AAAA", "holds 3 bytes, and an Ed25519 key has 32"),
        ] {
            assert_eq!(text.parse::<Secret>().unwrap_err(), sentence);
        }
    }
}
