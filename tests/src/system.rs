//! The system under test: where its services run and what they are configured with, and all ways to it from outside.

use cuewire::config::{Common, Environment};
use serde_json::json;
use tokio::sync::{Mutex, OnceCell};
use tokio_postgres::NoTls;
use uuid::Uuid;

use crate::amqp::Amqp;
use crate::api::Client;
use crate::management::{Management, Permissions};
use crate::organization::Organization;
use crate::place::{Place, Schema};
use crate::proxy::Proxy;
use crate::running::{Running, Service};
use crate::servers::OwnServers;

pub use crate::setup::{Setup, test};

/// Every test's; it guards nothing.
const OPERATOR_KEY: &str = "operator-key-of-the-tests";
const SECRETS_KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

/// What is between the services and their servers.
#[derive(Debug)]
struct Proxies {
    broker: Proxy,
    database: Proxy,
}

/// The services, and where they run.
#[derive(Debug)]
pub struct System {
    pub(crate) setup: Setup,
    place: Place,
    /// The services' broker user's.
    services_amqp_url: String,
    proxies: Option<Proxies>,
    /// Those of the services that have a broker user of their own.
    pub(crate) own_amqp_urls: Vec<(Service, String)>,
    pub(crate) running: Mutex<Vec<Running>>,
    pub(crate) api: std::sync::Mutex<String>,
    amqp: OnceCell<Amqp>,
    database: OnceCell<tokio_postgres::Client>,
}

impl System {
    pub(crate) async fn new(setup: Setup) -> Self {
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

    /// Every queue that is declared.
    pub(crate) fn queues(&self) -> Vec<String> {
        let common = Common::read(&Environment::of(self.environment()), 0).expect("the harness knows");
        common.topology.queues().into_iter().map(|queue| queue.name).collect()
    }

    pub(crate) async fn remove(self, failed: bool) {
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
}
