//! Secrets at rest: sealed with the operator's key before they reach the database. A webhook's own headers are
//! too, since receivers' tokens are among them.
//!
//! XChaCha20-Poly1305 with a random nonce in front; the webhook's id and what it is are authenticated with the
//! text, so what is moved to another webhook's row, or to another column, does not open. The same key seals the
//! tokens that clients bring back to any replica, which open as nothing else.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use rand::RngExt;
use sha2::{Digest, Sha256};

use crate::ids::WebhookId;

const NONCE_BYTES: usize = 24;
/// What was sealed, as it is authenticated, for what belongs to a webhook after the webhook's id.
const SECRET: &[u8] = b"secret";
const HEADERS: &[u8] = b"headers";
const TOKEN: &[u8] = b"access token";

/// Seals and opens secrets with the key of `CUEWIRE_SECRETS_KEY`.
#[derive(Clone)]
pub struct Vault {
    cipher: XChaCha20Poly1305,
    fingerprint: String,
}

/// Another key sealed it, or the row was tampered with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "what is sealed of a webhook does not open with CUEWIRE_SECRETS_KEY; was it sealed with another key?"
)]
pub struct DoesNotOpen;

impl Vault {
    /// Reads the key: base64 of 32 bytes. The error is a sentence to be read after the variable's name.
    pub fn from_base64(text: &str) -> Result<Self, String> {
        let key = BASE64.decode(text.trim()).map_err(|error| format!("is not base64: {error}"))?;
        let cipher = XChaCha20Poly1305::new_from_slice(&key).map_err(|_| {
            format!(
                "holds {} bytes, and 32 are needed; `openssl rand -base64 32` makes such a key",
                key.len()
            )
        })?;
        // Of a hash, so that it tells two keys apart and nothing of either.
        let hash = Sha256::new().chain_update(b"cuewire secrets key").chain_update(&key).finalize();
        Ok(Self { cipher, fingerprint: hash[..8].iter().map(|byte| format!("{byte:02x}")).collect() })
    }

    /// By which services know that they have the same key.
    #[must_use]
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// Seals a secret of `webhook`.
    #[must_use]
    pub fn seal(&self, webhook: WebhookId, secret: &str) -> Vec<u8> {
        self.seal_as(&of_webhook(webhook, SECRET), secret.as_bytes())
    }

    /// Opens what [`Vault::seal`] sealed for `webhook`.
    pub fn open(&self, webhook: WebhookId, sealed: &[u8]) -> Result<String, DoesNotOpen> {
        let secret = self.open_as(&of_webhook(webhook, SECRET), sealed)?;
        String::from_utf8(secret).map_err(|_| DoesNotOpen)
    }

    /// Seals the headers of `webhook`; none are nothing.
    #[must_use]
    pub fn seal_headers(&self, webhook: WebhookId, headers: &BTreeMap<String, String>) -> Vec<u8> {
        if headers.is_empty() {
            return Vec::new();
        }
        let json = serde_json::to_vec(headers).expect("a map of text");
        self.seal_as(&of_webhook(webhook, HEADERS), &json)
    }

    /// Opens what [`Vault::seal_headers`] sealed for `webhook`.
    pub fn open_headers(
        &self,
        webhook: WebhookId,
        sealed: &[u8],
    ) -> Result<BTreeMap<String, String>, DoesNotOpen> {
        if sealed.is_empty() {
            return Ok(BTreeMap::new());
        }
        let json = self.open_as(&of_webhook(webhook, HEADERS), sealed)?;
        serde_json::from_slice(&json).map_err(|_| DoesNotOpen)
    }

    /// Seals what a client is to bring back, and can neither read nor make.
    #[must_use]
    pub fn seal_token(&self, content: &[u8]) -> Vec<u8> {
        self.seal_as(TOKEN, content)
    }

