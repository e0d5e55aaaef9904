"""Manifests of operators: by their published schemas where a registry has them, and of all of them by the fields that
we use, so that a misspelt one does not pass for one more.
"""

import json
import os
import pathlib
import subprocess

from .manifests import is_kubernetes_own
from .tree import check, each_manifest

TEXT, NUMBER, ANY = str, int, object

TAGS = {"management", "policymaker", "monitoring", "administrator"}
REFERENCE = {"name": TEXT}
SELECTOR = {"matchLabels": ANY, "matchExpressions": ANY}
ENDPOINT = {
    "port": TEXT,
    "path": TEXT,
    "interval": TEXT,
    "params": ANY,
    "relabelings": [{"targetLabel": TEXT, "replacement": TEXT}],
}

# By kind, the API's version and what its spec may have. A `!` marks what must be there.
KINDS = {
    "RabbitmqCluster": (
        "rabbitmq.com/v1beta1",
        {
            "replicas!": NUMBER,
            "image!": TEXT,
            "terminationGracePeriodSeconds": NUMBER,
            "persistence!": {"storage!": TEXT, "storageClassName": TEXT},
            "resources!": ANY,
            "rabbitmq!": {"additionalConfig!": TEXT, "advancedConfig!": TEXT, "additionalPlugins": ANY},
            "override": {"statefulSet": {"spec": {"template": {"metadata": {"labels": ANY}, "spec": {"containers": ANY}}}}},
            "affinity": ANY,
        },
    ),
    "User": (
        "rabbitmq.com/v1beta1",
        {"rabbitmqClusterReference!": {"name!": TEXT}, "tags": [TAGS], "importCredentialsSecret": REFERENCE},
    ),
    "Permission": (
        "rabbitmq.com/v1beta1",
        {
            "rabbitmqClusterReference!": {"name!": TEXT},
            "userReference!": {"name!": TEXT},
            "vhost!": TEXT,
            "permissions!": {"configure!": TEXT, "write!": TEXT, "read!": TEXT},
        },
    ),
    "Cluster": (
        "postgresql.cnpg.io/v1",
        {
            "instances!": NUMBER,
            "imageName!": TEXT,
            "bootstrap!": {
                "initdb!": {"database!": TEXT, "owner!": TEXT, "encoding": TEXT, "localeCollate": TEXT, "localeCType": TEXT}
            },
            "storage!": {"size!": TEXT, "storageClass": TEXT},
            "walStorage": {"size!": TEXT, "storageClass": TEXT},
            "resources!": ANY,
            "inheritedMetadata": {"labels": ANY},
            "affinity": {"enablePodAntiAffinity": bool, "podAntiAffinityType": TEXT, "topologyKey": TEXT},
            # Every parameter is text, whatever it looks like.
            "postgresql": {"synchronous": {"method!": TEXT, "number!": NUMBER}, "parameters": {"*": TEXT}},
        },
    ),
    "ScaledObject": (
        "keda.sh/v1alpha1",
        {
            "scaleTargetRef!": {"name!": TEXT},
            "minReplicaCount!": NUMBER,
            "maxReplicaCount!": NUMBER,
            "fallback": {"failureThreshold!": NUMBER, "replicas!": NUMBER},
            "advanced": {"horizontalPodAutoscalerConfig": {"behavior": ANY}},
            "triggers!": [{"type!": TEXT, "metadata!": {"*": TEXT}, "authenticationRef!": {"name!": TEXT}}],
        },
    ),
    "TriggerAuthentication": (
        "keda.sh/v1alpha1",
        {"secretTargetRef!": [{"parameter!": TEXT, "name!": TEXT, "key!": TEXT}]},
    ),
    "ServiceMonitor": ("monitoring.coreos.com/v1", {"jobLabel": TEXT, "selector!": SELECTOR, "endpoints!": [ENDPOINT]}),
    "PodMonitor": ("monitoring.coreos.com/v1", {"selector!": SELECTOR, "podMetricsEndpoints!": [ENDPOINT]}),
    "PrometheusRule": ("monitoring.coreos.com/v1", {"groups!": ANY}),
}

VALIDATE = """
import { readFileSync } from 'node:fs';
import * as keda from '@kubernetes-models/keda/keda.sh/v1alpha1';
import * as prometheus from '@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1';
for (const [name, manifest] of JSON.parse(readFileSync(0))) {
  const Kind = keda[manifest.kind] ?? prometheus[manifest.kind];
  try { new Kind(manifest).validate(); } catch (error) { console.log(`${name}: ${error.message}`); }
}
"""
PUBLISHED = ("ScaledObject", "TriggerAuthentication", "ServiceMonitor", "PodMonitor", "PrometheusRule")


def faults(value, shape, path):
    """Where a value is not of the shape."""
    if shape is ANY:
        return
    if isinstance(shape, list):
        if not isinstance(value, list):
            yield f"{path} is no list"
            return
        for at, each in enumerate(value):
            yield from faults(each, shape[0], f"{path}[{at}]")
    elif isinstance(shape, dict):
        if not isinstance(value, dict):
            yield f"{path} is no object"
            return
        fields = {name.removesuffix("!"): of for name, of in shape.items()}
        for name, each in value.items():
            if name in fields or "*" in fields:
                yield from faults(each, fields.get(name, fields.get("*")), f"{path}.{name}")
            else:
                yield f"{path} has no field {name}"
        for name in shape:
            if name.endswith("!") and name[:-1] not in value:
                yield f"{path} lacks {name[:-1]}"
    elif isinstance(shape, set):
        if value not in shape:
            yield f"{path} is {value!r}, and must be one of {sorted(shape)}"
    elif not isinstance(value, shape) or (shape is NUMBER and isinstance(value, bool)):
        yield f"{path} is {value!r}, and must be of type {shape.__name__}"


@check
def they_have_the_fields_that_operators_know():
    for name, manifest, _ in each_manifest():
        if is_kubernetes_own(manifest):
            continue
        version, shape = KINDS[manifest["kind"]]
        if manifest["apiVersion"] != version:
            yield f"{name}: is of {manifest['apiVersion']}"
        yield from (f"{name}: {fault}" for fault in faults(manifest["spec"], shape, "spec"))


@check
def they_fit_the_schemas_of_keda_and_of_the_prometheus_operator():
    found = [(name, manifest) for name, manifest, _ in each_manifest(*PUBLISHED)]
    if {manifest["kind"] for _, manifest in found} != set(PUBLISHED):
        yield f"only {len(found)} manifests were looked at"
    output = subprocess.run(
        ["node", "--input-type=module", "-e", VALIDATE], input=json.dumps(found), capture_output=True, text=True,
        # Node looks for packages from there on.
        cwd=pathlib.Path(os.environ["NODE_MODULES"]).parent,
    )  # fmt: skip
    yield from output.stdout.splitlines()
    if output.returncode:
        yield output.stderr
