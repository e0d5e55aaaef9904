//! The system under test: the services on a place of their own, and all that a test does to them.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use cuewire::config::{Common, Environment};
use futures_util::FutureExt;
use reqwest::StatusCode;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::{Mutex, OnceCell};
use tokio_postgres::NoTls;
use uuid::Uuid;

use crate::amqp::Amqp;
use crate::api::Client;
use crate::management::{Management, Permissions};
use crate::organization::Organization;
use crate::panics;
use crate::place::{Place, Schema};
use crate::process::{Ended, Process};
use crate::proxy::Proxy;
use crate::running::{Running, STOP_WITHIN, Service, Task};
use crate::servers::OwnServers;
use crate::wait::{until, within};

/// Every test's; it guards nothing.
const OPERATOR_KEY: &str = "operator-key-of-the-tests";
const SECRETS_KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

/// What a test needs.
#[derive(Debug, Clone)]
pub struct Setup {
    replicas: [usize; 4],
    variables: Vec<(String, String)>,
    processes: bool,
    own_servers: bool,
    broker_metrics: bool,
    empty_database: bool,
    proxies: bool,
    /// What the services' broker user may do; none: everything.
    permissions: Option<Permissions>,
    /// Broker users of some services' own.
    broker_users: Vec<(Service, Permissions)>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            replicas: [1; 4],
            variables: Vec::new(),
            processes: false,
            own_servers: false,
            broker_metrics: false,
            empty_database: false,
            proxies: false,
            permissions: None,
            broker_users: Vec::new(),
        }
    }
}

impl Setup {
    /// The services as processes, which can be killed.
    #[must_use]
    pub fn processes() -> Self {
        Self { processes: true, ..Self::default() }
    }

    /// On servers of its own, which can be killed too.
    #[must_use]
    pub fn own_servers(mut self) -> Self {
        self.own_servers = true;
        self
    }

    /// On servers of its own, with the broker's metrics.
    #[must_use]
    pub fn broker_metrics(mut self) -> Self {
        self.broker_metrics = true;
        self.own_servers()
    }

    /// On a database without a schema: the first services to start make it.
    #[must_use]
    pub fn empty_database(mut self) -> Self {
        self.empty_database = true;
        self
    }

    /// The services with a proxy before each server, which can make it hang.
    #[must_use]
    pub fn proxies(mut self) -> Self {
        self.proxies = true;
        self
    }

    /// The services with a broker user who may do this and no more.
    #[must_use]
    pub fn permissions(mut self, permissions: Permissions) -> Self {
        self.permissions = Some(permissions);
        self
    }

    /// One service with a broker user of its own, who may do this and no more.
    #[must_use]
    pub fn broker_user(mut self, service: Service, permissions: Permissions) -> Self {
        self.broker_users.push((service, permissions));
        self
    }

    /// So many replicas of a service.
    #[must_use]
    pub fn replicas(mut self, service: Service, replicas: usize) -> Self {
        self.replicas[service as usize] = replicas;
        self
    }

    /// A variable of every service's environment.
    #[must_use]
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Without any replica of any service: the test starts them.
    #[must_use]
    pub fn nothing_running(mut self) -> Self {
        self.replicas = [0; 4];
        self
    }

    /// Runs a test. When it has passed, everything is stopped in the order of the flow, and fails the test
    /// if a queue is not empty then, a service did not end in good order, or anything has panicked.
    pub fn run(self, test: impl AsyncFnOnce(&System)) {
        panics::watch();
        start_logging();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime");
        let result = runtime.block_on(async {
            let system = System::new(self).await;
            let whole = async {
                system.start_all().await;
                test(&system).await;
                system.stop_all().await;
                let panics = panics::seen();
                assert!(panics.is_empty(), "something panicked: {panics:#?}");
            };
            let result = AssertUnwindSafe(whole).catch_unwind().await;
            system.remove(result.is_err()).await;
            result
        });
        runtime.shutdown_timeout(Duration::from_secs(1));
        if let Err(panic) = result {
            std::panic::resume_unwind(panic);
        }
    }
}

/// Runs a test on one of each service.
pub fn test(test: impl AsyncFnOnce(&System)) {
    Setup::default().run(test);
}

/// What is between the services and their servers.
#[derive(Debug)]
struct Proxies {
    broker: Proxy,
    database: Proxy,
}

