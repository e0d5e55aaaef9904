"""Who may talk to whom, by the network policies of an overlay taken together: what is needed works, and nothing else."""

import ipaddress
import typing

from .references import of_operators, selects
from .tree import HEALTH_PORTS, SERVICES, check, each_pod, rendered

OURS = "cuewire"


class End(typing.NamedTuple):
    """A pod, or an address outside of the cluster."""

    name: str
    namespace: str = ""
    labels: dict = {}
    ports: dict = {}
    address: str = ""


def pods(overlay):
    """Ours and those of operators, by name."""
    found = {}
    for name, of, labels, pod in each_pod(overlay):
        ports = {port["name"]: port["containerPort"] for c in pod["containers"] for port in c.get("ports", [])}
        found[name.split()[-1]] = End(name, OURS, labels, ports)
    for name, (labels, ports) in of_operators(overlay).items():
        found[name] = End(f"{overlay}: {name}", OURS, labels, ports)
    return found


def is_one_of(end, peers):
    """Whether a rule's peers, of which none means everybody, have this one among them."""
    for peer in peers:
        if "ipBlock" in peer:
            block = peer["ipBlock"]
            networks = [ipaddress.ip_network(each) for each in (block["cidr"], *block.get("except", []))]
            inside, *excepted = [end.address and ipaddress.ip_address(end.address) in network for network in networks]
            if inside and not any(excepted):
                return True
        elif end.namespace:
            namespace = peer.get("namespaceSelector")
            is_there = (
                end.namespace == OURS if namespace is None else selects(namespace, {"kubernetes.io/metadata.name": end.namespace})
            )
            if is_there and selects(peer.get("podSelector", {}), end.labels):
                return True
    return not peers


class Port(typing.NamedTuple):
    """Of the end that is talked to, which may have a name for it."""

    target: End
    number: int
    protocol: str


def has_port(rule, wanted):
    for port in rule.get("ports", []):
        first = wanted.target.ports.get(port["port"], port["port"])
        inside = first == wanted.number or ("endPort" in port and first <= wanted.number <= port["endPort"])
        if inside and port.get("protocol", "TCP") == wanted.protocol:
            return True
    return "ports" not in rule


def lets(overlay, direction, own, other, port):
    """Whether the policies about one end let it talk to the other; without any it may."""
    if own.namespace != OURS:
        return True
    policies = [manifest["spec"] for manifest in rendered(overlay) if manifest["kind"] == "NetworkPolicy"]
    about = [spec for spec in policies if direction in spec["policyTypes"] and selects(spec["podSelector"], own.labels)]
    rules = [rule for spec in about for rule in spec.get(direction.lower(), [])]
    side = {"Egress": "to", "Ingress": "from"}[direction]
    return not about or any(is_one_of(other, rule.get(side, [])) and has_port(rule, port) for rule in rules)


def may_talk(overlay, source, target, number):
    """By the policies of both ends; names are asked for by both protocols."""
    ports = [Port(target, number, protocol) for protocol in (("TCP", "UDP") if target is DNS else ("TCP",))]
    return all(lets(overlay, "Egress", source, target, port) and lets(overlay, "Ingress", target, source, port) for port in ports)


DNS = End("the cluster's DNS", "kube-system", {"k8s-app": "kube-dns"})
STRANGER = End("a pod of another namespace", "elsewhere", {"app.kubernetes.io/name": "shop"})
NEIGHBOUR = End("a pod beside ours", OURS, {"app.kubernetes.io/name": "shop"})
PROMETHEUS = End("Prometheus of another namespace", "monitoring", {"app.kubernetes.io/name": "prometheus"})
RECEIVERS = [End("a receiver", address=address) for address in ("93.184.216.34", "2606:2800:220:1::1")]
PRIVATE = [
    End(f"the private {address}", address=address)
    for address in ("10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "fd00::1", "fe80::1", "::1")
]


def operator(namespace):
    return End(f"an operator of {namespace}", namespace, {"app": "operator"})


def needed(overlay):
    """Source, target and port of each connection that must work."""
    of = pods(overlay)
    broker, database, exporter = of["rabbitmq"], of["postgres"], of["postgres-exporter"]
    for name in (*SERVICES, "migrate"):
        yield from ((of[name], DNS, 53), (of[name], broker, 5672), (of[name], database, 5432))
    yield from ((exporter, DNS, 53), (exporter, database, 5432), (STRANGER, of["api"], 8080))
    yield from ((of["sender"], receiver, port) for receiver in RECEIVERS for port in (80, 443, 8443))
    watchers = [PROMETHEUS, *(pod for name, pod in of.items() if name == "prometheus")]
    for watcher in watchers:
        yield from ((watcher, of[name], HEALTH_PORTS[name]) for name in SERVICES)
        yield from ((watcher, exporter, 9187), (watcher, broker, 15692))
    if overlay == "dev":
        yield of["grafana"], of["prometheus"], 9090
    else:
        yield PROMETHEUS, database, 9187
        yield from ((broker, broker, port) for port in (4369, 25672, 35672))
        yield from ((operator(namespace), broker, 15672) for namespace in ("rabbitmq-system", "keda"))
        yield from ((source, database, port) for source in (operator("cnpg-system"), database) for port in (5432, 8000))


def refused(overlay):
    of = pods(overlay)
    for source in (STRANGER, NEIGHBOUR):
        yield from ((source, of["rabbitmq"], port) for port in (5672, 15672, 15692))
        yield source, of["postgres"], 5432
        yield from ((source, of[name], HEALTH_PORTS[name]) for name in SERVICES)
    for name in (*SERVICES, "migrate", "postgres-exporter"):
        yield from ((of[name], address, 443) for address in PRIVATE)
        if name != "sender":
            yield from ((of[name], address, 443) for address in RECEIVERS)


@check
def whatever_must_talk_may():
    for overlay in ("dev", "production"):
        for source, target, port in needed(overlay):
            if not may_talk(overlay, source, target, port):
                yield f"{overlay}: {source.name} may not talk to {target.name} at {port}"


@check
def nobody_else_may():
    for overlay in ("dev", "production"):
        for source, target, port in refused(overlay):
            if may_talk(overlay, source, target, port):
                yield f"{overlay}: {source.name} may talk to {target.name} at {port}"
