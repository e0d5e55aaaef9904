//! The services of a system: started, ended one way or another, and asked how they are.

use std::time::Duration;

use cuewire::config::Environment;
use reqwest::StatusCode;
use tokio::net::TcpListener;

use crate::process::{Ended, Process};
use crate::running::{Running, STOP_WITHIN, Service, Task};
use crate::system::System;
use crate::wait::{until, within};

impl System {
    pub(crate) async fn start_all(&self) {
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

    /// Waits until a process of a service has logged a line with this in it.
    pub async fn until_said(&self, service: Service, part: &str) {
        until(&format!("the {} says {part:?}", service.name()), async || {
            self.said(service).await.iter().any(|line| line.contains(part)).then_some(())
        })
        .await;
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

    /// Waits until a sender has put deliveries off so often for this cause, as its metrics name it.
    pub async fn wait_until_parked(&self, cause: &str, times: usize) {
        until(&format!("{times} times one is parked as {cause}"), async || {
            let cause = [("cause", cause)];
            let parked = self.metric(Service::Sender, "cuewire_sender_parked_total", &cause).await?;
            (parked >= times as f64).then_some(())
        })
        .await;
    }

    /// All metrics of a replica of the service, as Prometheus reads them.
    pub async fn metrics(&self, service: Service) -> String {
        let running = self.running.lock().await;
        match running.iter().find(|it| it.service() == service) {
            Some(running) => running.scrape().await,
            None => panic!("no {} runs", service.name()),
        }
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
