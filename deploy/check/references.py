"""That whatever a manifest names is there: settings, keys of secrets, ports, pods behind selectors, hosts in URLs."""

import base64
import re

from . import compose
from .tree import DEPLOY, OVERLAYS, check, document, each_manifest, each_pod, rendered, text

# What the operators make of a manifest: by its kind, secrets (with their keys) and services (with their ports).
SECRETS_OF = {
    "RabbitmqCluster": {"{}-default-user": {"username", "password", "host", "port", "connection_string"}},
    "Cluster": {"{}-app": {"username", "password", "dbname", "host", "port", "uri"}, "{}-ca": {"ca.crt"}},
    "User": {"{}-user-credentials": {"username", "password"}},
}
SERVICES_OF = {
    "RabbitmqCluster": {"{}": {"amqp": 5672, "management": 15672, "prometheus": 15692}},
    "Cluster": {"{}-rw": {"postgres": 5432}},
}
# Pods of operators: by the kind, the labels that they give them by themselves, and their ports by name.
PODS_OF = {
    "RabbitmqCluster": ({"app.kubernetes.io/name": "{}"}, {"amqp": 5672, "management": 15672, "prometheus": 15692, "epmd": 4369, "distribution": 25672}),
    "Cluster": ({"cnpg.io/cluster": "{}"}, {"postgresql": 5432, "metrics": 9187, "status": 8000}),
}  # fmt: skip


def made(overlay, table):
    """What operators make in an overlay, by name."""
    found = {}
    for manifest in rendered(overlay):
        for pattern, value in table.get(manifest["kind"], {}).items():
            found[pattern.format(manifest["metadata"]["name"])] = value
    return found


def configured(overlay, kind):
    """The ConfigMaps or Secrets of an overlay with their keys; those that an operator or a person makes too."""
    found = {}
    for manifest in rendered(overlay):
        if manifest["kind"] == kind:
            found[manifest["metadata"]["name"]] = {*manifest.get("data", {}), *manifest.get("stringData", {})}
    if kind == "Secret":
        found |= made(overlay, SECRETS_OF)
        if overlay == "production":
            found |= made_by_hand()
    return found


def made_by_hand():
    """The secrets that deploy/README.md tells a person to make, by its commands."""
    commands = re.findall(r"create secret generic (\S+)((?:[^`]|\n)*?)\n(?:```|$)", text("deploy/README.md"))
    return {name: set(re.findall(r"--from-literal=([\w-]+)=", rest)) for name, rest in commands}


def pods(overlay):
    """The pods of an overlay: labels, and ports by name."""
    for _, of, labels, pod in each_pod():
        if of == overlay:
            ports = {port["name"]: port["containerPort"] for c in pod["containers"] for port in c.get("ports", [])}
            yield labels, ports
    yield from of_operators(overlay).values()


def ports_of_dev():
    """At which ports each server's container listens, the same in compose."""
    return {
        name.split()[-1]: {port["containerPort"] for c in pod["containers"] for port in c.get("ports", [])}
        for name, _, _, pod in each_pod("dev")
    }


def of_operators(overlay):
    """The pods that operators make of an overlay's manifests, by name: labels, with those that they are told, and ports."""
    found = {}
    for manifest in rendered(overlay):
        if manifest["kind"] in PODS_OF:
            name, spec = manifest["metadata"]["name"], manifest["spec"]
            labels, ports = PODS_OF[manifest["kind"]]
            override = spec.get("override", {}).get("statefulSet", {}).get("spec", {}).get("template", {}).get("metadata", {})
            told = override.get("labels", {}) | spec.get("inheritedMetadata", {}).get("labels", {})
            found[name] = ({key: value.format(name) for key, value in labels.items()} | told, ports)
    return found


def selects(selector, labels):
    wanted = selector.get("matchLabels", {})
    if any(labels.get(key) != value for key, value in wanted.items()):
        return False
    return all(labels.get(each["key"]) in each["values"] for each in selector.get("matchExpressions", []))


