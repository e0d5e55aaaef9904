//! What a test needs of the system, and how it is run: set up, tried, and stopped in good order.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use cuewire::config::Environment;
use cuewire::service::raise_open_files;
use futures_util::FutureExt;

use crate::management::Permissions;
use crate::panics;
use crate::running::Service;
use crate::system::System;

/// What a test needs.
#[derive(Debug, Clone)]
pub struct Setup {
    pub(crate) replicas: [usize; 4],
    pub(crate) variables: Vec<(String, String)>,
    pub(crate) processes: bool,
    pub(crate) own_servers: bool,
    pub(crate) broker_metrics: bool,
    pub(crate) empty_database: bool,
    pub(crate) proxies: bool,
    /// What the services' broker user may do; none: everything.
    pub(crate) permissions: Option<Permissions>,
    /// Broker users of some services' own.
    pub(crate) broker_users: Vec<(Service, Permissions)>,
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
        // All four services, and both ends of each request.
        raise_open_files();
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

fn start_logging() {
    let environment = Environment::of_process();
    let filter = environment.text("CUEWIRE_TEST_LOG").unwrap_or("off").to_owned();
    // Another test of this process may have been first.
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).try_init();
}
