//! The entry point that the four services share: read the configuration, log, watch for signals, serve health
//! and metrics, then run the service until it is told to stop.

use std::future::Future;
use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use prometheus::Registry;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::amqp::{Agreed, Broker};
use crate::config::{Common, ConfigError, Environment, LogFormat};
use crate::db::settings::SENDER_QUEUES;
use crate::db::{Database, DbError, until_it_answers};
use crate::health::{self, Component, Health};
use crate::metrics;
use crate::shutdown::Shutdown;

/// Messages, requests and their futures come and go by the thousand a second, which costs the system's allocator a
/// fifth of a sender's time. Without huge pages: an idle process would have 57 MB instead of 33.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Exit codes: 1 when the service failed, 2 when its configuration or its arguments cannot be used.
const BAD_CONFIGURATION: u8 = 2;
const CONFIGURATION: &str = "
Configuration is read from the environment; deploy/.env.example describes every variable.
SIGTERM or Ctrl-C stops the service when it has finished what is in flight; a second one stops it at once.";
const PING_EVERY: Duration = Duration::from_secs(2);
const PING_TIMEOUT: Duration = Duration::from_secs(5);
/// The database's record of the fingerprint of the key that seals secrets.
const SECRETS_KEY: &str = "secrets_key";

/// What a service is started with.
#[derive(Debug, Clone)]
pub struct Context {
    /// The service's name.
    pub service: &'static str,
    /// The configuration that all services have.
    pub common: Common,
    /// The database.
    pub database: Database,
    /// The broker.
    pub broker: Broker,
    /// What the service depends on.
    pub health: Health,
    /// Its metrics.
    pub registry: Registry,
    /// Tells when to stop.
    pub shutdown: Shutdown,
}

impl Context {
    /// A context of this configuration. Connects to nothing yet.
    pub fn new(service: &'static str, common: Common, shutdown: Shutdown) -> Result<Self, DbError> {
        let registry = metrics::registry(service);
        let database = Database::new(&common.database_url, common.database_connections)?;
        let topology = Agreed::recorded_in(database.clone(), common.topology.clone());
        Ok(Self {
            service,
            database,
            broker: Broker::new(common.amqp_url.clone(), topology, service),
            health: Health::new(&registry),
            registry,
            common,
            shutdown,
        })
    }

    /// Waits for the database, brings its schema up to date, and makes sure that all services agree on
    /// the number of queues. `None` when the service is to stop before that.
    pub async fn prepare(&self) -> anyhow::Result<Option<()>> {
        let component = self.health.component("database");
        let prepare = until_it_answers("services", || async {
            self.migrate_and_agree().await.inspect_err(|error| component.down(&error.to_string()))
        });
        let Some(prepared) = self.shutdown.run_until_stopped(prepare).await else { return Ok(None) };
        prepared?.map_err(anyhow::Error::msg)?;
        component.up();
        let watching = watch_database(self.broker.topology.clone(), component, self.shutdown.clone());
        self.shutdown.spawn_vital("watch over the database", watching);
        Ok(Some(()))
    }

    /// The inner error refuses to run beside services that are configured otherwise: deliveries would go
    /// unsigned, or twice.
    async fn migrate_and_agree(&self) -> Result<Result<(), String>, DbError> {
        self.database.migrate().await?;
        let fingerprint = self.common.vault.fingerprint();
        let agreed = self.database.agree(SECRETS_KEY, fingerprint).await?;
        if agreed != fingerprint {
            return Ok(Err(format!(
                "CUEWIRE_SECRETS_KEY is not the key that sealed the secrets in the database \
                 (its fingerprint is {fingerprint}, and theirs {agreed})"
            )));
        }
        let configured = self.common.topology.sender_queues.to_string();
        let agreed = self.database.agree(SENDER_QUEUES, &configured).await?;
        if agreed != configured {
            return Ok(Err(format!(
                "CUEWIRE_SENDER_QUEUES is {configured}, and the other services use {agreed}; \
                 `api topology apply` changes it for all"
            )));
        }
        self.broker.topology.read().await?;
        Ok(Ok(()))
    }
}