def selected(overlay, selector):
    return [(labels, ports) for labels, ports in pods(overlay) if selects(selector, labels)]


def keys_named(pod):
    """The kind, the name and the key (or none, for all) of every setting that a pod takes from elsewhere."""
    for container in pod["containers"]:
        for source in container.get("envFrom", []):
            yield "ConfigMap", source["configMapRef"]["name"], None
        for entry in container.get("env", []):
            for field, kind in (("secretKeyRef", "Secret"), ("configMapKeyRef", "ConfigMap")):
                reference = entry.get("valueFrom", {}).get(field)
                if reference:
                    yield kind, reference["name"], reference["key"]
    for volume in pod.get("volumes", []):
        for source in (volume, *volume.get("projected", {}).get("sources", [])):
            for field, kind, of in (("configMap", "ConfigMap", "name"), ("secret", "Secret", "secretName")):
                if field in source:
                    for item in source[field].get("items", [{"key": None}]):
                        yield kind, source[field][of], item["key"]


@check
def settings_and_secrets_are_there():
    for name, overlay, _, pod in each_pod():
        for kind, of, key in keys_named(pod):
            keys = configured(overlay, kind).get(of)
            if keys is None:
                yield f"{name}: there is no {kind} {of}"
            elif key is not None and key not in keys:
                yield f"{name}: the {kind} {of} has no {key}"


@check
def mounts_and_accounts_are_there():
    for name, overlay, _, pod in each_pod():
        volumes = {volume["name"] for volume in pod.get("volumes", [])}
        for other, manifest, of in each_manifest("StatefulSet"):
            if other == name:
                volumes |= {claim["metadata"]["name"] for claim in manifest["spec"]["volumeClaimTemplates"]}
        for container in pod["containers"]:
            for mount in container.get("volumeMounts", []):
                if mount["name"] not in volumes:
                    yield f"{name}: there is no volume {mount['name']}"
                if "subPath" in mount and mount["subPath"] not in keys_of_volume(overlay, pod, mount["name"]):
                    yield f"{name}: the volume {mount['name']} has no {mount['subPath']}"
        account = pod.get("serviceAccountName")
        accounts = [m["metadata"]["name"] for m in rendered(overlay) if m["kind"] == "ServiceAccount"]
        if account and account not in accounts:
            yield f"{name}: there is no service account {account}"


@check
def files_in_urls_are_mounted():
    for name, overlay, _, pod in each_pod():
        items = {
            volume["name"]: [item["path"] for item in volume.get("secret", {}).get("items", [])]
            for volume in pod.get("volumes", [])
        }
        for container in pod["containers"]:
            mounted = {
                f"{mount['mountPath']}/{path}"
                for mount in container.get("volumeMounts", [])
                for path in items.get(mount["name"], [])
            }
            for entry in container.get("env", []):
                for path in re.findall(r"sslrootcert=([^&]+)", entry.get("value", "")):
                    if path not in mounted:
                        yield f"{name}: {entry['name']} names {path}, and there is {sorted(mounted)}"


@check
def each_service_of_production_is_its_own_broker_user():
    for name, _, _, pod in each_pod("production"):
        kind, service = name.split()[-2:]
        of = {e["name"]: e["valueFrom"]["secretKeyRef"] for e in pod["containers"][0].get("env", []) if "valueFrom" in e}
        if "BROKER_USER" in of:
            wanted = "rabbitmq-default-user" if kind == "Job" else f"{service}-user-credentials"
            if of["BROKER_USER"] != {"name": wanted, "key": "username"} or of["BROKER_PASSWORD"] != {
                "name": wanted,
                "key": "password",
            }:
                yield f"{name}: is {of['BROKER_USER']}"


def keys_of_volume(overlay, pod, name):
    (volume,) = (volume for volume in pod["volumes"] if volume["name"] == name)
    return configured(overlay, "ConfigMap")[volume["configMap"]["name"]]


