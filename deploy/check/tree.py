"""What is checked: the files of the tree, and the manifests as Kustomize renders them, each read once."""

import functools
import os
import pathlib
import re
import subprocess

import yaml

DEPLOY = pathlib.Path(__file__).parent.parent
ROOT = DEPLOY.parent
SERVICES = ("api", "router", "sender", "dlq-reaper")
HEALTH_PORTS = {"api": 9101, "router": 9102, "sender": 9103, "dlq-reaper": 9104}
OVERLAYS = ("dev", "production")


def check(function):
    """Marks a function as a check."""
    function.is_check = True
    return function


def text(path):
    return (ROOT / path).read_text()


@functools.cache
def documents(path):
    return list(yaml.safe_load_all(text(path)))


def document(path):
    (only,) = documents(path)
    return only


@functools.cache
def rendered(overlay):
    """The manifests of an overlay."""
    directory = DEPLOY / "kubernetes" / "overlays" / overlay
    kubectl = os.environ.get("KUBECTL", "kubectl")
    output = subprocess.run([kubectl, "kustomize", directory], check=True, capture_output=True, text=True).stdout
    return [manifest for manifest in yaml.safe_load_all(output) if manifest]


def each_manifest(*kinds):
    """Every manifest of these kinds (or of all), with a name for people: `production: Deployment sender`."""
    for overlay in OVERLAYS:
        for manifest in rendered(overlay):
            if not kinds or manifest["kind"] in kinds:
                yield f"{overlay}: {manifest['kind']} {manifest['metadata']['name']}", manifest, overlay


def each_pod(*overlays):
    """Every pod template: a name for people, the overlay, the pod's labels and its spec."""
    for name, manifest, overlay in each_manifest("Deployment", "StatefulSet", "Job"):
        if not overlays or overlay in overlays:
            template = manifest["spec"]["template"]
            yield name, overlay, template["metadata"]["labels"], template["spec"]


def our_service(container):
    """Which of our programs a container runs; none for those of others."""
    found = re.search(r"(?:^|/)cuewire/([a-z-]+):", container["image"])
    return found and found[1]


def seconds(duration):
    """`45s` as a number."""
    number, unit = re.fullmatch(r"(\d+)(ms|s|m|h|d)", str(duration)).groups()
    return int(number) * {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}[unit]


@functools.cache
def example():
    """The variables of .env.example with their values."""
    pairs = re.findall(r"^(?:# )?([A-Z_]+)=(.*)$", text("deploy/.env.example"), re.M)
    return dict(pairs)


@functools.cache
def version():
    """Cuewire's."""
    return re.search(r'^version = "(.+)"$', text("Cargo.toml"), re.M)[1]


@functools.cache
def broker_names():
    """Every exchange and queue that is declared, by the snapshot of the topology."""
    (snapshot,) = (ROOT / "shared/src/amqp/snapshots").glob("*topology*.snap")
    return dict(re.findall(r"^(?:exchange|queue) (\S+) (.*)$", snapshot.read_text(), re.M))
