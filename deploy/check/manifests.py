"""The manifests as Kustomize renders them: by Kubernetes' published schemas, and by what our pods must be like."""

import functools
import re

import kubernetes_validate
from kubernetes_validate import utils

from .environment import of_container
from .tree import HEALTH_PORTS, check, each_manifest, each_pod, example, our_service, seconds, text, version

# The oldest that has all that is used (preStop's sleep), and a new one.
VERSIONS = ("1.30", "1.34")
# It would read megabytes of schemas anew for each manifest.
utils.schema_contents = functools.cache(utils.schema_contents)

GROUPS_OF_KUBERNETES = re.compile(r"v1|(apps|batch|policy|autoscaling|networking\.k8s\.io)/v\d")


def is_kubernetes_own(manifest):
    return GROUPS_OF_KUBERNETES.fullmatch(manifest["apiVersion"])


@check
def they_fit_the_schemas_of_kubernetes():
    seen = 0
    for name, manifest, _ in each_manifest():
        if not is_kubernetes_own(manifest):
            continue
        seen += 1
        for release in VERSIONS:
            try:
                kubernetes_validate.validate(manifest, release, strict=True)
            except kubernetes_validate.ValidationError as error:
                yield f"{name} ({release}): {'.'.join(map(str, error.path))}: {error.message}"
    if seen < 50:
        yield f"only {seen} manifests were looked at"


def ours(*overlays):
    """Our services' pods with their container."""
    for name, overlay, labels, pod in each_pod(*overlays):
        container = pod["containers"][0]
        if our_service(container):
            yield name, overlay, labels, pod, container


@check
def services_are_asked_at_the_right_places():
    for name, _, _, _, container in ours():
        if container.get("args"):
            continue  # a job is not asked
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        if ports.get("health") != HEALTH_PORTS[our_service(container)]:
            yield f"{name}: tells its health at {ports.get('health')}"
        wanted = {"startupProbe": "/healthz", "livenessProbe": "/healthz", "readinessProbe": "/readyz"}
        for probe, path in wanted.items():
            if container.get(probe, {}).get("httpGet") != {"path": path, "port": "health"}:
                yield f"{name}: its {probe} is {container.get(probe)}"


@check
def everything_that_stays_says_whether_it_is_ready():
    for name, manifest, _ in each_manifest("Deployment", "StatefulSet"):
        for container in manifest["spec"]["template"]["spec"]["containers"]:
            if "readinessProbe" not in container:
                yield f"{name}: gets work before it can do it"


@check
def probes_give_time_to_start_and_restart_only_what_hangs():
    """What is not ready gets no work within seconds; what does not answer for a minute is started again, and not sooner."""
    for name, _, _, _, container in ours():
        if container.get("args"):
            continue

        def patience(probe):
            own = container[probe]
            return own["periodSeconds"] * own["failureThreshold"]

        if not (
            patience("readinessProbe") <= 15 and 60 <= patience("startupProbe") <= 300 and 60 <= patience("livenessProbe") <= 120
        ):
            yield f"{name}: {[patience(each) for each in ('readinessProbe', 'startupProbe', 'livenessProbe')]} s"


@check
def services_go_on_while_pods_are_replaced_or_drained():
    for name, manifest, overlay in each_manifest("Deployment"):
        template = manifest["spec"]["template"]
        if not our_service(template["spec"]["containers"][0]):
            continue
        if manifest["spec"]["strategy"]["rollingUpdate"] != {"maxUnavailable": 0, "maxSurge": 1}:
            yield f"{name}: stops an old pod before a new one is ready"
        budgets = [m["spec"] for _, m, of in each_manifest("PodDisruptionBudget") if of == overlay
                   and m["spec"]["selector"]["matchLabels"].items() <= template["metadata"]["labels"].items()]  # fmt: skip
        # None at all would keep a node from being drained.
        if [budget.get("maxUnavailable") for budget in budgets] != [1]:
            yield f"{name}: its budgets are {budgets}"


@check
def production_has_two_of_each_service_at_least():
    least = {}
    for _, manifest, of in each_manifest("Deployment", "HorizontalPodAutoscaler", "ScaledObject"):
        spec = manifest["spec"]
        if of == "production" and manifest["kind"] == "Deployment" and our_service(spec["template"]["spec"]["containers"][0]):
            least.setdefault(manifest["metadata"]["name"], spec.get("replicas", 0))
        elif of == "production" and "scaleTargetRef" in spec:
            least[spec["scaleTargetRef"]["name"]] = spec.get("minReplicas") or spec.get("minReplicaCount")
    yield from (f"{name}: there may be {pods}" for name, pods in least.items() if pods < 2)


