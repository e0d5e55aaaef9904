//! The shipped Prometheus, as far as it is ours: its configuration, the alerts and the dashboards, on a system that
//! runs.

use std::convert::Infallible;
use std::path::Path;
use std::time::Duration;

use cuewire_tests::amqp::Raw;
use cuewire_tests::prometheus::{PostgresExporter, Prometheus, lint};
use cuewire_tests::wait::within;
use cuewire_tests::{Answer, Organization, Receiver, Service, Setup, System};
use serde_json::Value;

const CONFIGURATION: &str = include_str!("../../../deploy/prometheus/prometheus.yml");
const DASHBOARDS: [(&str, &str); 4] = [
    ("overview", include_str!("../../../deploy/grafana/dashboards/overview.json")),
    ("senders", include_str!("../../../deploy/grafana/dashboards/senders.json")),
    ("rabbitmq", include_str!("../../../deploy/grafana/dashboards/rabbitmq.json")),
    ("postgres", include_str!("../../../deploy/grafana/dashboards/postgres.json")),
];
/// Rates need two samples of a counter, and alerts two evaluations.
const PATIENCE: Duration = Duration::from_secs(60);

/// The shipped configuration with the addresses of this system, and more impatient.
async fn configuration(system: &System, exporter: &PostgresExporter) -> String {
    let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/prometheus/rules.yml");
    let mut configuration = CONFIGURATION
        .replace("- rules.yml", &format!("- {}", rules.display()))
        .replace("interval: 15s\n", "interval: 1s\n")
        .replace("rabbitmq:15692", &system.servers().metrics_address())
        .replace("postgres-exporter:9187", exporter.address());
    for (service, port) in Service::ALL.into_iter().zip([9101, 9102, 9103, 9104]) {
        let name = service.name();
        let shipped =
            format!("dns_sd_configs: [{{ names: [{name}], type: A, port: {port}, refresh_interval: 15s }}]");
        assert!(configuration.contains(&shipped), "{name}: {configuration}");
        let here = format!("static_configs: [{{ targets: [\"{}\"] }}]", system.health_address(service).await);
        configuration = configuration.replace(&shipped, &here);
    }
    configuration
}

/// Every expression of every panel, with where it stands.
fn panels() -> Vec<(String, String)> {
    let mut expressions = Vec::new();
    for (name, json) in DASHBOARDS {
        let dashboard: Value = serde_json::from_str(json).unwrap();
        for panel in dashboard["panels"].as_array().unwrap() {
            for target in panel["targets"].as_array().unwrap_or(&Vec::new()) {
                let expression = target["expr"].as_str().unwrap().replace("$__rate_interval", "30s");
                expressions.push((format!("{name}: {}", panel["title"]), expression));
            }
        }
    }
    expressions
}

/// What an alert measures, without the threshold; of one about what is not there, each of the things.
fn measured(condition: &str) -> Vec<String> {
    if condition.starts_with("absent(") {
        let things = condition.split(" or ").map(|thing| thing.trim().strip_prefix("absent("));
        return things.map(|thing| thing.unwrap().strip_suffix(')').unwrap().to_owned()).collect();
    }
    let (what, threshold) = condition.rsplit_once([' ']).expect("a condition has a threshold");
    threshold.parse::<f64>().unwrap_or_else(|_| panic!("{condition} has no threshold at its end"));
    vec![what.trim_end_matches([' ', '<', '>', '=']).to_owned()]
}

/// Every expression of every alert without its threshold, with the alert's name, and those of recorded rules.
async fn rules(prometheus: &Prometheus) -> Vec<(String, String)> {
    let rules = prometheus.rules().await;
    let expressions = rules.iter().flat_map(|rule| {
        let (name, query) = (rule["name"].as_str().unwrap(), rule["query"].as_str().unwrap());
        let expressions = match rule["type"].as_str() {
            Some("alerting") => measured(query),
            _ => vec![query.to_owned(), name.to_owned()],
        };
        expressions.into_iter().map(move |expression| (name.to_owned(), expression))
    });
    expressions.collect()
}

/// Of all that the system does, a little, for as long as it is polled.
async fn load(system: &System, organization: &Organization<'_>) -> Infallible {
    let mut pace = tokio::time::interval(Duration::from_millis(50));
    loop {
        pace.tick().await;
        let event = organization.event("recordings.completed");
        let _ = organization.admin.post("/v1/events", &event).await.expect(202);
        let _ = organization.admin.get("/v1/made-up").await.expect(404);
        system.amqp().await.publish(&event).await; // a repeat
        system.amqp().await.publish(&organization.event("made-up.category")).await;
        system.amqp().await.publish(&cuewire_tests::event("a.b", "nobody")).await;
    }
}

