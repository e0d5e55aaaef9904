#!/usr/bin/env python3
"""The dashboards as code: writes dashboards/*.json, which Grafana is given and which are kept beside this file.

`deploy/local/deployment --write` runs it, and without --write that script fails when a dashboard is not what this
makes. A panel is one line or a few: a title, a unit, and expressions with the names of their lines. Expressions
use $__rate_interval and no other variable of Grafana's, so that the tests can run each against a Prometheus.
"""

import json
import pathlib
import sys

DIRECTORY = pathlib.Path(__file__).parent / "dashboards"
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
RATE = "[$__rate_interval]"
WIDTH = 24  # of a dashboard, in Grafana's units


def rate(metric, by=None, where=""):
    """Of a counter, a second; summed over all replicas."""
    grouping = f" by ({by})" if by else ""
    return f"sum{grouping} (rate({metric}{{{where}}}{RATE}))".replace("{}", "")


def quantiles(metric, where="", by=None):
    """p50, p95 and p99 of a histogram."""
    grouping = f"{by}, le" if by else "le"
    name = f"{{{{{by}}}}} " if by else ""
    selector = f"{{{where}}}" if where else ""
    return [
        (f"histogram_quantile({q}, sum by ({grouping}) (rate({metric}_bucket{selector}{RATE})))", f"{name}{label}")
        for q, label in ((0.5, "p50"), (0.95, "p95"), (0.99, "p99"))
    ]


