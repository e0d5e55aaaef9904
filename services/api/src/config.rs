//! What the api is configured with, besides what every service is.

use std::net::SocketAddr;

use cuewire::config::{ConfigError, Environment};
use cuewire::guard::Guard;

/// Short ones can be guessed; the key manages every organization.
const MIN_OPERATOR_KEY_BYTES: usize = 16;

/// Above what one router and one sender carry on a small machine, so that it stops floods and nobody else.
const DEFAULT_INGEST_LIMIT_PER_SECOND: u32 = 5_000;

/// The api's configuration.
#[derive(Clone)]
pub struct Config {
    /// `CUEWIRE_OPERATOR_KEY`: the key that manages organizations.
    pub operator_key: String,
    /// `CUEWIRE_API_LISTEN`: where the API is served.
    pub listen: SocketAddr,
    /// `CUEWIRE_INGEST_LIMIT_PER_SECOND`: events that one organization may publish by this process.
    pub ingest_limit_per_second: u32,
    /// `CUEWIRE_ALLOWED_NETWORKS`: private networks that webhooks may lead to.
    pub guard: Guard,
}

impl Config {
    /// Reads the api's variables.
    pub fn read(environment: &Environment) -> Result<Self, ConfigError> {
        Ok(Self {
            operator_key: environment.required("CUEWIRE_OPERATOR_KEY", read_operator_key)?,
            listen: environment.listen("CUEWIRE_API_LISTEN", SocketAddr::from(([0, 0, 0, 0], 8080)))?,
            ingest_limit_per_second: environment.number(
                "CUEWIRE_INGEST_LIMIT_PER_SECOND",
                DEFAULT_INGEST_LIMIT_PER_SECOND,
                0..=1_000_000,
            )?,
            guard: environment.optional("CUEWIRE_ALLOWED_NETWORKS", Guard::read)?.unwrap_or_default(),
        })
    }
}

/// Never shows the key, which would end in a log.
impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Config")
            .field("listen", &self.listen)
            .field("ingest_limit_per_second", &self.ingest_limit_per_second)
            .field("guard", &self.guard)
            .finish()
    }
}

fn read_operator_key(text: &str) -> Result<String, String> {
    if text.len() < MIN_OPERATOR_KEY_BYTES {
        return Err(format!(
            "has {} characters, and at least {MIN_OPERATOR_KEY_BYTES} are needed",
            text.len()
        ));
    }
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("must be ASCII without spaces, to fit into a header".to_owned());
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_can_be_guessed_or_sent_by_nobody_is_refused_by_its_name() {
        let read = |key: &str| Config::read(&Environment::of([("CUEWIRE_OPERATOR_KEY", key)]));
        for (key, sentence) in [
            ("", "CUEWIRE_OPERATOR_KEY is not set; deploy/.env.example describes it"),
            ("short", "CUEWIRE_OPERATOR_KEY has 5 characters, and at least 16 are needed"),
            ("with a space in it", "CUEWIRE_OPERATOR_KEY must be ASCII without spaces, to fit into a header"),
        ] {
            assert_eq!(read(key).unwrap_err().to_string(), sentence);
        }
        let config = read("0123456789abcdef").unwrap();
        assert_eq!(config.listen.port(), 8080);
        assert!(!format!("{config:?}").contains("0123456789abcdef"));
    }
}
