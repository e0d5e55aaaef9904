"""The settings of RabbitMQ and Postgres: one set of them, wherever they are written, and known to the servers."""

import base64
import re
import subprocess
import tempfile
import pathlib

from .tree import DEPLOY, broker_names, check, document, each_manifest, each_pod, our_service, text

# Of the disk's limit the volume decides; it has a reason of its own in each place.
OF_THE_PLACE = {"disk_free_limit.absolute"}
# Set by CloudNativePG itself, or what Postgres does anyway.
NOT_FOR_THE_OPERATOR = {"listen_addresses", "fsync", "full_page_writes", "log_line_prefix"}
# For several servers on one machine, without anybody who replicates; what stands there is the same as here otherwise.
OF_THE_PRIVATE_SERVER = {
    "shared_buffers",
    "max_wal_size",
    "wal_level",
    "max_wal_senders",
    "unix_socket_directories",
    "log_line_prefix",
}
# What a machine of the tests is too small for, or has no use of.
NOT_FOR_THE_PRIVATE_SERVER = {
    "listen_addresses", "effective_cache_size", "work_mem", "maintenance_work_mem", "checkpoint_completion_target",
    "random_page_cost", "autovacuum_vacuum_insert_scale_factor", "tcp_keepalives_idle", "tcp_keepalives_interval",
    "tcp_keepalives_count", "idle_in_transaction_session_timeout",
}  # fmt: skip
# The operator's, the exporter's, the job's, and somebody's who looks.
FOR_OPERATORS = 20


# By broker user: what its work is published to.
MAY_WRITE = {
    "api": "events|deliveries",
    "router": "deliveries|dead",
    "sender": r"deliveries|dead|retry\..+|amq\.default",
    "dlq-reaper": "events|deliveries|parking",
}
# Where the images look, by server and path: which file it is.
IN_CONTAINERS = {
    ("rabbitmq", "/etc/rabbitmq/conf.d/20-cuewire.conf"): "rabbitmq.conf",
    ("rabbitmq", "/etc/rabbitmq/advanced.config"): "advanced.config",
    ("rabbitmq", "/etc/rabbitmq/enabled_plugins"): "enabled_plugins",
    ("postgres", "/etc/postgresql/postgresql.conf"): "postgresql.conf",
}


def settings(configuration):
    """Lines `key = value` without comments; Postgres' quotes do not matter."""
    pairs = re.findall(r"^([\w.]+) *= *(.+?) *$", configuration, re.M)
    return {key: value.strip("'") for key, value in pairs}


def differences(one, other):
    for key in sorted({*one, *other}):
        if one.get(key) != other.get(key):
            yield f"{key} is {one.get(key)} in deploy/, and {other.get(key)} in kubernetes/overlays/production"


@check
def the_clusters_of_rabbitmq_have_the_settings_that_are_shipped():
    shipped = settings(text("deploy/rabbitmq/rabbitmq.conf"))
    for _, manifest, _ in each_manifest("RabbitmqCluster"):
        own = settings(manifest["spec"]["rabbitmq"]["additionalConfig"])
        yield from differences(*({k: v for k, v in of.items() if k not in OF_THE_PLACE} for of in (shipped, own)))
        if not OF_THE_PLACE <= set(own):
            yield f"it lacks {OF_THE_PLACE}"

        def bare(configuration):
            return re.sub(r"%.*|\s", "", configuration)

        if bare(manifest["spec"]["rabbitmq"]["advancedConfig"]) != bare(text("deploy/rabbitmq/advanced.config")):
            yield "its advancedConfig is not deploy/rabbitmq/advanced.config"