/// The services, and where they run.
#[derive(Debug)]
pub struct System {
    setup: Setup,
    place: Place,
    /// The services' broker user's.
    services_amqp_url: String,
    proxies: Option<Proxies>,
    /// Those of the services that have a broker user of their own.
    own_amqp_urls: Vec<(Service, String)>,
    running: Mutex<Vec<Running>>,
    api: std::sync::Mutex<String>,
    amqp: OnceCell<Amqp>,
    database: OnceCell<tokio_postgres::Client>,
}

impl System {
    async fn new(setup: Setup) -> Self {
        let options: &[_] = if setup.broker_metrics { &[("CUEWIRE_PROMETHEUS_PORT", "any")] } else { &[] };
        let place = match (setup.own_servers, setup.empty_database) {
            (true, _) => Place::own(options).await,
            (false, true) => Place::shared(Schema::None).await,
            (false, false) => Place::shared(Schema::Migrated).await,
        };
        let services_amqp_url = match setup.permissions {
            None => place.amqp_url.clone(),
            Some(permissions) => place.amqp_user("services", permissions).await,
        };
        let proxies = match setup.proxies {
            false => None,
            true => Some(Proxies {
                broker: Proxy::before(&services_amqp_url).await,
                database: Proxy::before(&place.database_url).await,
            }),
        };
        let mut own_amqp_urls = Vec::new();
        for (service, permissions) in &setup.broker_users {
            own_amqp_urls.push((*service, place.amqp_user(service.name(), *permissions).await));
        }
        let (running, api) = (Mutex::default(), std::sync::Mutex::default());
        let (amqp, database) = (OnceCell::new(), OnceCell::new());
        Self { setup, place, services_amqp_url, own_amqp_urls, proxies, running, api, amqp, database }
    }

    async fn start_all(&self) {
        for service in Service::ALL {
            for _ in 0..self.setup.replicas[service as usize] {
                self.start_unready(service).await;
            }
        }
        self.ready().await;
    }

    /// Starts a replica more, and waits until it is ready.
    pub async fn start(&self, service: Service) {
        self.start_unready(service).await;
        self.ready().await;
    }

    /// Starts a replica more.
    pub async fn start_unready(&self, service: Service) {
        let mut variables = self.environment();
        let own = self.own_amqp_urls.iter().filter(|(of, _)| *of == service);
        variables.extend(own.map(|(_, url)| ("AMQP_URL".to_owned(), url.clone())));
        let running = if self.setup.processes {
            let process = Process::start(service, &variables);
            if service == Service::Api {
                self.set_api(&process.address("the API is served").await);
            }
            Running::Process(process)
        } else {
            let listener = match service {
                Service::Api => {
                    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
                    self.set_api(&listener.local_addr().expect("it is bound").to_string());
                    Some(listener)
                }
                _ => None,
            };
            Running::Task(Task::start(service, &Environment::of(variables), listener))
        };
        self.running.lock().await.push(running);
    }

    fn set_api(&self, address: &str) {
        *self.api.lock().unwrap() = format!("http://{address}");
    }