    /// Opens what [`Vault::seal_token`] sealed.
    pub fn open_token(&self, sealed: &[u8]) -> Result<Vec<u8>, DoesNotOpen> {
        self.open_as(TOKEN, sealed)
    }

    fn seal_as(&self, what: &[u8], content: &[u8]) -> Vec<u8> {
        let nonce: [u8; NONCE_BYTES] = rand::rng().random();
        let payload = Payload { msg: content, aad: what };
        let sealed =
            self.cipher.encrypt(&XNonce::from(nonce), payload).expect("what is sealed is far below 256 GiB");
        [&nonce, sealed.as_slice()].concat()
    }

    fn open_as(&self, what: &[u8], sealed: &[u8]) -> Result<Vec<u8>, DoesNotOpen> {
        let (nonce, sealed) = sealed.split_first_chunk::<NONCE_BYTES>().ok_or(DoesNotOpen)?;
        let payload = Payload { msg: sealed, aad: what };
        self.cipher.decrypt(&XNonce::from(*nonce), payload).map_err(|_| DoesNotOpen)
    }
}

/// What is authenticated with what belongs to a webhook.
fn of_webhook(webhook: WebhookId, what: &[u8]) -> Vec<u8> {
    [webhook.0.as_bytes(), what].concat()
}

impl std::fmt::Debug for Vault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Vault")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vault(byte: u8) -> Vault {
        Vault::from_base64(&BASE64.encode([byte; 32])).unwrap()
    }

    #[test]
    fn a_sealed_secret_opens_for_its_webhook_and_its_key_alone() {
        let webhook = WebhookId::new();
        let sealed = vault(1).seal(webhook, "whsec_x");
        assert_eq!(vault(1).open(webhook, &sealed).unwrap(), "whsec_x");
        assert_eq!(vault(1).open(WebhookId::new(), &sealed), Err(DoesNotOpen));
        assert_eq!(vault(2).open(webhook, &sealed), Err(DoesNotOpen));
        assert_eq!(vault(1).open(webhook, &sealed[..10]), Err(DoesNotOpen));
    }

    #[test]
    fn sealed_headers_open_as_the_headers_of_their_webhook_alone() {
        let (vault, webhook) = (vault(1), WebhookId::new());
        let headers = BTreeMap::from([("authorization".to_owned(), "Bearer of a token".to_owned())]);
        let sealed = vault.seal_headers(webhook, &headers);
        assert!(!String::from_utf8_lossy(&sealed).contains("token"));
        assert_eq!(vault.open_headers(webhook, &sealed), Ok(headers));
        assert_eq!(vault.open_headers(WebhookId::new(), &sealed), Err(DoesNotOpen));
        assert_eq!(vault.open(webhook, &sealed), Err(DoesNotOpen), "they are no secret to sign with");
        assert_eq!(
            vault.open_headers(webhook, &vault.seal_headers(webhook, &BTreeMap::new())),
            Ok(BTreeMap::new())
        );
    }

    #[test]
    fn a_short_key_is_refused_with_what_to_do() {
        let error = Vault::from_base64("AAAA").unwrap_err();
        assert!(error.contains("holds 3 bytes, and 32 are needed"), "{error}");
    }

    #[test]
    fn a_token_opens_unchanged_and_is_no_secret() {
        let sealed = vault(1).seal_token(b"content");
        assert_eq!(vault(1).open_token(&sealed).unwrap(), b"content");
        assert_eq!(vault(2).open_token(&sealed), Err(DoesNotOpen));
        let webhook = WebhookId::new();
        assert_eq!(vault(1).open(webhook, &sealed), Err(DoesNotOpen));
        assert_eq!(vault(1).open_token(&vault(1).seal(webhook, "whsec_x")), Err(DoesNotOpen));
        for at in 0..sealed.len() {
            let mut forged = sealed.clone();
            forged[at] ^= 1;
            assert_eq!(vault(1).open_token(&forged), Err(DoesNotOpen), "byte {at}");
        }
    }
}