@check
def clusters_survive_the_loss_of_a_node():
    """Of three, two have what is confirmed, and no two are on one node."""
    for _, manifest, _ in each_manifest("RabbitmqCluster"):
        spec = manifest["spec"]
        (term,) = spec["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
        if (
            spec["replicas"] != 3
            or term["topologyKey"] != "kubernetes.io/hostname"
            or term["labelSelector"]["matchLabels"] != {"app.kubernetes.io/name": "rabbitmq"}
        ):
            yield f"RabbitMQ: {spec['replicas']} nodes, apart by {term}"
    for _, manifest, _ in each_manifest("Cluster"):
        spec = manifest["spec"]
        apart = (
            spec["affinity"].get("enablePodAntiAffinity"),
            spec["affinity"].get("podAntiAffinityType"),
            spec["affinity"].get("topologyKey"),
        )
        if (
            spec["instances"] != 3
            or spec["postgresql"].get("synchronous") != {"method": "any", "number": 1}
            or apart != (True, "required", "kubernetes.io/hostname")
        ):
            yield f"Postgres: {spec['instances']} servers, {spec['postgresql'].get('synchronous')}, apart {apart}"


@check
def the_clusters_of_postgres_have_the_settings_that_are_shipped():
    shipped = settings(text("deploy/postgres/postgresql.conf"))
    for _, manifest, _ in each_manifest("Cluster"):
        own = manifest["spec"]["postgresql"]["parameters"]
        yield from differences({k: v for k, v in shipped.items() if k not in NOT_FOR_THE_OPERATOR}, own)


@check
def the_private_servers_of_the_tests_have_them_too():
    """Postgres' file is their own; RabbitMQ's are read as they are shipped."""
    shipped = {k: v for k, v in settings(text("deploy/postgres/postgresql.conf")).items() if k not in NOT_FOR_THE_PRIVATE_SERVER}
    own = settings(text("deploy/local/postgresql.conf"))
    for key in sorted({*shipped, *own} - OF_THE_PRIVATE_SERVER):
        if shipped.get(key) != own.get(key):
            yield f"{key} is {shipped.get(key)} in deploy/postgres, and {own.get(key)} in deploy/local"
    for file in ("rabbitmq.conf", "advanced.config"):
        if f'"$ROOT/deploy/rabbitmq/{file}"' not in text("deploy/local/servers"):
            yield f"deploy/local/servers does not read deploy/rabbitmq/{file}"


@check
def the_overlay_dev_mounts_them_where_the_images_look():
    mounted = {}
    for name, _, _, pod in each_pod("dev"):
        for mount in pod["containers"][0].get("volumeMounts", []):
            mounted[name.split()[-1], mount["mountPath"]] = mount.get("subPath")
    for place, file in IN_CONTAINERS.items():
        server, path = place
        found = mounted.get(place) or (mounted.get((server, str(pathlib.PurePath(path).parent)), ()) is None and file)
        if found != file:
            yield f"{server}: {path} is {found}"


@check
def compose_mounts_them_where_the_images_look():
    for (server, path), file in IN_CONTAINERS.items():
        if f"./{server}/{file}:{path}:ro" not in document("deploy/compose.yaml")["services"][server]["volumes"]:
            yield f"{server}: {file} is not at {path}"
        if not (DEPLOY / server / file).is_file():
            yield f"there is no {server}/{file}"


@check
def rabbitmq_has_the_plugins_that_are_asked():
    """The management's API counts for KEDA and shows, the other tells Prometheus; the operator enables both by itself."""
    if text("deploy/rabbitmq/enabled_plugins").strip() != "[rabbitmq_management,rabbitmq_prometheus].":
        yield text("deploy/rabbitmq/enabled_plugins")


@check
def postgres_is_told_where_they_are():
    """Else it would read what initdb has made."""
    told = "config_file=/etc/postgresql/postgresql.conf"
    (pod,) = (pod for name, _, _, pod in each_pod("dev") if name.endswith("StatefulSet postgres"))
    for place, arguments in (
        ("compose", document("deploy/compose.yaml")["services"]["postgres"]["command"]),
        ("dev", pod["containers"][0]["args"]),
    ):
        if arguments[-2:] != ["-c", told]:
            yield f"{place}: {arguments}"


@check
def servers_are_of_one_version_everywhere():
    """Of compose, of dev, and of production's clusters, whose images of Postgres are their operator's."""
    found = {}
    images = [entry["image"] for entry in document("deploy/compose.yaml")["services"].values()]
    images += [container["image"] for _, _, _, pod in each_pod() for container in pod["containers"]]
    images += [m["spec"]["image"] for _, m, _ in each_manifest("RabbitmqCluster")]
    images += [m["spec"]["imageName"] for _, m, _ in each_manifest("Cluster")]
    for image in images:
        name, _, tag = image.rpartition(":")
        if "cuewire/" not in image:
            found.setdefault({"postgresql": "postgres"}.get(name.split("/")[-1], name.split("/")[-1]), set()).add(
                tag.removesuffix("-bookworm")
            )
    for name, tags in found.items():
        if len(tags) != 1:
            yield f"{name} is there in the versions {sorted(tags)}"
    if not {"rabbitmq", "postgres", "prometheus", "grafana", "postgres-exporter"} <= set(found):
        yield f"only {sorted(found)} were looked at"


@check
def services_log_in_as_whom_the_servers_know():
    """Of compose, where variables stand for passwords, and of dev, where the secret has them."""
    compose = document("deploy/compose.yaml")["services"]
    (secret,) = (
        m["data"] for _, m, of in each_manifest("Secret") if of == "dev" and m["metadata"]["name"].startswith("cuewire-servers")
    )
    plain = {key: base64.b64decode(value).decode() for key, value in secret.items()}
    of_pods = {
        name.split()[-1]: {each["name"]: each.get("value") for each in pod["containers"][0].get("env", [])}
        for name, _, _, pod in each_pod("dev")
    }
    told = compose["api"]["environment"]
    urls = {
        "compose": (told["AMQP_URL"], told["DATABASE_URL"], compose["postgres-exporter"]["environment"]["DATA_SOURCE_NAME"]),
        "dev": (plain["broker-url"], plain["database-url"], plain["database-url"]),
    }
    rabbitmq, postgres = compose["rabbitmq"]["environment"], compose["postgres"]["environment"]
    servers = {
        "compose": (rabbitmq, postgres),
        "dev": (of_pods["rabbitmq"] | {"RABBITMQ_DEFAULT_PASS": plain["broker-password"]},
                of_pods["postgres"] | {"POSTGRES_PASSWORD": plain["database-password"]}),
    }  # fmt: skip
    for place, (broker_url, *database_urls) in urls.items():
        broker, database = servers[place]
        if not broker_url.startswith(f"amqp://{broker['RABBITMQ_DEFAULT_USER']}:{broker['RABBITMQ_DEFAULT_PASS']}@"):
            yield f"{place}: {broker_url}"
        for url in database_urls:
            user, name = database["POSTGRES_USER"], database["POSTGRES_DB"]
            if not re.fullmatch(rf"postgres://{user}:{re.escape(database['POSTGRES_PASSWORD'])}@[^/]+/{name}(\?.*)?", url):
                yield f"{place}: {url}"


@check
def postgres_reads_the_settings_that_are_shipped():
    """It answers for one of them, and stops at a line that it does not know."""
    postgres = sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin/postgres"))[-1]
    with tempfile.TemporaryDirectory() as directory:
        (pathlib.Path(directory) / "postgresql.conf").write_text(text("deploy/postgres/postgresql.conf"))
        asked = subprocess.run([postgres, "-C", "checkpoint_timeout", "-D", directory], capture_output=True, text=True)
        if asked.returncode or asked.stdout.strip() not in ("900", "15min"):
            yield f"{asked.stdout}{asked.stderr}"


@check
def settings_have_their_reasons():
    """A comment stands above each, and the README has a row for it."""
    for path in ("deploy/rabbitmq/rabbitmq.conf", "deploy/postgres/postgresql.conf"):
        for key in settings(text(path)):
            if f"`{key}" not in text("deploy/README.md"):
                yield f"deploy/README.md does not say why {key} is as it is in {path}"
    for key in re.findall(r"\{(\w+), \d+\}", text("deploy/rabbitmq/advanced.config")):
        if f"`{key}" not in text("deploy/README.md"):
            yield f"deploy/README.md does not say why {key} is as it is"


@check
def rights_of_broker_users_name_what_is_declared():
    """A pattern without a meaning would be a misspelt one."""
    names = {*broker_names(), "amq.default"}
    for name, manifest, _ in each_manifest("Permission"):
        for right, pattern in manifest["spec"]["permissions"].items():
            if pattern == "^$":
                continue
            end = "$" if pattern.endswith("$") else ""
            for word in re.sub(r"[()^$]", "", pattern).split("|"):
                if not any(re.match(word + end, each) for each in names):
                    yield f"{name}: {right} names {word}, which is not declared"


@check
def broker_users_have_no_more_rights_than_they_need():
    """That they have enough, a test shows on running services (tests/tests/deploy)."""
    names = {*broker_names(), "amq.default"}
    for name, manifest, _ in each_manifest("Permission"):
        service = manifest["metadata"]["name"]
        rights = {
            "configure": set(),
            "write": {each for each in names if re.fullmatch(MAY_WRITE.get(service, ""), each)},
            "read": {each for each in names if each.startswith(f"{service}.")},
        }
        for right, most in rights.items():
            found = {each for each in names if re.search(manifest["spec"]["permissions"][right], each)}
            if not found <= most:
                yield f"{name}: may {right} {sorted(found - most)}"


@check
def autoscalers_count_the_queues_that_more_pods_would_empty():
    """The fresh and due lanes of all senders' queues and the router's, and none in which messages wait for their time."""
    wanted = {
        "router": {name for name in broker_names() if name.startswith("router.")},
        "sender": {name for name in broker_names() if re.match(r"sender\.(fresh|due)\.", name)},
    }
    found = {}
    for _, manifest, _ in each_manifest("ScaledObject"):
        (trigger,) = manifest["spec"]["triggers"]
        pattern = trigger["metadata"]["queueName"]
        found[manifest["metadata"]["name"]] = {name for name in broker_names() if re.search(pattern, name)}
        # What a pod has in hand already is no reason for another; only over HTTP can the two be told apart.
        wanted_of_each = {
            "useRegex": "true",
            "operation": "sum",
            "protocol": "http",
            "mode": "QueueLength",
            "excludeUnacknowledged": "true",
        }
        if not wanted_of_each.items() <= trigger["metadata"].items():
            yield f"{manifest['metadata']['name']}: does not add up what is ready in the queues"
    if found != wanted:
        yield f"they count {found}"


@check
def postgres_has_connections_for_all_pods_that_there_may_be():
    """Each pod has a pool and one that listens; of each Deployment one more pod starts while it is replaced."""
    most = {}
    for _, manifest, overlay in each_manifest("Deployment"):
        if overlay == "production" and our_service(manifest["spec"]["template"]["spec"]["containers"][0]):
            most[manifest["metadata"]["name"]] = manifest["spec"].get("replicas", 1)
    for _, manifest, _ in each_manifest("HorizontalPodAutoscaler", "ScaledObject"):
        spec = manifest["spec"]
        most[spec["scaleTargetRef"]["name"]] = spec.get("maxReplicas") or spec["maxReplicaCount"]
    pool = int(dict(settings(text("deploy/kubernetes/base/config.env")))["CUEWIRE_DATABASE_CONNECTIONS"])
    needed = sum(pods + 1 for pods in most.values()) * (pool + 1) + FOR_OPERATORS
    (allowed,) = (int(m["spec"]["postgresql"]["parameters"]["max_connections"]) for _, m, _ in each_manifest("Cluster"))
    if needed > allowed:
        yield f"{most} may need {needed} connections, and Postgres allows {allowed}"