/// Asks the database now and then whether it is there, by what a service needs to hear soon.
async fn watch_database(agreed: Agreed, component: Component, shutdown: Shutdown) {
    let watch = async {
        loop {
            tokio::time::sleep(PING_EVERY).await;
            // A database that hangs answers nothing, not even an error.
            match tokio::time::timeout(PING_TIMEOUT, agreed.read()).await {
                Ok(Ok(())) => component.up(),
                Ok(Err(error)) => component.down(&error.to_string()),
                Err(_) => component.down("the database does not answer"),
            }
        }
    };
    shutdown.run_until_stopped(watch).await;
}

/// Runs a service as a process: `read` its own configuration, then `run` it until SIGTERM or Ctrl-C. With
/// arguments it does not: it says whether the one that runs here is ready, or how it is used.
pub fn main<C, F, Fut>(
    service: &'static str,
    usage: &str,
    health_port: u16,
    read: impl FnOnce(&Environment) -> Result<C, ConfigError>,
    run: F,
) -> ExitCode
where
    C: Send + 'static,
    F: FnOnce(Context, C) -> Fut + Send + 'static,
    Fut: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [] => {}
        ["--help" | "-h" | "help"] => {
            // Who reads no further than the first line closes the pipe.
            let _ = writeln!(std::io::stdout(), "{usage}\n{CONFIGURATION}");
            return ExitCode::SUCCESS;
        }
        ["ready"] => return ready(service, health_port),
        _ => {
            eprintln!("{service}: there is no command {:?}\n\n{usage}\n{CONFIGURATION}", arguments.join(" "));
            return ExitCode::from(BAD_CONFIGURATION);
        }
    }
    as_process(service, || {
        let environment = Environment::of_process();
        let common = Common::read(&environment, health_port)?;
        let config = read(&environment)?;
        start_logging(&common)?;
        Ok(serve(service, common, |context| run(context, config)))
    })
}

/// Whether the service that runs on this machine with this environment is ready; what is missing goes to stderr.
fn ready(service: &'static str, health_port: u16) -> ExitCode {
    let (code, sentence) = match Common::health_listen(&Environment::of_process(), health_port) {
        Ok(listens) => match health::ask(listens) {
            Ok(()) => return ExitCode::SUCCESS,
            Err(missing) => (ExitCode::FAILURE, format!("not ready: {missing}")),
        },
        Err(error) => (ExitCode::from(BAD_CONFIGURATION), error.to_string()),
    };
    eprintln!("{service}: {sentence}");
    code
}

/// Runs a command of a service as a process, without health and signals: `run` it to its end.
pub fn command<F, Fut>(service: &'static str, run: F) -> ExitCode
where
    F: FnOnce(Context) -> Fut + Send + 'static,
    Fut: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    as_process(service, || {
        // It listens nowhere.
        let common = Common::read(&Environment::of_process(), 0)?;
        start_logging(&common)?;
        Ok(async move { run(Context::new(service, common, Shutdown::new())?).await })
    })
}