@check
def services_lead_to_ports_of_pods():
    for name, manifest, overlay in each_manifest("Service"):
        found = selected(overlay, {"matchLabels": manifest["spec"]["selector"]})
        if not found:
            yield f"{name}: selects no pod"
        for _, ports in found:
            for port in manifest["spec"]["ports"]:
                if port["targetPort"] not in ports:
                    yield f"{name}: its pods have no port {port['targetPort']}"


@check
def deployments_select_their_own_pods():
    for name, manifest, overlay in each_manifest("Deployment", "StatefulSet"):
        found = selected(overlay, manifest["spec"]["selector"])
        if [labels for labels, _ in found] != [manifest["spec"]["template"]["metadata"]["labels"]]:
            yield f"{name}: selects {[labels for labels, _ in found]}"


@check
def budgets_and_policies_are_about_pods_that_are_there():
    for name, manifest, overlay in each_manifest("PodDisruptionBudget", "NetworkPolicy"):
        selector = manifest["spec"].get("selector") or manifest["spec"]["podSelector"]
        if not selected(overlay, selector):
            yield f"{name}: is about no pod"


def peers(policy):
    """Each rule: pods of ours that are named as the other side, and ports."""
    for direction, field in (("ingress", "from"), ("egress", "to")):
        for rule in policy["spec"].get(direction, []):
            selectors = [p["podSelector"] for p in rule.get(field, []) if "podSelector" in p and "namespaceSelector" not in p]
            yield direction, selectors, [port["port"] for port in rule.get("ports", [])]


@check
def policies_name_pods_and_ports_that_are_there():
    for name, manifest, overlay in each_manifest("NetworkPolicy"):
        own = selected(overlay, manifest["spec"]["podSelector"])
        for direction, selectors, ports in peers(manifest):
            for selector in selectors:
                if not selected(overlay, selector):
                    yield f"{name}: {selector} is nobody"
            others = [pod for selector in selectors for pod in selected(overlay, selector)]
            asked = own if direction == "ingress" else others
            known = {port for _, of in asked for pair in of.items() for port in pair}
            for port in ports:
                # The command line of a broker's nodes has no name and no container's port.
                if asked and port not in known and port not in range(35672, 35683):
                    yield f"{name}: nobody there has the port {port}"


def autoscaled(overlay):
    return [manifest for _, manifest, of in each_manifest("HorizontalPodAutoscaler", "ScaledObject") if of == overlay]


@check
def operators_find_what_their_manifests_name():
    for overlay in OVERLAYS:
        names = {(manifest["kind"], manifest["metadata"]["name"]) for manifest in rendered(overlay)}
        for name, manifest, of in each_manifest():
            if of != overlay:
                continue
            spec = manifest.get("spec", {})
            named = []
            if manifest in autoscaled(overlay):
                named.append(("Deployment", spec["scaleTargetRef"]["name"]))
                named += [("TriggerAuthentication", each["authenticationRef"]["name"]) for each in spec.get("triggers", [])]
            if "rabbitmqClusterReference" in spec:
                named.append(("RabbitmqCluster", spec["rabbitmqClusterReference"]["name"]))
            if "userReference" in spec:
                named.append(("User", spec["userReference"]["name"]))
            yield from (f"{name}: there is no {kind} {of}" for kind, of in named if (kind, of) not in names)
            for each in spec.get("secretTargetRef", []):
                if each["key"] not in configured(overlay, "Secret").get(each["name"], ()):
                    yield f"{name}: there is no secret {each['name']} with {each['key']}"


def services(overlay):
    """Every Service by name, with its labels and its ports by name."""
    found = {}
    for _, manifest, of in each_manifest("Service"):
        if of == overlay:
            ports = {port["name"]: port["port"] for port in manifest["spec"]["ports"]}
            found[manifest["metadata"]["name"]] = (manifest["metadata"]["labels"], ports)
    for name, ports in made(overlay, SERVICES_OF).items():
        found[name] = ({"app.kubernetes.io/name": name}, ports)
    return found


