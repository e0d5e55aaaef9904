//! A database of a test's own, on the server that `make test` has started, with the schema of this version.

use tokio_postgres::{Client, NoTls};
use uuid::Uuid;

use super::{Database, partitions};
use crate::config::Environment;

const HOW: &str = "CUEWIRE_TEST_DATABASE_URL says where the tests' server is; `deploy/local/test -p cuewire --lib \
    db::` starts one for these tests";

/// Gone when the test has ended.
pub(crate) struct Scratch {
    pub(crate) database: Database,
    /// A connection besides those of the pool, whose statements take as long as they take.
    pub(crate) client: Client,
    url: String,
}

/// Runs a test on a database of its own.
pub(crate) fn test(test: impl AsyncFnOnce(&Scratch)) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let server: url::Url =
            Environment::of_process().text("CUEWIRE_TEST_DATABASE_URL").expect(HOW).parse().expect(HOW);
        let name = format!("cuewire_test_{}", Uuid::new_v4().simple());
        let admin = connect(server.as_str()).await;
        admin.batch_execute(&format!("CREATE DATABASE {name} TEMPLATE template0")).await.unwrap();
        let mut own = server.clone();
        own.set_path(&name);
        let scratch = Scratch::new(own.into()).await;
        let result =
            futures_util::FutureExt::catch_unwind(std::panic::AssertUnwindSafe(test(&scratch))).await;
        drop(scratch);
        admin.batch_execute(&format!("DROP DATABASE {name} WITH (FORCE)")).await.unwrap();
        if let Err(panic) = result {
            std::panic::resume_unwind(panic);
        }
    });
}

impl Scratch {
    async fn new(url: String) -> Self {
        let database = Database::new(&url, 4).unwrap();
        database.migrate().await.unwrap();
        Self { database, client: connect(&url).await, url }
    }

    /// One more connection.
    pub(crate) async fn connect(&self) -> Client {
        connect(&self.url).await
    }

    /// How many rows a query counts.
    pub(crate) async fn count(&self, from: &str) -> i64 {
        self.client.query_one(&format!("SELECT count(*) FROM {from}"), &[]).await.unwrap().get(0)
    }

    /// The names of a table's partitions.
    pub(crate) async fn attached(&self, table: &str) -> Vec<String> {
        let sql = "SELECT inhrelid::regclass::text FROM pg_inherits
                   WHERE inhparent = $1::text::regclass AND NOT inhdetachpending ORDER BY 1";
        self.client.query(sql, &[&table]).await.unwrap().iter().map(|row| row.get(0)).collect()
    }

    /// The partition of a day from today on.
    pub(crate) fn partition(table: &str, ahead: i64) -> String {
        partitions::partition_name(table, partitions::today() + time::Duration::days(ahead))
    }
}

async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.expect(HOW);
    tokio::spawn(connection);
    client
}