    /// What a service is configured with.
    pub fn environment(&self) -> Vec<(String, String)> {
        let (database, broker) = match &self.proxies {
            None => (self.place.database_url.as_str(), self.services_amqp_url.as_str()),
            Some(Proxies { broker, database }) => (database.url(), broker.url()),
        };
        let mut variables: Vec<(String, String)> = [
            ("DATABASE_URL", database),
            ("AMQP_URL", broker),
            ("CUEWIRE_OPERATOR_KEY", OPERATOR_KEY),
            ("CUEWIRE_SECRETS_KEY", SECRETS_KEY),
            ("CUEWIRE_ALLOWED_NETWORKS", "127.0.0.0/8,::1/128"),
            ("CUEWIRE_API_LISTEN", "127.0.0.1:0"),
            ("CUEWIRE_HEALTH_LISTEN", "127.0.0.1:0"),
            ("CUEWIRE_DATABASE_CONNECTIONS", "4"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
        variables.extend(self.setup.variables.iter().cloned());
        variables
    }

    /// Waits until everything that runs is ready.
    pub async fn ready(&self) {
        within(Duration::from_secs(60), "every service is ready", async || {
            for running in self.running.lock().await.iter() {
                if !running.is_ready().await {
                    return None;
                }
            }
            Some(())
        })
        .await;
        if !self.running.lock().await.iter().any(|running| running.service() == Service::Api) {
            return;
        }
        until("the API answers", async || {
            let client = self.operator();
            let request = client.request(reqwest::Method::GET, "/openapi.json");
            client.try_send(request).await.ok()
        })
        .await;
    }

    /// What a replica of the service lacks, by its own words; none when it is ready.
    pub async fn missing(&self, service: Service) -> Option<String> {
        for running in self.running.lock().await.iter() {
            if running.service() == service {
                return running.missing().await;
            }
        }
        None
    }

    /// What a replica of the service, a process, answers where its health is told: the status and the text.
    pub async fn health(&self, service: Service, path: &str) -> (StatusCode, String) {
        let running = self.running.lock().await;
        for running in running.iter().filter(|it| it.service() == service) {
            if let Running::Process(process) = running {
                return process.get(path).await.unwrap();
            }
        }
        panic!("no {} runs as a process", service.name());
    }

    /// Where the first process of a service tells its health and its metrics.
    pub async fn health_address(&self, service: Service) -> String {
        for running in self.running.lock().await.iter() {
            match running {
                Running::Process(process) if process.service == service => {
                    return process.address("health and metrics are served").await;
                }
                _ => {}
            }
        }
        panic!("no {} runs as a process", service.name());
    }

    /// What the processes of a service have logged so far, by lines.
    pub async fn said(&self, service: Service) -> Vec<String> {
        let mut said = Vec::new();
        for running in self.running.lock().await.iter() {
            match running {
                Running::Process(process) if process.service == service => {
                    said.extend(process.said().lines().map(str::to_owned));
                }
                _ => {}
            }
        }
        said
    }

    /// `kill -9` to one replica.
    pub async fn kill(&self, service: Service) {
        self.take(service).await.kill().await;
    }

    /// SIGTERM to one replica; returns when it has ended in good order.
    pub async fn stop(&self, service: Service) {
        self.take(service).await.stop().await;
    }

    /// Sends a signal, such as `TERM`, to one replica, which is a process.
    pub async fn signal(&self, service: Service, signal: &str) {
        let running = self.running.lock().await;
        match running.iter().find(|it| it.service() == service) {
            Some(Running::Process(process)) => process.signal(signal).await,
            _ => panic!("no {} runs as a process", service.name()),
        }
    }

    /// Waits until one replica, which is a process, has ended of itself or by a signal.
    pub async fn ended(&self, service: Service) -> Ended {
        match self.take(service).await {
            Running::Process(process) => process.ended(STOP_WITHIN).await,
            Running::Task(_) => panic!("the {} is no process", service.name()),
        }
    }

    async fn take(&self, service: Service) -> Running {
        let mut running = self.running.lock().await;
        let at = running.iter().position(|running| running.service() == service);
        running.remove(at.unwrap_or_else(|| panic!("no {} runs", service.name())))
    }

    /// Stops every replica of a service, and says how many there were.
    pub(crate) async fn stop_every(&self, service: Service) -> usize {
        let mut stopped = 0;
        loop {
            let mut running = self.running.lock().await;
            let Some(at) = running.iter().position(|it| it.service() == service) else { return stopped };
            let one = running.remove(at);
            drop(running);
            one.stop().await;
            stopped += 1;
        }
    }

    /// Whether a replica of the service runs.
    pub(crate) async fn runs(&self, service: Service) -> bool {
        self.running.lock().await.iter().any(|running| running.service() == service)
    }

    /// A metric, summed over the replicas of a service and all labels.
    pub async fn sum(&self, service: Service, metric: &str) -> f64 {
        let mut sum = 0.0;
        for running in self.running.lock().await.iter().filter(|it| it.service() == service) {
            sum += running.sum(metric).await;
        }
        sum
    }

    /// A metric of a replica of the service, summed over the labels that are not given; none where there is no
    /// such one.
    pub async fn metric(&self, service: Service, metric: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let running = self.running.lock().await;
        running.iter().find(|it| it.service() == service)?.metric(metric, labels).await
    }

    /// All metrics of a replica of the service, as Prometheus reads them.
    pub async fn metrics(&self, service: Service) -> String {
        let running = self.running.lock().await;
        match running.iter().find(|it| it.service() == service) {
            Some(running) => running.scrape().await,
            None => panic!("no {} runs", service.name()),
        }
    }

    /// Every queue that is declared.
    pub(crate) fn queues(&self) -> Vec<String> {
        let common = Common::read(&Environment::of(self.environment()), 0).expect("the harness knows");
        common.topology.queues().into_iter().map(|queue| queue.name).collect()
    }

    async fn remove(self, failed: bool) {
        for running in self.running.into_inner() {
            if let (true, Running::Process(process)) = (failed, &running) {
                eprintln!("--- the {} said:\n{}", process.service.name(), process.said());
            }
            running.kill().await;
        }
        drop((self.amqp, self.database));
        self.place.remove().await;
    }

    /// The API by the operator's key.
    pub fn operator(&self) -> Client {
        Client::new(&self.api.lock().unwrap(), Some(OPERATOR_KEY))
    }

    /// A new organization without a name in any platform.
    pub async fn organization(&self) -> Organization<'_> {
        Organization::create(self, &json!({"name": format!("org {}", Uuid::new_v4().simple())})).await
    }

    /// A new organization that events may name by this external id.
    pub async fn organization_named(&self, external_id: &str) -> Organization<'_> {
        Organization::create(self, &json!({"name": external_id, "external_id": external_id})).await
    }