@check
def monitors_find_services_with_these_ports():
    for name, manifest, overlay in each_manifest("ServiceMonitor"):
        found = [ports for labels, ports in services(overlay).values() if selects(manifest["spec"]["selector"], labels)]
        if not found:
            yield f"{name}: selects no service"
        for endpoint in manifest["spec"]["endpoints"]:
            yield from (f"{name}: a service has no port {endpoint['port']}" for ports in found if endpoint["port"] not in ports)
    for name, manifest, overlay in each_manifest("PodMonitor"):
        found = selected(overlay, manifest["spec"]["selector"])
        if not found or any(each["port"] not in ports for _, ports in found for each in manifest["spec"]["podMetricsEndpoints"]):
            yield f"{name}: finds no pod with its port"


@check
def hosts_in_urls_are_services_with_that_port():
    seen = 0
    for overlay in OVERLAYS:
        for manifest in rendered(overlay):
            for url in re.findall(r"(?:amqps?|postgres(?:ql)?|https?)://[^\s'\",]+", as_text(manifest)):
                host, port = re.match(r"\w+://(?:[^@/]*@)?([\w.-]+):(\d+)", url).groups()
                name = host.removesuffix(".cuewire.svc")
                # Operators ask from a namespace of their own, where a short name is somebody else's.
                asks_from_outside = manifest["kind"] == "ScaledObject"
                _, ports = services(overlay).get(name, (None, {})) if (name != host) == asks_from_outside else (None, {})
                seen += 1
                if int(port) not in ports.values():
                    yield f"{overlay}: {manifest['kind']} {manifest['metadata']['name']}: nobody is at {host}:{port}"
    if seen < 8:
        yield f"only {seen} URLs were looked at"


@check
def prometheus_and_grafana_of_dev_find_whom_they_ask():
    """They are told the same as in compose, where names are those of services too."""
    (source,) = document("deploy/grafana/provisioning/datasources/prometheus.yaml")["datasources"]
    asked = [source["url"].removeprefix("http://").split(":")]
    for job in document("deploy/prometheus/prometheus.yml")["scrape_configs"]:
        asked += [(name, each["port"]) for each in job.get("dns_sd_configs", []) for name in each["names"]]
        asked += [target.split(":") for each in job.get("static_configs", []) for target in each["targets"]]
    for name, port in asked:
        if int(port) not in services("dev").get(name, (None, {}))[1].values():
            yield f"nobody is at {name}:{port}"
    (pod,) = (pod for name, _, _, pod in each_pod("dev") if name.endswith("Deployment grafana"))
    mounted = {mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}
    (provider,) = document("deploy/grafana/provisioning/dashboards/cuewire.yaml")["providers"]
    wanted = {provider["options"]["path"], "/etc/grafana/provisioning/datasources", "/etc/grafana/provisioning/dashboards"}
    if not wanted <= mounted:
        yield f"Grafana lacks {sorted(wanted - mounted)}"
    variables = {entry["name"]: entry.get("value") for entry in pod["containers"][0]["env"]}
    (prometheus,) = (other for name, _, _, other in each_pod("dev") if name.endswith("Deployment prometheus"))
    yield from compose.faults_of_settings(variables, prometheus["containers"][0]["args"])
    if not {"/etc/prometheus", "/prometheus"} <= {mount["mountPath"] for mount in prometheus["containers"][0]["volumeMounts"]}:
        yield "Prometheus lacks its configuration, or a place for its data"
    files = {file for kind, of, _ in keys_named(pod) for file in configured("dev", kind)[of] if file.endswith(".json")}
    if files != {path.name for path in (DEPLOY / "grafana" / "dashboards").iterdir()}:
        yield f"Grafana has the dashboards {sorted(files)}"


def as_text(manifest):
    """What it says, secrets in plain; dashboards and rules speak of addresses outside of the cluster."""
    if manifest["kind"] == "Secret":
        return " ".join(base64.b64decode(value).decode() for value in manifest["data"].values())
    if manifest["kind"] in ("Deployment", "StatefulSet", "Job", "ScaledObject"):
        return str(manifest["spec"])
    return ""
