"""The variables that manifests set: they exist, and those that are required are there."""

import re

from .tree import SERVICES, check, each_pod, example, our_service, rendered

REQUIRED = {"DATABASE_URL", "AMQP_URL", "CUEWIRE_SECRETS_KEY"}


def config_map(overlay, name):
    for manifest in rendered(overlay):
        if manifest["kind"] == "ConfigMap" and manifest["metadata"]["name"] == name:
            return manifest["data"]
    return {}


def of_container(container, overlay):
    """The variables of a container, in the order in which they are read: name and what it is set to."""
    pairs = []
    for source in container.get("envFrom", []):
        pairs += config_map(overlay, source.get("configMapRef", {}).get("name")).items()
    pairs += [(entry["name"], entry.get("value", entry.get("valueFrom"))) for entry in container.get("env", [])]
    return pairs


@check
def every_variable_of_a_manifest_exists():
    for name, overlay, _, pod in each_pod():
        for container in pod["containers"]:
            if not our_service(container):
                continue
            pairs = of_container(container, overlay)
            used = set(re.findall(r"\$\((\w+)\)", " ".join(str(value) for _, value in pairs)))
            for variable, _ in pairs:
                if variable not in example() and variable not in used:
                    yield f"{name}: {variable} is not in .env.example, and no other variable is made of it"


@check
def what_a_service_cannot_do_without_is_set():
    for name, overlay, _, pod in each_pod():
        for container in pod["containers"]:
            service = our_service(container)
            if not service:
                continue
            required = set(REQUIRED)
            if service == "api" and not container.get("args"):
                required.add("CUEWIRE_OPERATOR_KEY")
            variables = [variable for variable, _ in of_container(container, overlay)]
            if required - set(variables):
                yield f"{name}: lacks {sorted(required - set(variables))}"
            if len(variables) != len(set(variables)):
                yield f"{name}: sets a variable twice: {sorted(variables)}"


@check
def variables_are_made_of_those_before_them():
    """Kubernetes leaves `$(NAME)` as it stands where NAME is not set yet."""
    for name, overlay, _, pod in each_pod():
        for container in pod["containers"]:
            known = set()
            for variable, value in of_container(container, overlay):
                for used in re.findall(r"\$\((\w+)\)", str(value)):
                    if used not in known:
                        yield f"{name}: {variable} is made of {used}, which is not set before it"
                known.add(variable)


@check
def every_overlay_has_every_service():
    for overlay in ("dev", "production"):
        found = {our_service(pod["containers"][0]) for _, of, _, pod in each_pod() if of == overlay} - {None}
        if found != set(SERVICES):
            yield f"{overlay} has {sorted(found)}"