def panel(title, description, unit, targets, width=8, kind="timeseries", **options):
    """A panel of one or more (expression, name of its lines)."""
    custom = {"fillOpacity": 10, "showPoints": "never", "spanNulls": True}
    if options.get("stacked"):
        custom["stacking"] = {"mode": "normal"}
    defaults = {"unit": unit, "min": 0, "custom": custom}
    if "red" in options:
        steps = [{"color": "green", "value": None}, {"color": "red", "value": options["red"]}]
        defaults["thresholds"] = {"mode": "absolute", "steps": steps}
    if kind == "stat":
        del defaults["custom"]
    return {
        "title": title,
        "description": description,
        "type": kind,
        "datasource": DATASOURCE,
        "gridPos": {"w": width, "h": 4 if kind == "stat" else 8},
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": {"reduceOptions": {"calcs": ["lastNotNull"]}, "colorMode": "background"}
        if kind == "stat"
        else {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi", "sort": "desc"}},
        "targets": [
            {"refId": chr(ord("A") + at), "datasource": DATASOURCE, "expr": expr, "legendFormat": name}
            for at, (expr, name) in enumerate(targets)
        ],
    }


def row(title):
    return {"title": title, "type": "row", "collapsed": False, "gridPos": {"w": WIDTH, "h": 1}, "panels": []}


def dashboard(uid, title, description, panels):
    x = y = 0
    height = 0
    for number, each in enumerate(panels, start=1):
        place = each["gridPos"]
        if x + place["w"] > WIDTH:
            x, y = 0, y + height
        place.update(x=x, y=y)
        each["id"] = number
        x, height = x + place["w"], place["h"]
    return {
        "uid": f"cuewire-{uid}",
        "title": f"Cuewire: {title}",
        "description": description,
        "tags": ["cuewire"],
        "schemaVersion": 39,
        "editable": False,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "utc",
        "templating": {
            "list": [
                {
                    "name": "datasource",
                    "label": "Prometheus",
                    "type": "datasource",
                    "query": "prometheus",
                    "current": {"text": "Prometheus", "value": "prometheus"},
                }
            ]
        },
        "links": [
            {
                "title": "Cuewire",
                "type": "dashboards",
                "tags": ["cuewire"],
                "asDropdown": True,
                "keepTime": True,
                "includeVars": True,
            }
        ],
        "panels": panels,
    }


JOBS = 'job=~"api|router|sender|dlq-reaper|rabbitmq|rabbitmq-queues|postgres"'
QUEUE = "rabbitmq_detailed_queue_messages_ready"
ENDED = 'state="delivered"'

def by(label):
    """What became of attempts, by category or format."""
    attempts = "cuewire_sender_attempts_total"
    return [
        panel(f"Delivered, by {label}", "Deliveries that a receiver took.", "reqps",
              [(rate(attempts, label, ENDED), f"{{{{{label}}}}}")], 6, stacked=True),
        panel(f"Failed attempts, by {label}", "Requests that did not deliver, to be retried or for good.", "reqps",
              [(rate(attempts, label, 'state!="delivered"'), f"{{{{{label}}}}}")], 6, stacked=True),
        panel(f"Dead, by {label}", "Deliveries that failed for good, an hour.", "short",
              [(f'sum by ({label}) (increase({attempts}{{state="dead"}}[1h]))', f"{{{{{label}}}}}")], 6, stacked=True),
    ]  # fmt: skip


OVERVIEW = dashboard(
    "overview",
    "overview",
    "Whether events come in and go out, how late, and what stands in the way.",
    [
        panel("Accepted", "Events that the router took and routed.", "reqps",
              [(rate("cuewire_router_routed_events_total"), "")], 4, "stat"),
        panel("Delivered", "Deliveries that a receiver took.", "reqps",
              [(rate("cuewire_sender_attempts_total", where=ENDED), "")], 4, "stat"),
        panel("Failed attempts", "Of all requests, those without a 2xx, in 10 minutes.", "percentunit",
              [("cuewire:failed_requests:ratio_10m", "")], 4, "stat", red=0.5),
        panel("Dead letters", "In the last hour, of all reasons.", "short",
              [("sum(increase(cuewire_dead_letters_total[1h]))", "")], 4, "stat"),
        panel("Lag", "How late the slowest 1% of due work begins, of any lane.", "s",
              [("max(cuewire:lateness_seconds:p99_5m)", "")], 4, "stat", red=5),
        panel("Not there", "Connections that services are without, and processes that do not answer.", "short",
              [(f"(count(cuewire_connected == 0) or vector(0)) + (count(up{{{JOBS}}} == 0) or vector(0))", "")], 4, "stat", red=1),
        row("What comes in and goes out"),
        panel("Accepted, by category", "Events that were routed. `other` is what no platform has in its catalogue.", "reqps",
              [(rate("cuewire_router_routed_events_total", "category"), "{{category}}")], 6, stacked=True),
        *by("category"),
        panel("Dead letters, by reason", "Put on record, an hour.", "short",
              [("sum by (reason) (increase(cuewire_dead_letters_total[1h]))", "{{reason}}")], 6, stacked=True),
        *by("format"),
        panel("Not accepted", "Over HTTP: refused for going above the organization's limit, or since the broker did not "
              "take them. In the router: rejected (nobody's, or against a schema) or dropped as repeats.", "reqps",
              [(rate("cuewire_api_events_refused_total"), "above the limit"),
               (rate("cuewire_api_publish_failures_total"), "not taken by the broker"),
               (rate("cuewire_router_events_total", "outcome", 'outcome!="routed"'), "{{outcome}}")]),
        panel("Requests, by outcome", "What receivers answered, or how requests failed.", "reqps",
              [(rate("cuewire_sender_outcomes_total", "outcome"), "{{outcome}}")], stacked=True),
        panel("Waiting", "Messages that wait in the broker: for the router, for a sender, for their time (delayed), for the "
              "reaper.", "short",
              [(f'sum({QUEUE}{{queue=~"router\\\\..*"}})', "router"),
               (f'sum({QUEUE}{{queue=~"sender\\\\.fresh\\\\..*"}})', "fresh"),
               (f'sum({QUEUE}{{queue=~"sender\\\\.due\\\\..*"}})', "due"),
               (f'sum({QUEUE}{{queue=~"sender\\\\.bulk\\\\..*"}})', "bulk"),
               (f'sum({QUEUE}{{queue=~"retry\\\\..*"}})', "delayed"),
               (f'sum({QUEUE}{{queue=~"dlq-reaper\\\\..*"}})', "dead")]),
        row("How long each hop takes"),
        panel("Ingest", "From publishing a request's events to the broker's last confirm.", "s",
              quantiles("cuewire_api_publish_duration_seconds")),
        panel("Route", "From the arrival of a batch to the last confirm and the commit of its log.", "s",
              quantiles("cuewire_router_batch_duration_seconds")),
        panel("Wait, by lane", "From the time when an attempt was due to its request.", "s",
              quantiles("cuewire_sender_lateness_seconds", by="lane")),
        panel("Wait, by category", "The same, of first attempts of organizations within their share (the lane fresh).", "s",
              quantiles("cuewire_sender_lateness_seconds", 'lane="fresh"', "category")),
        panel("Request, by category", "From the start of a request to the end of its answer: the receivers' time.", "s",
              quantiles("cuewire_sender_request_duration_seconds", by="category")),
        panel("Request, by format", "The same, by the form in which the receivers are told.", "s",
              quantiles("cuewire_sender_request_duration_seconds", by="format")),
        panel("Record", "Writing a batch of attempts into the database.", "s",
              quantiles("cuewire_sender_record_duration_seconds")),
        panel("Bury", "From a dead letter's death until it is on record.", "s",
              quantiles("cuewire_reaper_age_seconds")),
        row("Processes"),
        panel("CPU", "Cores, by service.", "short",
              [('sum by (job) (rate(process_cpu_seconds_total{job=~"api|router|sender|dlq-reaper"}[$__rate_interval]))', "{{job}}")]),
        panel("Memory", "Resident, the largest of each service.", "bytes",
              [('max by (job) (process_resident_memory_bytes{job=~"api|router|sender|dlq-reaper"})', "{{job}}")]),
        panel("Connected", "Parts that each service depends on: 1 when all replicas have it.", "short",
              [("min by (job, component) (cuewire_connected)", "{{job}} {{component}}")]),
    ],
)

SENDERS = dashboard(
    "senders",
    "senders",
    "What senders have in hand, what receivers make of it, and what is put off.",
    [
        panel("In flight", "Requests in flight, of each sender.", "short",
              [("sum by (instance) (cuewire_sender_requests_in_flight)", "{{instance}}")], stacked=True),
        panel("Waiting for their webhook's turn", "Held in the sender, since their webhook has as many in flight as it may.",
              "short", [("sum by (instance) (cuewire_sender_waiting)", "{{instance}}")], stacked=True),
        panel("Held until due", "For less than a second.", "short",
              [("sum by (instance) (cuewire_sender_held)", "{{instance}}")], stacked=True),
        row("What receivers make of it"),
        panel("Attempts, by state after them", "Delivered, to be retried, or dead.", "reqps",
              [(rate("cuewire_sender_attempts_total", "state"), "{{state}}")], stacked=True),
        panel("Requests, by outcome", "The class of the answer's status, or how the request failed. `blocked` is an address "
              "that must not be called.", "reqps",
              [(rate("cuewire_sender_outcomes_total", "outcome"), "{{outcome}}")], stacked=True),
        panel("Failed share, by format", "Of the attempts of each format, those that did not deliver.", "percentunit",
              [(f'1 - ({rate("cuewire_sender_attempts_total", "format", ENDED)} or 0 * '
                f'{rate("cuewire_sender_attempts_total", "format")}) / {rate("cuewire_sender_attempts_total", "format")}',
                "{{format}}")]),
        panel("Dead letters, by reason", "That senders sent to the reaper.", "reqps",
              [(rate("cuewire_sender_dead_letters_total", "reason"), "{{reason}}")], stacked=True),
        row("What is put off"),
        panel("Parked, by cause", "Put into the delayed queues: for a retry, because they came early, because their webhook "
              "was busy, its rate limit reached (limited), or its breaker open.", "reqps", [(rate("cuewire_sender_parked_total", "cause"), "{{cause}}")], stacked=True),
        panel("Webhooks put off", "Of which deliveries had to stay away within the last five seconds, at one sender: parked "
              "(busy, or the breaker open), or limited by their own rate limit. Which they are, each webhook's statistics say.",
              "short", [("max by (cause) (cuewire_sender_webhooks_put_off)", "{{cause}}")]),
        panel("In the delayed queues", "By tier. What is here waits for its time, and more senders would not help it.", "short",
              [(f'sum by (queue) ({QUEUE}{{queue=~"retry\\\\..*"}})', "{{queue}}")], stacked=True),
        panel("In the senders' queues", "What waits for a sender: here more of them help.", "short",
              [(f'sum by (queue) ({QUEUE}{{queue=~"sender\\\\..*"}})', "{{queue}}")], stacked=True),
        row("Breakers"),
        panel("Open breakers", "Webhooks that are left alone, but for a probe now and then, since their receivers fail.", "short",
              [("max(cuewire_reaper_open_breakers)", "open")]),
        panel("Breakers opened", "By requests of these senders.", "ops", [(rate("cuewire_sender_breakers_opened_total"), "opened")]),
        panel("Probes, by what they came to", "Delivered closes the breaker.", "ops",
              [(rate("cuewire_sender_probes_total", "state"), "{{state}}")]),
        row("Recording"),
        panel("Attempts recorded together", "The mean size of a batch.", "short",
              [(f'{rate("cuewire_sender_record_batch_attempts_sum")} / {rate("cuewire_sender_record_batch_attempts_count")}',
                "attempts")]),
        panel("Recording a batch", "How long the database takes.", "s", quantiles("cuewire_sender_record_duration_seconds")),
        panel("Webhooks in the cache", "Of each sender.", "short",
              [("sum by (instance) (cuewire_sender_webhooks)", "{{instance}}")]),
    ],
)

RABBITMQ = dashboard(
    "rabbitmq",
    "RabbitMQ",
    "What waits in which queue, what passes through, and whether the broker is well.",
    [
        panel("Alarms", "Any of them blocks all publishers.", "short",
              [('sum({__name__=~"rabbitmq_alarms_(memory_used_watermark|free_disk_space_watermark|file_descriptor_limit)"})',
                "")], 6, "stat", red=1),
        panel("Parked for a person", "Messages in parking.v1, which the database refuses.", "short",
              [('sum(rabbitmq_detailed_queue_messages{queue="parking.v1"})', "")], 6, "stat", red=1),
        panel("Memory", "Of what a node may have before it blocks publishers, the fullest node.", "percentunit",
              [("max(rabbitmq_process_resident_memory_bytes / rabbitmq_resident_memory_limit_bytes)", "")], 6, "stat", red=0.8),
        panel("Disk", "Free space, in multiples of that at which publishers are blocked; the fullest node.", "short",
              [("min(rabbitmq_disk_space_available_bytes / rabbitmq_disk_space_available_limit_bytes)", "")], 6, "stat"),
        row("Queues"),
        panel("Ready, by queue", "Messages that wait for a consumer.", "short",
              [(f'sum by (queue) ({QUEUE}{{queue!~"retry\\\\..*"}})', "{{queue}}")], 12),
        panel("In hand, by queue", "Delivered to a consumer and not acknowledged.", "short",
              [('sum by (queue) (rabbitmq_detailed_queue_messages_unacked{queue!~"retry\\\\..*"})', "{{queue}}")], 12),
        panel("Delayed, by tier", "What waits for its time.", "short",
              [(f'sum by (queue) ({QUEUE}{{queue=~"retry\\\\..*"}})', "{{queue}}")], 12, stacked=True),
        panel("Consumers, by queue", "None for one of these, and its work waits.", "short",
              [('sum by (queue) (rabbitmq_detailed_queue_consumers{queue=~"router\\\\..*|sender\\\\..*|dlq-reaper\\\\..*"})',
                "{{queue}}")], 12),
        row("What passes through"),
        panel("Published and confirmed", "Where these part, the broker is behind.", "reqps",
              [(rate("rabbitmq_global_messages_received_total"), "published"),
               (rate("rabbitmq_global_messages_confirmed_total"), "confirmed")]),
        panel("Delivered and acknowledged", "Where these part, consumers are behind.", "reqps",
              [(rate("rabbitmq_global_messages_delivered_consume_manual_ack_total"), "delivered"),
               (rate("rabbitmq_global_messages_acknowledged_total"), "acknowledged"),
               (rate("rabbitmq_global_messages_redelivered_total"), "delivered again")]),
        panel("Left the delayed queues", "Dead-lettered when their time was over, and confirmed by where they went.", "reqps",
              [(rate("rabbitmq_global_messages_dead_lettered_expired_total"), "expired"),
               (rate("rabbitmq_global_messages_dead_lettered_confirmed_total"), "confirmed")]),
        panel("Given up by their queue", "Delivered too often (51 times): a crash loop, or poison.", "reqps",
              [(rate("rabbitmq_global_messages_dead_lettered_delivery_limit_total"), "delivery limit")]),
        panel("Unroutable", "Returned to their publisher, or dropped: there should be none.", "reqps",
              [(rate("rabbitmq_global_messages_unroutable_returned_total"), "returned"),
               (rate("rabbitmq_global_messages_unroutable_dropped_total"), "dropped")]),
        panel("Connections", "Of services, upstreams and operators.", "short",
              [("sum(rabbitmq_connections)", "connections"), ("sum(rabbitmq_channels)", "channels")]),
        row("Nodes"),
        panel("Memory", "Of each node, and its limit.", "bytes",
              [("sum by (instance) (rabbitmq_process_resident_memory_bytes)", "{{instance}}"),
               ("sum by (instance) (rabbitmq_resident_memory_limit_bytes)", "{{instance}} limit")]),
        panel("Free disk", "Of each node, and its limit.", "bytes",
              [("sum by (instance) (rabbitmq_disk_space_available_bytes)", "{{instance}}"),
               ("sum by (instance) (rabbitmq_disk_space_available_limit_bytes)", "{{instance}} limit")]),
        panel("Messages, all queues", "What the broker holds. It grows as long as more comes in than goes out.", "short",
              [("sum(rabbitmq_detailed_queue_messages_ready)", "ready"),
               ("sum(rabbitmq_detailed_queue_messages_unacked)", "in hand")], stacked=True),
    ],
)

OURS = 'datname!~"template.*|postgres|"'

POSTGRES = dashboard(
    "postgres",
    "Postgres",
    "What the database does, and what it is short of.",
    [
        panel("Answers", "Whether the exporter reaches the server.", "short", [("min(pg_up)", "")], 6, "stat"),
        panel("Connections taken", "Of those that the server allows.", "percentunit",
              [("max(sum by (instance) (pg_stat_activity_count) / max by (instance) (pg_settings_max_connections))", "")],
              6, "stat", red=0.8),
        panel("Size", "Of the database.", "bytes", [(f"sum(pg_database_size_bytes{{{OURS}}})", "")], 6, "stat"),
        panel("Days with partitions", "From tomorrow on. The reaper makes 14 ahead.", "short",
              [("min(cuewire_partitions_ahead)", "")], 6, "stat"),
        row("Work"),
        panel("Transactions", "A batch of events, attempts or dead letters is one.", "ops",
              [(rate("pg_stat_database_xact_commit", where=OURS), "committed"),
               (rate("pg_stat_database_xact_rollback", where=OURS), "rolled back")]),
        panel("Rows written", "Events and attempts are inserted; updates are for configuration and dead letters.", "ops",
              [(rate("pg_stat_database_tup_inserted", where=OURS), "inserted"),
               (rate("pg_stat_database_tup_updated", where=OURS), "updated"),
               (rate("pg_stat_database_tup_deleted", where=OURS), "deleted")]),
        panel("Rows read", "Fetched by an index; returned by scans too. Far apart, an index is missing.", "ops",
              [(rate("pg_stat_database_tup_fetched", where=OURS), "fetched"),
               (rate("pg_stat_database_tup_returned", where=OURS), "returned")]),
        row("What it is short of"),
        panel("Connections, by state", "`idle in transaction` should be none: nothing holds a transaction while it waits.",
              "short", [("sum by (state) (pg_stat_activity_count)", "{{state}}")], stacked=True),
        panel("Longest transaction", "Seconds, by state.", "s",
              [("max by (state) (pg_stat_activity_max_tx_duration)", "{{state}}")]),
        panel("Read from memory", "Of the pages read, those that the server's own memory had.", "percentunit",
              [(f'{rate("pg_stat_database_blks_hit", where=OURS)} / '
                f'({rate("pg_stat_database_blks_hit", where=OURS)} + {rate("pg_stat_database_blks_read", where=OURS)})', "hit")]),
        panel("Locks, by mode", "Many of AccessExclusive are a partition on its way out, or a migration.", "short",
              [("sum by (mode) (pg_locks_count)", "{{mode}}")]),
        panel("Deadlocks and conflicts", "There should be none.", "ops",
              [(rate("pg_stat_database_deadlocks", where=OURS), "deadlocks"),
               (rate("pg_stat_database_conflicts", where=OURS), "conflicts")]),
        panel("Temporary files", "Sorts that did not fit into work_mem.", "Bps",
              [(rate("pg_stat_database_temp_bytes", where=OURS), "bytes")]),
        row("Retention"),
        panel("Runs, by result", "In 6 hours. `elsewhere`: another replica was at it.", "short",
              [("sum by (result) (increase(cuewire_retention_runs_total[6h]))", "{{result}}")]),
        panel("Writing dead letters", "How long a batch takes, with all tries.", "s",
              quantiles("cuewire_reaper_record_seconds")),
        panel("Writing attempts", "How long a batch takes.", "s", quantiles("cuewire_sender_record_duration_seconds")),
    ],
)


def main():
    directory = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else DIRECTORY
    directory.mkdir(exist_ok=True)
    for name, content in (("overview", OVERVIEW), ("senders", SENDERS), ("rabbitmq", RABBITMQ), ("postgres", POSTGRES)):
        (directory / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
