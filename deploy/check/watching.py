"""Alerts and dashboards: that Prometheus and its operator take them, each alert is explained, and what is generated is
what the generators make. What their expressions find is another test's, on a running system (tests/tests/deploy).
"""

import json
import re
import shutil
import subprocess
import sys
import tempfile
import pathlib

import yaml

from .tree import DEPLOY, check, document, each_manifest, text

RULES = "deploy/prometheus/rules.yml"
RULES_OF_THE_OPERATOR = "kubernetes/overlays/production/alerts.yaml"
README = "deploy/README.md"
DASHBOARDS = ("overview", "senders", "rabbitmq", "postgres")
RULE_HEAD = """\
# The rules of deploy/prometheus/rules.yml for the Prometheus operator, made by `deploy/local/deployment --write`.
"""


def prometheus_rule():
    """rules.yml as the Prometheus operator takes it."""
    manifest = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "cuewire", "labels": {"release": "kube-prometheus-stack"}},
        "spec": document(RULES),
    }
    return RULE_HEAD + yaml.safe_dump(manifest, sort_keys=False, width=110)


def write():
    (DEPLOY / RULES_OF_THE_OPERATOR).write_text(prometheus_rule())
    subprocess.run([sys.executable, DEPLOY / "grafana" / "generate.py"], check=True)


def promtool(*arguments):
    if not shutil.which("promtool"):
        return ["promtool is not there: install Debian's package `prometheus`"]
    run = subprocess.run(["promtool", *arguments], cwd=DEPLOY / "prometheus", capture_output=True, text=True)
    return [] if run.returncode == 0 else [run.stdout + run.stderr]


def alerts():
    return [rule for group in document(RULES)["groups"] for rule in group["rules"] if "alert" in rule]


@check
def prometheus_reads_its_configuration_and_the_rules():
    return promtool("check", "config", "prometheus.yml")


@check
def each_alert_is_raised_when_it_should_be_and_not_before():
    yield from promtool("test", "rules", "rules_test.yml")
    tested = text("deploy/prometheus/rules_test.yml")
    for alert in alerts():
        # With figures that raise it, and with figures that do not.
        if tested.count(f'alertname="{alert["alert"]}"') < 2:
            yield f"{alert['alert']} is not tested both ways"


@check
def each_alert_says_what_is_wrong_and_leads_to_what_to_do():
    headings = [heading.lower() for heading in re.findall(r"^#+ (\w+)$", text(README), re.M)]
    for alert in alerts():
        name, notes = alert["alert"], alert["annotations"]
        if alert["labels"]["severity"] not in ("page", "ticket"):
            yield f"{name}: nobody knows how soon"
        if not notes["summary"] or not notes["description"].endswith("."):
            yield f"{name}: says too little"
        if notes["runbook_url"] != f"deploy/README.md#{name.lower()}" or name.lower() not in headings:
            yield f"{name}: {notes['runbook_url']} leads nowhere"


@check
def what_is_generated_is_up_to_date():
    if (DEPLOY / RULES_OF_THE_OPERATOR).read_text() != prometheus_rule():
        yield f"{RULES_OF_THE_OPERATOR} is not rules.yml: run deploy/local/deployment --write"
    with tempfile.TemporaryDirectory() as directory:
        subprocess.run([sys.executable, DEPLOY / "grafana" / "generate.py", directory], check=True)
        for name in DASHBOARDS:
            made = (pathlib.Path(directory) / f"{name}.json").read_text()
            if made != text(f"deploy/grafana/dashboards/{name}.json"):
                yield f"grafana/dashboards/{name}.json is not what generate.py makes: run deploy/local/deployment --write"


@check
def dashboards_can_be_read():
    for name in DASHBOARDS:
        dashboard = json.loads(text(f"deploy/grafana/dashboards/{name}.json"))
        titles = [panel["title"] for panel in dashboard["panels"]]
        if len(titles) != len(set((panel["title"], panel["type"]) for panel in dashboard["panels"])):
            yield f"{name}: two panels have the same title"
        places = set()
        for panel in dashboard["panels"]:
            grid = panel["gridPos"]
            cells = {(x, y) for x in range(grid["x"], grid["x"] + grid["w"]) for y in range(grid["y"], grid["y"] + grid["h"])}
            if cells & places or grid["x"] + grid["w"] > 24:
                yield f"{name}: {panel['title']} lies over another panel, or beside the dashboard"
            places |= cells
            if panel["type"] not in ("row", "text") and not (panel["description"] and panel["targets"]):
                yield f"{name}: {panel['title']} does not say what it shows"


@check
def metrics_that_are_asked_for_are_declared():
    """Ours, each in one place for its service; that they have values, a test asks a running system."""
    sources = [*DEPLOY.parent.glob("services/*/src/metrics.rs"), *DEPLOY.parent.glob("shared/src/**/*.rs")]
    declared = {name for path in sources for name in re.findall(r'"(cuewire_[a-z_]+)"', path.read_text())}
    asked = set(re.findall(r"\b(cuewire_[a-z_]+)", text(RULES) + text("deploy/grafana/generate.py")))
    for name in sorted(asked):
        if not {name, re.sub("_(bucket|sum|count)$", "", name)} & declared:
            yield f"nobody declares {name}"


@check
def kubernetes_has_every_dashboard():
    found = {key for _, manifest, of in each_manifest("ConfigMap") if of == "production"
             and manifest["metadata"].get("labels", {}).get("grafana_dashboard") for key in manifest["data"]}  # fmt: skip
    if found != {f"{name}.json" for name in DASHBOARDS}:
        yield f"it has {sorted(found)}"


@check
def prometheus_has_the_same_jobs_in_compose_and_in_kubernetes():
    """The rules and the dashboards ask for jobs by these names."""
    compose = {
        job["job_name"]: (job.get("metrics_path", "/metrics"), job.get("params"))
        for job in document("deploy/prometheus/prometheus.yml")["scrape_configs"]
    }
    kubernetes = {}
    for name, manifest, _ in each_manifest("ServiceMonitor", "PodMonitor", "PrometheusRule"):
        if manifest["metadata"].get("labels", {}).get("release") != "kube-prometheus-stack":
            yield f"{name}: kube-prometheus-stack does not look for it"
        spec = manifest["spec"]
        for endpoint in spec.get("endpoints", []):
            jobs = [each["replacement"] for each in endpoint.get("relabelings", []) if each["targetLabel"] == "job"]
            if "jobLabel" in spec:
                (expression,) = spec["selector"]["matchExpressions"]
                jobs += expression["values"] if expression["key"] == spec["jobLabel"] else []
            kubernetes |= {job: (endpoint.get("path", "/metrics"), endpoint.get("params")) for job in jobs}
    if compose != kubernetes:
        yield f"compose has {compose}, Kubernetes {kubernetes}"
    asked = set(re.findall(r'job="([\w-]+)"', text(RULES)))
    for names in re.findall(r'job=~"([^"]+)"', text(RULES) + text("deploy/grafana/generate.py")):
        asked |= set(names.split("|"))
    if not asked <= set(compose):
        yield f"nobody has the jobs {sorted(asked - set(compose))}"