    /// A connection to the broker as an upstream has one.
    pub async fn amqp(&self) -> &Amqp {
        let open = async || Amqp::open(&self.place.amqp_url).await.expect("the broker is there");
        self.amqp.get_or_init(open).await
    }

    /// The broker's HTTP API; the broker must be the one that tests share.
    pub fn management(&self) -> &Management {
        self.place.management().expect("the broker is shared")
    }

    /// The URL of a new broker user who may do this.
    pub async fn amqp_user(&self, name: &str, permissions: Permissions) -> String {
        self.place.amqp_user(name, permissions).await
    }

    /// Runs `api topology apply` as the broker's administrator.
    pub async fn apply_topology(&self) {
        let mut apply = tokio::process::Command::new(crate::servers::binary("api"));
        apply
            .args(["topology", "apply"])
            .env_clear()
            .envs(self.environment())
            .env("AMQP_URL", self.amqp_url());
        let output = apply.output().await.expect("the api's command can be run");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// The URL of the broker's administrator.
    pub fn amqp_url(&self) -> &str {
        &self.place.amqp_url
    }

    /// The database's URL.
    pub fn database_url(&self) -> &str {
        &self.place.database_url
    }

    /// What is between the services and the broker.
    pub fn broker_proxy(&self) -> &Proxy {
        &self.proxies.as_ref().expect("the test has asked for proxies").broker
    }

    /// What is between the services and the database.
    pub fn database_proxy(&self) -> &Proxy {
        &self.proxies.as_ref().expect("the test has asked for proxies").database
    }

    /// The servers, where they are the test's own.
    pub fn servers(&self) -> &OwnServers {
        self.place.own_servers().expect("the test has asked for servers of its own")
    }

    /// A connection to the database.
    pub async fn database(&self) -> &tokio_postgres::Client {
        self.database.get_or_init(async || self.fresh_database().await).await
    }

    /// Another connection to the database: the first may have been lost to a fault.
    pub async fn fresh_database(&self) -> tokio_postgres::Client {
        let connected = tokio_postgres::connect(&self.place.database_url, NoTls).await;
        let (client, connection) = connected.expect("the database is there");
        tokio::spawn(connection);
        client
    }

    /// Waits until every router has as many webhooks as there are.
    pub(crate) async fn routers_know_webhooks(&self) {
        let count = "SELECT count(*) FROM webhooks WHERE enabled";
        let count: i64 = self.database().await.query_one(count, &[]).await.unwrap().get(0);
        until("every router knows every webhook", async || {
            for running in self.running.lock().await.iter() {
                if running.service() == Service::Router
                    && running.sum("cuewire_router_webhooks").await != count as f64
                {
                    return None;
                }
            }
            Some(())
        })
        .await;
    }
}

fn start_logging() {
    let environment = Environment::of_process();
    let filter = environment.text("CUEWIRE_TEST_LOG").unwrap_or("off").to_owned();
    // Another test of this process may have been first.
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).try_init();
}
