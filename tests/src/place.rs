//! A place for one test: a vhost and a database that nobody else uses, and that go with it.

use cuewire::db::Database;
use tokio_postgres::NoTls;
use url::Url;
use uuid::Uuid;

use crate::management::{Management, PASSWORD, Permissions};
use crate::servers::{self, OwnServers, Servers};
use crate::wait::until;

/// One process at a time makes or mends the template.
const TEMPLATE_LOCK: i64 = 0x6375_6577_7465_7374;
const TEMPLATE: &str = "cuewire_tests_template";

/// Where a test's services run.
#[derive(Debug)]
pub(crate) struct Place {
    /// The services' broker, with the vhost.
    pub(crate) amqp_url: String,
    /// The services' database.
    pub(crate) database_url: String,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    /// Named so, as vhost and as database, on the servers that all share.
    Shared { name: String, management: Management },
    /// Whole servers.
    Own(Box<OwnServers>),
}

/// What is in a new database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Schema {
    /// The schema of this version.
    Migrated,
    /// Nothing.
    None,
}

impl Place {
    /// On the servers that all tests share.
    pub(crate) async fn shared(schema: Schema) -> Self {
        let servers = servers::shared();
        let name = format!("cuewire_test_{}", Uuid::new_v4().simple());
        let url = servers.management.clone().expect("vhosts are made where there is an HTTP API");
        let management = Management::new(url, &name);
        let (database_url, ()) =
            tokio::join!(create_database(servers, &name, schema), management.create_vhost());
        let mut amqp = servers.amqp.clone();
        amqp.set_path(&name);
        Self { amqp_url: amqp.into(), database_url, kind: Kind::Shared { name, management } }
    }

    /// On servers of its own, with what else their script is to be told.
    pub(crate) async fn own(options: &[(&str, &str)]) -> Self {
        let own = OwnServers::start(options).await;
        let Servers { amqp, database, .. } = own.servers.clone();
        Self { amqp_url: amqp.into(), database_url: database.into(), kind: Kind::Own(Box::new(own)) }
    }

    /// The servers, if they are the test's own.
    pub(crate) fn own_servers(&self) -> Option<&OwnServers> {
        match &self.kind {
            Kind::Own(own) => Some(own),
            Kind::Shared { .. } => None,
        }
    }

    /// The broker's HTTP API, where the broker is shared.
    pub(crate) fn management(&self) -> Option<&Management> {
        match &self.kind {
            Kind::Own(_) => None,
            Kind::Shared { management, .. } => Some(management),
        }
    }

    /// The URL of a new broker user who may do this.
    pub(crate) async fn amqp_user(&self, name: &str, permissions: Permissions) -> String {
        let management = self.management().expect("the broker is shared");
        let mut url: Url = self.amqp_url.parse().expect("it is a URL");
        url.set_username(&management.user(name, permissions).await).expect("an AMQP URL has a user");
        url.set_password(Some(PASSWORD)).expect("an AMQP URL has a password");
        url.into()
    }

    /// Removes it all.
    pub(crate) async fn remove(self) {
        match self.kind {
            Kind::Own(own) => own.destroy().await,
            Kind::Shared { name, management } => {
                let servers = servers::shared();
                let drop_database = async {
                    let admin = connect(&servers.database).await;
                    let drop = format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)");
                    admin.batch_execute(&drop).await.unwrap();
                };
                tokio::join!(drop_database, management.remove_vhost());
            }
        }
    }
}

async fn connect(url: &Url) -> tokio_postgres::Client {
    let (client, connection) = tokio_postgres::connect(url.as_str(), NoTls)
        .await
        .unwrap_or_else(|error| panic!("the tests' database server does not answer: {error}"));
    tokio::spawn(connection);
    client
}

/// A copy of a migrated template, which takes a tenth of the time of a migration.
async fn create_database(servers: &Servers, name: &str, schema: Schema) -> String {
    static READY: tokio::sync::OnceCell<()> = tokio::sync::OnceCell::const_new();
    let template = match schema {
        Schema::None => "template0",
        Schema::Migrated => {
            READY.get_or_init(|| make_template(servers)).await;
            TEMPLATE
        }
    };
    let admin = connect(&servers.database).await;
    let create = format!("CREATE DATABASE {name} TEMPLATE {template}");
    until("the template is not in use", async || admin.batch_execute(&create).await.ok()).await;
    with_database(&servers.database, name).into()
}

fn with_database(url: &Url, name: &str) -> Url {
    let mut url = url.clone();
    url.set_path(name);
    url
}

async fn make_template(servers: &Servers) {
    let admin = connect(&servers.database).await;
    admin.execute("SELECT pg_advisory_lock($1)", &[&TEMPLATE_LOCK]).await.unwrap();
    let exists = admin.query_opt("SELECT FROM pg_database WHERE datname = $1", &[&TEMPLATE]).await.unwrap();
    if exists.is_none() {
        admin.batch_execute(&format!("CREATE DATABASE {TEMPLATE}")).await.unwrap();
    }
    let url = with_database(&servers.database, TEMPLATE);
    if migrate(&url).await.is_err() {
        // A template of another version of the schema.
        admin.batch_execute(&format!("DROP DATABASE {TEMPLATE} WITH (FORCE)")).await.unwrap();
        admin.batch_execute(&format!("CREATE DATABASE {TEMPLATE}")).await.unwrap();
        migrate(&url).await.expect("an empty database can be migrated");
    }
}

async fn migrate(url: &Url) -> Result<(), cuewire::db::DbError> {
    Database::new(url.as_str(), 2)?.migrate().await
}