async fn have_data(prometheus: &Prometheus, expressions: &[(String, String)]) {
    for (place, expression) in expressions {
        within(PATIENCE, &format!("{place} has data: {expression}"), async || {
            (!prometheus.query(expression).await.is_empty()).then_some(())
        })
        .await;
    }
}

/// Labels by which metrics may be told apart: each has few values, which no client makes up.
const LABELS: [&str; 17] = [
    "action",
    "category",
    "cause",
    "component",
    "error",
    "format",
    "lane",
    "le",
    "method",
    "outcome",
    "reason",
    "result",
    "route",
    "service",
    "state",
    "status",
    "table",
];

/// Series with another label, or with a value that a publisher or a tenant chose: their number would have no bound.
fn unbounded<'a>(metrics: &'a str, organization: &str) -> Vec<&'a str> {
    let has_other_label = |series: &str| {
        let mut labels = series.split(['{', ',']).skip(1).filter_map(|label| label.split_once("=\""));
        labels.any(|(name, _)| name != "version" && !LABELS.contains(&name))
    };
    let is_made_up =
        |series: &str| [organization, "made-up", "127.0.0.1"].iter().any(|word| series.contains(word));
    let series = metrics.lines().filter(|line| !line.starts_with('#'));
    series.filter(|series| has_other_label(series) || is_made_up(series)).collect()
}

#[test]
fn every_expression_of_every_panel_and_alert_finds_data_on_a_running_system() {
    Setup::processes().broker_metrics().run(async |system| {
        let exporter = PostgresExporter::start(system.database_url()).await;
        let prometheus = Prometheus::start(&configuration(system, &exporter).await).await;
        let organization = system.organization().await;
        let healthy = Receiver::healthy().await;
        // Often enough for retries and dead letters, and not so often that its breaker opens.
        let fails = |number: usize| number.is_multiple_of(3);
        let failing =
            Receiver::start(move |_, before| Answer::status(if fails(before.len()) { 500 } else { 200 }))
                .await;
        organization.webhook(healthy.url("/")).create().await;
        organization.webhook(failing.url("/")).types(&["recordings.*"]).schedule(&["1s"]).create().await;

        let look = async {
            within(PATIENCE, "every job is found", async || {
                (prometheus.query("count(up == 1)").await == [7.0]).then_some(())
            })
            .await;
            let panels = panels();
            assert!(panels.len() > 90, "{}", panels.len());
            have_data(&prometheus, &panels).await;
            let rules = rules(&prometheus).await;
            assert!(rules.len() > 25, "{}", rules.len());
            have_data(&prometheus, &rules).await;
            let firing = "ALERTS{alertname=\"CuewirePoison\",alertstate=\"firing\"}";
            assert_eq!(prometheus.query(firing).await, Vec::<f64>::new());
            system.amqp().await.publish_raw(&Raw::body("a.b", "not JSON")).await.unwrap();
            within(PATIENCE, "somebody is told of what cannot be read", async || {
                (prometheus.query(firing).await == [1.0]).then_some(())
            })
            .await;
            for rule in prometheus.rules().await {
                assert_eq!(rule["health"], "ok", "{rule}");
            }
            for service in Service::ALL {
                let metrics = system.metrics(service).await;
                assert_eq!(lint(&metrics).await, Ok(()), "{}", service.name());
                assert_eq!(unbounded(&metrics, &organization.id), Vec::<&str>::new(), "{}", service.name());
            }
            // And nobody is told of what is well.
            let others = "ALERTS{alertname=~\"CuewireUnrouted|CuewireBrokerAlarm|CuewireParkingNotEmpty\"}";
            assert_eq!(prometheus.query(others).await, Vec::<f64>::new());
        };
        tokio::select! {
            () = look => {}
            never = load(system, &organization) => match never {},
        }
    });
}

#[test]
fn a_condition_without_its_threshold_is_what_it_measures() {
    assert_eq!(measured("sum(a{b=\"c\"}) > 0.5"), ["sum(a{b=\"c\"})"]);
    assert_eq!(measured("min(a) < 1"), ["min(a)"]);
    assert_eq!(
        measured("absent(up{job=\"a\"}) or absent(up{job=\"b\"})"),
        ["up{job=\"a\"}", "up{job=\"b\"}"]
    );
}
