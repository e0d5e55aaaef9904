//! A service under test: a task of this process, or a process of its own.

use std::time::Duration;

use cuewire::config::{Common, Environment};
use cuewire::health::Health;
use cuewire::service::Context;
use cuewire::shutdown::Shutdown;
use prometheus::{Registry, TextEncoder};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::metrics::{Sample, samples};
use crate::process::Process;

/// Longer than any request that a test makes hang.
pub(crate) const STOP_WITHIN: Duration = Duration::from_secs(40);

/// The four services, in the order of the flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Service {
    /// Accepts.
    Api,
    /// Fans out.
    Router,
    /// Delivers.
    Sender,
    /// Keeps dead letters.
    DlqReaper,
}

impl Service {
    /// All of them, in the order in which they stop so that nothing is left half done.
    pub const ALL: [Self; 4] = [Self::Api, Self::Router, Self::Sender, Self::DlqReaper];

    /// Its name, which is its binary's too.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Router => "router",
            Self::Sender => "sender",
            Self::DlqReaper => "dlq-reaper",
        }
    }
}

/// A replica of a service.
#[derive(Debug)]
pub(crate) enum Running {
    Task(Task),
    Process(Process),
}

/// A service that runs in this process.
#[derive(Debug)]
pub(crate) struct Task {
    service: Service,
    shutdown: Shutdown,
    health: Health,
    registry: Registry,
    run: JoinHandle<anyhow::Result<()>>,
}

impl Task {
    /// Starts it with this environment. The api serves on `api`, which is bound already, so that nobody else
    /// can take its port.
    pub(crate) fn start(service: Service, environment: &Environment, api: Option<TcpListener>) -> Self {
        let common = Common::read(environment, 0).expect("the harness knows the configuration");
        let context = Context::new(service.name(), common, Shutdown::new()).expect("a context");
        let (shutdown, health) = (context.shutdown.clone(), context.health.clone());
        let registry = context.registry.clone();
        macro_rules! spawn {
            ($service:ident) => {
                tokio::spawn($service::run(
                    context,
                    $service::Config::read(environment).expect("a configuration"),
                ))
            };
        }
        let run = match service {
            Service::Api => {
                let config = cuewire_api::config::Config::read(environment).expect("a configuration");
                let listener = api.expect("an api has a place to listen");
                tokio::spawn(async move {
                    match context.prepare().await? {
                        Some(()) => cuewire_api::serve(context, config, listener).await,
                        None => Ok(()),
                    }
                })
            }
            Service::Router => spawn!(cuewire_router),
            Service::Sender => spawn!(cuewire_sender),
            Service::DlqReaper => spawn!(cuewire_dlq_reaper),
        };
        Self { service, shutdown, health, registry, run }
    }
}

impl Running {
    pub(crate) fn service(&self) -> Service {
        match self {
            Self::Task(task) => task.service,
            Self::Process(process) => process.service,
        }
    }

    /// What it still lacks; none when it is ready.
    pub(crate) async fn missing(&self) -> Option<String> {
        match self {
            Self::Task(task) => {
                assert!(!task.run.is_finished(), "the {} has ended", task.service.name());
                let missing = task.health.missing();
                (!missing.is_empty()).then(|| format!("{missing:?}"))
            }
            Self::Process(process) => process.missing().await,
        }
    }

    /// Whether it has started to connect to all that it needs, and has it.
    pub(crate) async fn is_ready(&self) -> bool {
        // A service that has only begun to start lacks nothing yet. This part every service has, and it is
        // among the last to be added.
        let publisher = "component=\"publisher\"";
        let connected = self.scrape().await.lines().any(|line| {
            line.starts_with("cuewire_connected{") && line.contains(publisher) && line.ends_with(" 1")
        });
        connected && self.missing().await.is_none()
    }

    /// A metric, summed over all labels.
    pub(crate) async fn sum(&self, metric: &str) -> f64 {
        self.metric(metric, &[]).await.unwrap_or_default()
    }

    /// A metric, summed over the labels that are not given; none where there is no such one.
    pub(crate) async fn metric(&self, metric: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let scraped = self.scrape().await;
        let is_it = |sample: &Sample<'_>| {
            sample.name == metric && labels.iter().all(|(name, value)| sample.label(name) == Some(*value))
        };
        samples(&scraped).filter(is_it).map(|sample| sample.value).reduce(|sum, value| sum + value)
    }

    /// All metrics, as Prometheus reads them.
    pub(crate) async fn scrape(&self) -> String {
        match self {
            Self::Task(task) => TextEncoder::new().encode_to_string(&task.registry.gather()).unwrap(),
            Self::Process(process) => process.scrape().await.unwrap_or_default(),
        }
    }

    /// Tells it to stop, waits until it has, and makes sure that it did so in good order.
    pub(crate) async fn stop(self) {
        match self {
            Self::Task(task) => {
                task.shutdown.stop();
                let name = task.service.name();
                let ended = tokio::time::timeout(STOP_WITHIN, task.run).await;
                let ended = ended.unwrap_or_else(|_| panic!("the {name} does not stop"));
                ended.unwrap_or_else(|error| panic!("the {name} broke down: {error}")).expect(name);
            }
            Self::Process(process) => process.stop(STOP_WITHIN).await,
        }
    }

    /// Ends it, whatever it is at.
    pub(crate) async fn kill(self) {
        match self {
            Self::Task(task) => task.run.abort(),
            Self::Process(process) => process.kill().await,
        }
    }
}
