"""compose.yaml: by the published schema, and that everything that it names is there."""

import json
import os
import pathlib
import re

import jsonschema
import yaml

from . import references
from .dockerfile import stages
from .tree import DEPLOY, SERVICES, check, document, example, seconds, text, version

PATH = "deploy/compose.yaml"


def services():
    return document(PATH)["services"]


@check
def it_fits_the_schema_of_compose_files():
    schema = pathlib.Path(os.environ["NODE_MODULES"]) / "dclint/schemas/compose.schema.json"
    # Compose reads `<<` as YAML does; the schema sees what it has read.
    validator = jsonschema.Draft7Validator(json.loads(schema.read_text()))
    for error in validator.iter_errors(yaml.safe_load(text(PATH))):
        yield f"{'/'.join(map(str, error.path))}: {error.message}"


@check
def each_service_is_built_of_its_stage_and_told_variables_that_exist():
    found, _ = stages()
    for service in SERVICES:
        entry = services()[service]
        if entry["build"]["target"] != service or service not in found:
            yield f"{service}: is built of {entry['build']}"
        if entry["image"] != f"cuewire/{service}:${{CUEWIRE_VERSION:-{version()}}}":
            yield f"{service}: its image is {entry['image']}"
        if entry["pull_policy"] != "build":
            yield f"{service}: may be somebody else's image of the same name"
        if [each["path"] for each in entry["env_file"]] != [".env.example", ".env"]:
            yield f"{service}: does not read .env.example and what deploy/.env changes of it"
        for name in entry["environment"]:
            if name not in example():
                yield f"{service}: {name} is not in .env.example"
        if seconds(entry["stop_grace_period"]) <= seconds(example()["CUEWIRE_SHUTDOWN_GRACE"]):
            yield f"{service}: is killed before its own grace is over"
        if not entry["read_only"] or entry["cap_drop"] != ["ALL"]:
            yield f"{service}: has more rights than it needs"


@check
def every_service_tells_whether_it_is_healthy():
    for name, entry in services().items():
        command = entry.get("healthcheck", {}).get("test", [])
        if command[:1] != ["CMD"]:
            yield f"{name}: has no health check"
        elif name in SERVICES and command[1:] != [f"/usr/local/bin/{name}", "ready"]:
            yield f"{name}: is asked by {command}"


@check
def what_it_names_is_there():
    file = document(PATH)
    for name, entry in file["services"].items():
        for network in entry["networks"]:
            if network not in file["networks"]:
                yield f"{name}: there is no network {network}"
        for volume in entry.get("volumes", []):
            source, _, _ = volume.partition(":")
            if source.startswith("./"):
                if not (DEPLOY / source).exists():
                    yield f"{name}: {source} is not there"
            elif source not in file["volumes"]:
                yield f"{name}: there is no volume {source}"
        # Of a URL: who is asked, and on which network both are.
        for value in list(entry.get("environment", {}).values()):
            for host, port in re.findall(r"(?:@|http://)([a-z-]+):(\d+)", str(value)):
                other = file["services"].get(host)
                if not other or not set(entry["networks"]) & set(other["networks"]):
                    yield f"{name}: cannot reach {host}"
                elif int(port) not in references.services("dev")[host][1].values():
                    yield f"{name}: {host} does not listen at {port}"
    mounted = {volume.split(":")[0] for entry in file["services"].values() for volume in entry.get("volumes", [])}
    yield from (f"nobody keeps anything in the volume {volume}" for volume in file["volumes"] if volume not in mounted)


@check
def only_senders_and_who_is_asked_from_outside_are_let_out():
    for name, entry in services().items():
        outside = name == "sender" or "ports" in entry
        if entry["networks"] != (["inside", "outside"] if outside else ["inside"]):
            yield f"{name}: is on {entry['networks']}"
    if document(PATH)["networks"] != {"inside": {"internal": True}, "outside": None}:
        yield f"{document(PATH)['networks']}"


@check
def only_loopback_is_opened():
    """The passwords that it starts with are known to everybody."""
    for name, entry in services().items():
        for port in entry.get("ports", []):
            if not re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port):
                yield f"{name}: opens {port}"
            elif int(port.split(":")[-1]) not in references.ports_of_dev()[name]:
                yield f"{name}: does not listen at {port.split(':')[-1]}"


@check
def variables_of_its_own_are_described():
    for name in sorted(set(re.findall(r"\$\{([A-Z_]+)", text(PATH)))):
        if f"`{name}`" not in text("deploy/README.md"):
            yield f"deploy/README.md does not say what {name} is"


@check
def images_have_versions():
    for name, entry in services().items():
        if not re.search(r":[^/]*\d", entry["image"]):
            yield f"{name}: {entry['image']} has no version"


def faults_of_settings(grafana, prometheus):
    """Of what Grafana and Prometheus are told, in compose as in dev."""
    (provider,) = document("deploy/grafana/provisioning/dashboards/cuewire.yaml")["providers"]
    home = pathlib.PurePath(grafana["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    if str(home.parent) != provider["options"]["path"] or not (DEPLOY / "grafana" / "dashboards" / home.name).exists():
        yield f"Grafana begins with {home}"
    if grafana["GF_AUTH_ANONYMOUS_ENABLED"] != "true":
        yield "who does not log in to Grafana sees nothing"
    if "--config.file=/etc/prometheus/prometheus.yml" not in prometheus or "--storage.tsdb.path=/prometheus" not in prometheus:
        yield f"Prometheus is told {prometheus}"


@check
def grafana_and_prometheus_find_whom_they_ask():
    (source,) = document("deploy/grafana/provisioning/datasources/prometheus.yaml")["datasources"]
    if source["url"] != "http://prometheus:9090" or "prometheus" not in services():
        yield f"Grafana asks {source['url']}"
    for path in sorted((DEPLOY / "grafana" / "dashboards").iterdir()):
        (variable,) = json.loads(path.read_text())["templating"]["list"]
        if variable["current"]["value"] != source["uid"]:
            yield f"{path.name}: asks {variable['current']['value']}, and Grafana has {source['uid']}"
    (provider,) = document("deploy/grafana/provisioning/dashboards/cuewire.yaml")["providers"]
    mounted = [volume.split(":")[1] for volume in services()["grafana"]["volumes"]]
    if provider["options"]["path"] not in mounted:
        yield f"Grafana looks for dashboards in {provider['options']['path']}"
    yield from faults_of_settings(services()["grafana"]["environment"], services()["prometheus"]["command"])
    read = {"/etc/prometheus/prometheus.yml"} | {
        f"/etc/prometheus/{name}" for name in document("deploy/prometheus/prometheus.yml")["rule_files"]
    }
    given = {volume.split(":")[1] for volume in services()["prometheus"]["volumes"]}
    if not read <= given:
        yield f"Prometheus reads {sorted(read - given)}, and has {sorted(given)}"
    for job in document("deploy/prometheus/prometheus.yml")["scrape_configs"]:
        found = [name for each in job.get("dns_sd_configs", []) for name in each["names"]]
        found += [target.split(":")[0] for each in job.get("static_configs", []) for target in each["targets"]]
        for name in found:
            if name not in services() or "inside" not in services()[name]["networks"]:
                yield f"Prometheus asks {name}, whom it cannot reach"