@check
def jobs_run_commands_that_their_program_has():
    seen = 0
    for name, _, _, _, container in ours():
        if container.get("args"):
            seen += 1
            arm = ", ".join(f'"{word}"' for word in container["args"])
            if f"[{arm}] =>" not in text(f"services/{our_service(container)}/src/main.rs"):
                yield f"{name}: {our_service(container)} has no command {container['args']}"
    if not seen:
        yield "no job was looked at"


@check
def pods_have_time_to_finish():
    for name, overlay, _, pod, container in ours():
        if container.get("args"):
            continue
        grace = dict(of_container(container, overlay)).get("CUEWIRE_SHUTDOWN_GRACE", example()["CUEWIRE_SHUTDOWN_GRACE"])
        pause = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
        if pod["terminationGracePeriodSeconds"] <= seconds(grace) + pause:
            yield f"{name}: has {pod['terminationGracePeriodSeconds']} s, and needs more than {grace} and {pause} s"


@check
def pods_have_no_more_rights_than_they_need():
    """The profile `restricted`, for all pods that we write, and a file system that is read-only for ours."""
    for name, _, _, pod in each_pod():
        security = pod["securityContext"]
        if not security["runAsNonRoot"] or security["runAsUser"] == 0:
            yield f"{name}: runs as root"
        if security["seccompProfile"] != {"type": "RuntimeDefault"}:
            yield f"{name}: may make any system call"
        if pod.get("automountServiceAccountToken") is not False:
            yield f"{name}: has a token for the cluster's API"
        for container in pod["containers"]:
            own = container["securityContext"]
            if own["allowPrivilegeEscalation"] or own["capabilities"] != {"drop": ["ALL"]}:
                yield f"{name}: {own}"
            if our_service(container) and not own["readOnlyRootFilesystem"]:
                yield f"{name}: may write to its file system"


@check
def data_keep_their_modes():
    """Given to the group anew at each start, RabbitMQ's cookie would be refused, and Postgres' directory too."""
    for name, manifest, _ in each_manifest("StatefulSet"):
        if manifest["spec"]["template"]["spec"]["securityContext"].get("fsGroupChangePolicy") != "OnRootMismatch":
            yield f"{name}: opens its files to the group at each start"


@check
def pods_say_what_they_need():
    for name, _, _, pod in each_pod():
        for container in pod["containers"]:
            resources = container["resources"]
            if not {"cpu", "memory"} <= set(resources["requests"]) or "memory" not in resources["limits"]:
                yield f"{name}: {resources}"


@check
def services_survive_the_loss_of_a_node():
    for name, _, _, pod, container in ours("production"):
        if container.get("args"):
            continue
        keys = [each["topologyKey"] for each in pod["topologySpreadConstraints"]]
        if keys != ["kubernetes.io/hostname", "topology.kubernetes.io/zone"]:
            yield f"{name}: is spread over {keys}"


@check
def images_have_versions_and_ours_have_cuewires():
    versions = {}
    for name, _, _, pod in each_pod():
        for container in pod["containers"]:
            image, _, tag = container["image"].partition(":")
            versions.setdefault(image, set()).add(tag)
            if not re.search(r"\d", tag):
                yield f"{name}: {container['image']} has no version"
            if our_service(container) and tag != version():
                yield f"{name}: {container['image']} is not of version {version()}"
    for image, tags in versions.items():
        if len(tags) > 1:
            yield f"{image} is there in the versions {sorted(tags)}"


@check
def who_is_scaled_by_load_has_no_number_of_replicas():
    """Else every `kubectl apply` would take back what the autoscaler decided."""
    for name, manifest, overlay in each_manifest("HorizontalPodAutoscaler", "ScaledObject"):
        target = manifest["spec"]["scaleTargetRef"]["name"]
        for other, deployment, of in each_manifest("Deployment"):
            if of == overlay and deployment["metadata"]["name"] == target and "replicas" in deployment["spec"]:
                yield f"{name}: {other} has replicas"