/// Reads the configuration by `prepare`, then runs to the end what it made of it.
fn as_process<Fut>(service: &'static str, prepare: impl FnOnce() -> Result<Fut, ConfigError>) -> ExitCode
where
    Fut: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    let work = match prepare() {
        Ok(work) => work,
        Err(error) => {
            eprintln!("{service}: {error}");
            return ExitCode::from(BAD_CONFIGURATION);
        }
    };
    raise_open_files();
    let result = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(anyhow::Error::from)
        .and_then(|runtime| {
            // As a task like all others: what it spawns is a worker's own to begin with, and wakes no other thread.
            let result = runtime.block_on(runtime.spawn(work)).unwrap_or_else(|ended| Err(ended.into()));
            // What still runs is background work that the service chose not to wait for.
            runtime.shutdown_background();
            result
        });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{service} failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Lets this process have as many files open as the system allows. Each connection is one; where a shell or systemd has
/// started it, it may have 1,024, and what is in flight beyond that fails.
pub fn raise_open_files() {
    match rlimit::increase_nofile_limit(u64::MAX) {
        Ok(limit) => tracing::debug!(limit, "so many files may be open"),
        Err(error) => {
            tracing::warn!(%error, "the limit of open files could not be raised: requests may fail for it");
        }
    }
}

async fn serve<Fut>(
    service: &'static str,
    common: Common,
    run: impl FnOnce(Context) -> Fut,
) -> anyhow::Result<()>
where
    Fut: Future<Output = anyhow::Result<()>>,
{
    let shutdown = Shutdown::new();
    let (listen, grace) = (common.health_listen, common.shutdown_grace);
    let context = Context::new(service, common, shutdown.clone())?;
    // Health is told until the very end, so it stops by a switch of its own.
    let health_shutdown = shutdown.later();
    health::serve(listen, context.health.clone(), context.registry.clone(), health_shutdown.clone())
        .await
        .map_err(|error| anyhow::anyhow!("CUEWIRE_HEALTH_LISTEN: cannot listen on {listen}: {error}"))?;
    let signals = Signals::watch()?;
    tracing::info!(service, version = env!("CARGO_PKG_VERSION"), "starting");
    let result = tokio::select! {
        result = run(context) => result,
        // Whoever started the process starts it again, and what was in flight is delivered again.
        task = shutdown.broken() => Err(anyhow::anyhow!("the {task} has ended, which it cannot do without")),
        when = stop_on_signal(signals, &shutdown, grace) => {
            Err(anyhow::anyhow!("work was still in flight {when}; it will be delivered again"))
        }
    };
    health_shutdown.stop();
    tracing::info!(service, "stopped");
    result
}

/// The signals to stop: SIGTERM, and SIGINT, which is Ctrl-C.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn watch() -> std::io::Result<Self> {
        let (terminate, interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        Ok(Self { terminate, interrupt })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Stops the service at the first signal. Returns when the work in flight has had its time, and answers when that
/// was: after the grace, or at a second signal.
async fn stop_on_signal(mut signals: Signals, shutdown: &Shutdown, grace: Duration) -> String {
    shutdown.run_until_stopped(signals.next()).await;
    tracing::info!("stopping: finishing what is in flight");
    shutdown.stop();
    let when = tokio::select! {
        () = tokio::time::sleep(grace) => format!("{grace:?} after the signal to stop"),
        () = signals.next() => "at a second signal to stop".to_owned(),
    };
    shutdown.cut_off();
    when
}

fn start_logging(common: &Common) -> Result<(), ConfigError> {
    let filter = EnvFilter::try_new(&common.log_filter).map_err(|error| ConfigError {
        variable: "CUEWIRE_LOG".to_owned(),
        reason: format!("is no log filter: {error}"),
    })?;
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match common.log_format {
        LogFormat::Text => subscriber.with_ansi(false).init(),
        LogFormat::Json => subscriber.json().flatten_event(true).init(),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nothing answers there.
    fn common() -> Common {
        let variables = [
            ("DATABASE_URL", "postgres://nobody@127.0.0.1:1/none"),
            ("AMQP_URL", "amqp://nobody@127.0.0.1:1/none"),
            ("CUEWIRE_SECRETS_KEY", "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="),
            ("CUEWIRE_HEALTH_LISTEN", "127.0.0.1:0"),
        ];
        Common::read(&Environment::of(variables), 0).unwrap()
    }

    #[test]
    fn as_many_files_may_be_open_as_the_system_allows() {
        let (soft, hard) = rlimit::Resource::NOFILE.get().unwrap();
        rlimit::Resource::NOFILE.set(soft.min(1_024), hard).unwrap();
        raise_open_files();
        assert_eq!(rlimit::Resource::NOFILE.get().unwrap(), (hard, hard));
    }

    #[tokio::test]
    async fn a_service_whose_vital_task_ends_ends_with_an_error_that_names_it() {
        let ended = serve("test", common(), async |context: Context| {
            context.shutdown.spawn_vital("heart", async { panic!("on purpose") });
            std::future::pending().await
        });
        assert_eq!(ended.await.unwrap_err().to_string(), "the heart has ended, which it cannot do without");
    }

    #[tokio::test]
    async fn work_that_outlasts_the_grace_for_stopping_ends_the_service_with_an_error_that_says_so() {
        let common = Common { shutdown_grace: Duration::from_millis(20), ..common() };
        let ended = serve("test", common, async |context: Context| {
            context.shutdown.stop();
            std::future::pending().await
        });
        assert_eq!(
            ended.await.unwrap_err().to_string(),
            "work was still in flight 20ms after the signal to stop; it will be delivered again"
        );
    }
}
