//! Configuration: read from the environment, once, at start; nothing else reads the environment.
//!
//! Every variable is described in `deploy/.env.example`. A value that cannot be read ends the process with
//! one line that names the variable.

use std::collections::HashMap;
use std::fmt::Display;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use crate::amqp::grants::PublisherGrant;
use crate::amqp::topology::{self, Topology};
use crate::db::Database;
use crate::retry::parse_duration;
use crate::shutdown::FINISH_WITHIN;
use crate::vault::Vault;
use crate::webhook::MAX_TIMEOUT;

/// A variable that is missing or cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{variable} {reason}")]
pub struct ConfigError {
    /// The variable's name.
    pub variable: String,
    /// What is wrong, to be read after the name.
    pub reason: String,
}

/// The variables of the process, or those of a test.
#[derive(Debug, Clone, Default)]
pub struct Environment(HashMap<String, String>);

impl Environment {
    /// The environment of this process.
    #[must_use]
    #[allow(clippy::disallowed_methods, reason = "the one place that reads the environment")]
    pub fn of_process() -> Self {
        Self(
            std::env::vars_os()
                .filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)))
                .collect(),
        )
    }

    /// An environment of these variables, for tests.
    pub fn of<K: Into<String>, V: Into<String>>(variables: impl IntoIterator<Item = (K, V)>) -> Self {
        Self(variables.into_iter().map(|(key, value)| (key.into(), value.into())).collect())
    }

    /// The variable's text; an empty one counts as not set.
    #[must_use]
    pub fn text(&self, variable: &str) -> Option<&str> {
        self.0.get(variable).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// A variable that must be set, read by `read`, whose error reads on from the variable's name.
    pub fn required<T>(
        &self,
        variable: &str,
        read: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<T, ConfigError> {
        let text = self.text(variable).ok_or_else(|| ConfigError {
            variable: variable.to_owned(),
            reason: "is not set; deploy/.env.example describes it".to_owned(),
        })?;
        read(text).map_err(|reason| ConfigError { variable: variable.to_owned(), reason })
    }

    /// A variable that may be missing.
    pub fn optional<T>(
        &self,
        variable: &str,
        read: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<Option<T>, ConfigError> {
        match self.text(variable) {
            Some(_) => self.required(variable, read).map(Some),
            None => Ok(None),
        }
    }

    /// A variable with a default, within bounds.
    pub fn number<T>(
        &self,
        variable: &str,
        default: T,
        range: std::ops::RangeInclusive<T>,
    ) -> Result<T, ConfigError>
    where
        T: FromStr + PartialOrd + Display,
    {
        let read = |text: &str| match text.parse() {
            Ok(number) if range.contains(&number) => Ok(number),
            _ => Err(format!("is {text:?}, and must be a number from {} to {}", range.start(), range.end())),
        };
        Ok(self.optional(variable, read)?.unwrap_or(default))
    }

    /// A duration such as `30s`, with a default.
    pub fn duration(&self, variable: &str, default: Duration) -> Result<Duration, ConfigError> {
        Ok(self.optional(variable, parse_duration)?.unwrap_or(default))
    }

    /// An address to listen on, with a default.
    pub fn listen(&self, variable: &str, default: SocketAddr) -> Result<SocketAddr, ConfigError> {
        let read = |text: &str| {
            text.parse().map_err(|_| {
                format!("is {text:?}, and must be an address and a port, such as 0.0.0.0:{}", default.port())
            })
        };
        Ok(self.optional(variable, read)?.unwrap_or(default))
    }
}

/// What every service needs to know.
#[derive(Debug, Clone)]
pub struct Common {
    /// `DATABASE_URL`.
    pub database_url: String,
    /// `CUEWIRE_DATABASE_CONNECTIONS`: the pool's size.
    pub database_connections: usize,
    /// `AMQP_URL`.
    pub amqp_url: String,
    /// What is declared on the broker: `CUEWIRE_SENDER_QUEUES` and `CUEWIRE_PUBLISHERS`.
    pub topology: Topology,
    /// `CUEWIRE_SECRETS_KEY`.
    pub vault: Vault,
    /// `CUEWIRE_HEALTH_LISTEN`: where `/healthz`, `/readyz` and `/metrics` are.
    pub health_listen: SocketAddr,
    /// `CUEWIRE_SHUTDOWN_GRACE`: how long work in flight may take after SIGTERM.
    pub shutdown_grace: Duration,
    /// `CUEWIRE_LOG_FORMAT`: text or json.
    pub log_format: LogFormat,
    /// `CUEWIRE_LOG`: a filter such as `info` or `cuewire=debug`.
    pub log_filter: String,
}

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Above the longest request (30 s) with its record and confirms.
const DEFAULT_SHUTDOWN_GRACE: Duration = Duration::from_secs(45);

/// The libraries tell of what the services tell themselves: lapin logs an error for every clean stop, and the verifier
/// one for every receiver whose certificate is refused.
const DEFAULT_LOG: &str =
    "info,lapin=off,refinery_core=warn,rustls_platform_verifier=off,tokio_postgres=warn";

impl Common {
    /// Reads what every service needs; `health_port` is the service's own default.
    pub fn read(environment: &Environment, health_port: u16) -> Result<Self, ConfigError> {
        let text = |text: &str| Ok(text.to_owned());
        let log_format = |text: &str| match text {
            "text" => Ok(LogFormat::Text),
            "json" => Ok(LogFormat::Json),
            _ => Err(format!("is {text:?}, and must be text or json")),
        };
        // Shorter, and a stop could send requests twice.
        let shutdown_grace = |text: &str| match parse_duration(text)? {
            grace if grace > MAX_TIMEOUT + FINISH_WITHIN => Ok(grace),
            _ => Err(format!(
                "is {text}, and must be longer than the longest request, {MAX_TIMEOUT:?}, and its record, {FINISH_WITHIN:?}"
            )),
        };
        Ok(Self {
            database_url: environment
                .required("DATABASE_URL", |url| Database::check_url(url).map(|()| url.to_owned()))?,
            database_connections: environment.number("CUEWIRE_DATABASE_CONNECTIONS", 8, 2..=200)?,
            amqp_url: environment.required("AMQP_URL", |url| {
                url.parse::<lapin::uri::AMQPUri>()
                    .map(|_| url.to_owned())
                    .map_err(|error| format!("is not an AMQP URL: {error}"))
            })?,
            topology: Topology::new(
                environment.number(
                    "CUEWIRE_SENDER_QUEUES",
                    topology::DEFAULT_SENDER_QUEUES,
                    1..=topology::SHARDS,
                )?,
                environment.optional("CUEWIRE_PUBLISHERS", PublisherGrant::parse_all)?.unwrap_or_default(),
            ),
            vault: environment.required("CUEWIRE_SECRETS_KEY", Vault::from_base64)?,
            health_listen: Self::health_listen(environment, health_port)?,
            shutdown_grace: environment
                .optional("CUEWIRE_SHUTDOWN_GRACE", shutdown_grace)?
                .unwrap_or(DEFAULT_SHUTDOWN_GRACE),
            log_format: environment.optional("CUEWIRE_LOG_FORMAT", log_format)?.unwrap_or(LogFormat::Text),
            log_filter: environment.optional("CUEWIRE_LOG", text)?.unwrap_or_else(|| DEFAULT_LOG.to_owned()),
        })
    }

    /// Where health and metrics are told; `port` is the service's own default.
    pub fn health_listen(environment: &Environment, port: u16) -> Result<SocketAddr, ConfigError> {
        environment.listen("CUEWIRE_HEALTH_LISTEN", SocketAddr::from(([0, 0, 0, 0], port)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grace_for_stopping_is_longer_than_the_longest_request_and_its_record() {
        let read = |grace: &str| {
            let variables = [
                ("DATABASE_URL", "postgres://nobody@127.0.0.1:1/none"),
                ("AMQP_URL", "amqp://nobody@127.0.0.1:1/none"),
                ("CUEWIRE_SECRETS_KEY", "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="),
                ("CUEWIRE_SHUTDOWN_GRACE", grace),
            ];
            Common::read(&Environment::of(variables), 0).map(|common| common.shutdown_grace)
        };
        assert_eq!(read("36s"), Ok(Duration::from_secs(36)));
        assert_eq!(read(""), Ok(DEFAULT_SHUTDOWN_GRACE));
        assert_eq!(
            read("35s").unwrap_err().to_string(),
            "CUEWIRE_SHUTDOWN_GRACE is 35s, and must be longer than the longest request, 30s, and its record, 5s"
        );
    }
}
