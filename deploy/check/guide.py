"""What deploy/README.md and README.md say of deploy/: files, anchors, commands, names of objects and of panels exist."""

import json
import re

from .compose import services
from .tree import DEPLOY, ROOT, check, each_manifest, example, rendered, text, version
from .watching import DASHBOARDS, alerts

GUIDE = "deploy/README.md"
# Of compose alone, in deploy/.env; the guide has a table of them.
OF_COMPOSE = set(re.findall(r"\$\{([A-Z_]+)", text("deploy/compose.yaml")))


def prose(path):
    """Without the blocks of code."""
    return re.sub(r"^```.*?^```$", "", text(path), flags=re.M | re.S)


def commands():
    """The guide's blocks of code, lines that go on joined."""
    return "\n".join(re.findall(r"^```sh\n(.*?)^```$", text(GUIDE), re.M | re.S)).replace("\\\n", " ")


def anchors(path):
    """As forges make them of headings."""
    found = re.findall(r"^#+ (.+)$", text(path), re.M)
    return {re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in found}


@check
def links_lead_somewhere():
    for path in (GUIDE, "README.md"):
        for link in re.findall(r"\]\((?!https?:)([^)]+)\)", prose(path)):
            file, _, anchor = link.partition("#")
            target = ((ROOT / path).parent / file).resolve() if file else ROOT / path
            if not target.exists():
                yield f"{path}: {link} is not there"
            elif anchor and anchor not in anchors(target.relative_to(ROOT)):
                yield f"{path}: {link} leads to no heading"


@check
def files_that_it_names_are_there():
    named = set(re.findall(r"(?<![\w/.])((?:deploy|tests|kubernetes|base|prometheus|grafana)/[\w./-]*\w)", text(GUIDE)))
    beside = [ROOT, DEPLOY, DEPLOY / "kubernetes"]
    for name in sorted(named - {"deploy/.env"}):
        if not any((place / name).exists() for place in beside):
            yield f"there is no {name}"


@check
def commands_are_about_what_is_there():
    names = {(manifest["kind"], manifest["metadata"]["name"]) for _, manifest, _ in each_manifest()}
    ports = {m["metadata"]["name"]: {p["port"] for p in m["spec"]["ports"]} for m in rendered("dev") if m["kind"] == "Service"}
    for name, port in re.findall(r"port-forward service/(\S+) \d+:(\d+)", commands()):
        if int(port) not in ports.get(name, ()):
            yield f"the overlay dev has no Service {name} with the port {port}"
    for kind, name in re.findall(r"(?:delete|logs|create) (job|deployment|service)[ /]([a-z][a-z-]*)", text(GUIDE)):
        if (kind.capitalize(), name) not in names:
            yield f"there is no {kind} {name}"
    for service in re.findall(r"--scale (\S+)=", text(GUIDE)):
        if service not in services():
            yield f"compose has no {service}"
    for port in re.findall(r"localhost:(\d+)", prose(GUIDE)):
        if not any(f":{port}:" in each for entry in services().values() for each in entry.get("ports", [])):
            yield f"compose opens no port {port}"
    for tag in re.findall(r"cuewire/\$service:(\S+)", commands()):
        if tag != version():
            yield f"it builds {tag}, and Cargo.toml says {version()}"


@check
def variables_that_it_names_exist():
    for name in sorted(set(re.findall(r"\b(?:CUEWIRE|RABBITMQ|POSTGRES|GRAFANA)_[A-Z_]+\b", text(GUIDE) + text("README.md")))):
        if name not in example() and name not in OF_COMPOSE:
            yield f"there is no {name}"


@check
def alerts_that_it_explains_exist():
    explained = set(re.findall(r"^### (\w+)$", text(GUIDE), re.M))
    if explained != {alert["alert"] for alert in alerts()}:
        yield f"{sorted(explained ^ {alert['alert'] for alert in alerts()})}"


def panels(name, with_rows=False):
    dashboard = json.loads(text(f"deploy/grafana/dashboards/{name}.json"))
    return {panel["title"] for panel in dashboard["panels"] if with_rows or panel["type"] != "row"}


@check
def panels_that_it_names_exist():
    known = set.union(*(panels(name, with_rows=True) for name in DASHBOARDS))
    named = re.findall(r"(?<!\*)\*([A-Z][^*\n]*(?:\n[^*\n]+)?)\*(?!\*)", prose(GUIDE))
    for name in sorted({" ".join(name.split()) for name in named} - known - {"Overview"}):
        yield f"no dashboard has a panel «{name}»"


@check
def the_readme_names_the_panels_of_the_overview_and_no_others():
    table = re.search(r"Grafana dashboards.*?\n\n((?:\|.*\n)+)", text("README.md"), re.S)[1]
    named = set(re.findall(r"\*\*(.+?)\*\*", table))
    if named != panels("overview"):
        yield f"README.md and the overview differ in {sorted(named ^ panels('overview'))}"
