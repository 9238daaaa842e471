"""Grafana's dashboards, of one host and of a fleet, as code. packaging/generate.py writes them as JSON."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

COLUMNS = 24
"""Grafana's grid is so wide."""
SCHEMA = 39
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
RATE = "[$__rate_interval]"
NO_ALERT = 'label_replace(vector(0), "alertname", "none", "", "")'
GREEN, YELLOW, RED, BLUE = "green", "yellow", "red", "blue"
Steps = tuple[tuple[float | None, str], ...]
PLAIN: Steps = ((None, GREEN),)
RISK: Steps = ((None, GREEN), (0.7, YELLOW), (1.0, RED))
"""The debt as a share of what could be found for it."""
NONE_ALLOWED: Steps = ((None, GREEN), (1.0, RED))
FITS: Steps = ((None, YELLOW), (1.0, GREEN))
CHANCE: Steps = ((None, GREEN), (0.01, YELLOW), (0.05, RED))
"""The chance that memory runs out: 1 % is what `capacity` allows, and above 5 % there is an alert."""
LOSS: Steps = ((None, RED), (0.0, GREEN))
CORE: Steps = ((None, GREEN), (0.2, YELLOW), (0.5, RED))
"""A share of one core."""
SOON: Steps = ((None, RED), (3600.0, YELLOW), (86400.0, GREEN))
"""Seconds that are left."""


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One picture. Each of its questions has a legend."""

    title: str
    description: str
    queries: tuple[tuple[str, str], ...]
    kind: str = "timeseries"
    unit: str = "short"
    steps: Steps = PLAIN
    width: int = 8
    height: int = 7
    stacked: bool = False
    shows_name: bool = False
    """Of a stat: the series' name is the answer, and its value is not."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """Some panels below a heading."""

    title: str
    panels: tuple[Panel, ...]


def stat(title: str, description: str, expression: str, unit: str = "short", steps: Steps = PLAIN) -> Panel:
    """One number."""
    return Panel(
        kind="stat",
        title=title,
        description=description,
        queries=((expression, "__auto"),),
        unit=unit,
        steps=steps,
        width=4,
        height=4,
    )


def word(title: str, description: str, expression: str, label: str) -> Panel:
    """One word: the label of the series that is there."""
    queries = ((expression, f"{{{{{label}}}}}"),)
    return Panel(kind="stat", title=title, description=description, queries=queries, width=4, height=4, shows_name=True)


def bars(
    title: str, description: str, expression: str, legend: str, unit: str = "short", steps: Steps = PLAIN
) -> Panel:
    """The highest of many."""
    return Panel(
        kind="bargauge", title=title, description=description, queries=((expression, legend),), unit=unit, steps=steps
    )


def of_host(expression: str) -> str:
    """An expression in which HOST stands for the chosen host."""
    return expression.replace("HOST", 'instance="$instance"')


HOST_ROWS = (
    Row(
        title="At a glance",
        panels=(
            stat("Saved", "Memory that merging saves now.", of_host("ksmtuned_saved_bytes{HOST}"), "bytes"),
            stat(
                "Risk",
                "The debt as a share of what the host could find for it. More than 100 % it could not bear.",
                of_host("ksmtuned_debt_bytes{HOST} / clamp_min(ksmtuned_debt_room_bytes{HOST}, 1)"),
                "percentunit",
                RISK,
            ),
            stat(
                "More guests",
                "How many more guests like the median one fit. Known once six hours were recorded.",
                of_host("ksmtuned_capacity_guests{HOST}"),
                "short",
                FITS,
            ),
            stat(
                "May run out",
                "The chance that memory runs out within 24 hours, with no guest more.",
                of_host("ksmtuned_capacity_exceeded_chance_ratio{HOST}"),
                "percentunit",
                CHANCE,
            ),
            stat(
                "Profit",
                "Saved memory less the kernel's records. Below 0 merging is a loss.",
                of_host("ksmtuned_profit_bytes{HOST}"),
                "bytes",
                LOSS,
            ),
            stat(
                "Scanner",
                "What ksmd, or the scan worker, took lately, as a share of one core.",
                of_host("ksmtuned_scanner_cpu_ratio{HOST}"),
                "percentunit",
                CORE,
            ),
            word("Mode", "What the daemon does with KSM.", of_host("ksmtuned_mode{HOST} == 1"), "mode"),
            word("Rule", "The rule that won the last decision.", of_host("ksmtuned_rule_info{HOST}"), "rule"),
            word("Need", "How badly the host wants memory.", of_host("ksmtuned_need{HOST} == 1"), "need"),
            stat(
                "Short in",
                "Time until memory is short if it falls on as lately. Infinite when no shortage is in sight.",
                of_host("ksmtuned_short_in_seconds{HOST}"),
                "s",
                SOON,
            ),
            stat("Guests", "Processes whose memory may merge.", of_host("ksmtuned_guests{HOST}")),
            stat(
                "Late ticks",
                "Looks at the host that began more than a second late, in the last hour.",
                of_host("increase(ksmtuned_ticks_late_total{HOST}[1h])"),
                "short",
                NONE_ALLOWED,
            ),
        ),
    ),
    Row(
        title="Memory",
        panels=(
            Panel(
                title="Saved, and profit",
                description="Profit is what is saved, less 64 bytes for each page that the kernel keeps a record of.",
                queries=(
                    (of_host("ksmtuned_saved_bytes{HOST}"), "saved"),
                    (of_host("ksmtuned_profit_bytes{HOST}"), "profit"),
                ),
                unit="bytes",
            ),
            Panel(
                title="Debt, and room for it",
                description="The debt is due if guests write to all merged pages. Room is what could be found for it.",
                queries=(
                    (of_host("ksmtuned_debt_bytes{HOST}"), "debt"),
                    (of_host("ksmtuned_debt_room_bytes{HOST}"), "room"),
                ),
                unit="bytes",
            ),
            Panel(
                title="Available, and comfort",
                description="Below comfort merging begins. It is about the host, or about a slice that is tighter.",
                queries=(
                    (of_host("ksmtuned_tightest_available_bytes{HOST}"), "available"),
                    (of_host("ksmtuned_comfort_bytes{HOST}"), "comfort"),
                ),
                unit="bytes",
            ),
        ),
    ),
    Row(
        title="What it costs",
        panels=(
            Panel(
                title="Scanner",
                description="CPU time of ksmd, or of the scan worker, in shares of one core.",
                queries=((of_host(f"rate(ksmtuned_scanner_cpu_seconds_total{{HOST}}{RATE})"), "scanner"),),
                unit="percentunit",
                steps=CORE,
            ),
            Panel(
                title="Huge pages",
                description="Huge pages that merging has split, and that were given back to guests, a second.",
                queries=(
                    (of_host(f"rate(ksmtuned_huge_pages_split_total{{HOST}}{RATE})"), "split"),
                    (of_host(f"rate(ksmtuned_huge_pages_given_back_total{{HOST}}{RATE})"), "given back"),
                ),
                unit="ops",
            ),
            Panel(
                title="Copies",
                description="Writes of guests to merged pages. Each makes the guest wait for a copy.",
                queries=((of_host("ksmtuned_cow_ksm_pages_per_minute{HOST}"), "a minute"),),
                unit="short",
            ),
            Panel(
                title="Pressure",
                description="The share of the last 10 seconds in which some tasks waited for memory, or for a CPU.",
                queries=(
                    (of_host('ksmtuned_pressure_ratio{HOST, tasks="some", window="10s"}'), "memory"),
                    (of_host("ksmtuned_cpu_pressure_ratio{HOST}"), "CPU"),
                ),
                unit="percentunit",
            ),
            Panel(
                title="Pages",
                description="What the kernel keeps a record of: pages that are merged, alone, or change too fast.",
                queries=tuple(
                    (of_host(f"ksmtuned_ksm_pages_{state}{{HOST}}"), state)
                    for state in ("sharing", "shared", "unshared", "volatile")
                ),
                stacked=True,
            ),
            Panel(
                title="Passes",
                description="Passes of the scanner over all candidate memory, an hour.",
                queries=((of_host(f"3600 * rate(ksmtuned_ksm_full_scans_total{{HOST}}{RATE})"), "passes"),),
            ),
        ),
    ),
    Row(
        title="Decisions",
        panels=(
            Panel(
                kind="state-timeline",
                title="Modes",
                description="What the daemon did with KSM over time.",
                queries=((of_host("ksmtuned_mode{HOST}"), "{{mode}}"),),
                width=12,
            ),
            Panel(
                kind="state-timeline",
                title="Plenty, storms, others who write",
                description="1 while it was so: memory is plenty, guests are left alone, a storm of writes, hands off.",
                queries=(
                    (of_host("ksmtuned_memory_plenty{HOST}"), "plenty"),
                    (of_host("ksmtuned_left_alone{HOST}"), "left alone"),
                    (of_host("ksmtuned_cow_storm{HOST}"), "storm"),
                    (of_host('ksmtuned_mode{HOST, mode="held"}'), "hands off"),
                ),
                width=12,
            ),
        ),
    ),
    Row(
        title="Guests",
        panels=(
            bars(
                "Saved",
                "Merged memory of the guests with most of it.",
                of_host("topk(15, ksmtuned_guest_saved_bytes{HOST})"),
                "{{guest}}",
                "bytes",
            ),
            bars(
                "Loss",
                "Guests whose merged memory is least, less the kernel's records. Below 0 merging them is a loss.",
                of_host("bottomk(15, ksmtuned_guest_profit_bytes{HOST})"),
                "{{guest}}",
                "bytes",
                LOSS,
            ),
            bars(
                "Huge pages",
                "Private memory in huge pages, of the guests with most of it; some minutes old.",
                of_host("topk(15, ksmtuned_guest_huge_bytes{HOST})"),
                "{{guest}}",
                "bytes",
            ),
        ),
    ),
    Row(
        title="The daemon",
        panels=(
            Panel(
                title="Ticks",
                description="How long a look at the host takes on average, and how late the last one began.",
                queries=(
                    (
                        of_host(
                            f"rate(ksmtuned_tick_duration_seconds_sum{{HOST}}{RATE})"
                            f" / rate(ksmtuned_tick_duration_seconds_count{{HOST}}{RATE})"
                        ),
                        "takes",
                    ),
                    (of_host("ksmtuned_last_tick_late_seconds{HOST}"), "late by"),
                ),
                unit="s",
            ),
            Panel(
                title="Errors, and writes of others",
                description="Failed ticks, sensors and surfaces, and knobs that somebody else wrote, in the last hour.",
                queries=(
                    (of_host("sum(increase(ksmtuned_errors_total{HOST}[1h]))"), "errors"),
                    (of_host("sum(increase(ksmtuned_foreign_writes_total{HOST}[1h]))"), "writes of others"),
                ),
                steps=NONE_ALLOWED,
            ),
            Panel(
                title="Its own memory",
                description="Resident memory of the daemon.",
                queries=((of_host('process_resident_memory_bytes{HOST, job=~"(.+/)?ksmtuned-py"}'), "resident"),),
                unit="bytes",
            ),
            word("Version", "The running daemon.", of_host("ksmtuned_build_info{HOST}"), "version"),
            word(
                "Configuration",
                "A hash that hosts with the same configuration share.",
                of_host("ksmtuned_config_info{HOST}"),
                "hash",
            ),
        ),
    ),
)

FLEET_ROWS = (
    Row(
        title="At a glance",
        panels=(
            stat("Hosts", "Hosts whose daemon answers.", "count(ksmtuned_build_info)"),
            stat(
                "Down",
                "Hosts whose daemon does not answer.",
                'sum(1 - up{job=~"(.+/)?ksmtuned-py"})',
                "short",
                NONE_ALLOWED,
            ),
            stat("Saved", "Memory that merging saves on all hosts.", "sum(ksmtuned_saved_bytes)", "bytes"),
            stat(
                "Scanners",
                "What all scanners took in the last hour, in cores.",
                "sum(rate(ksmtuned_scanner_cpu_seconds_total[1h]))",
            ),
            stat(
                "Beyond room",
                "Hosts that could not bear it if all merged pages were written to.",
                "sum(ksmtuned_debt_exceeded)",
                "short",
                NONE_ALLOWED,
            ),
            stat(
                "At a loss",
                "Hosts on which merging takes more memory than it saves.",
                "count(ksmtuned_profit_bytes < 0) or vector(0)",
                "short",
                NONE_ALLOWED,
            ),
        ),
    ),
    Row(
        title="Memory",
        panels=(
            Panel(
                title="Saved",
                description="On all hosts, and on average.",
                queries=(("sum(ksmtuned_saved_bytes)", "all"), ("avg(ksmtuned_saved_bytes)", "a host")),
                unit="bytes",
            ),
            Panel(
                title="Debt, and room for it",
                description="Of all hosts. One host's room does not help another.",
                queries=(("sum(ksmtuned_debt_bytes)", "debt"), ("sum(ksmtuned_debt_room_bytes)", "room")),
                unit="bytes",
            ),
            bars(
                "Risk",
                "The hosts whose debt is the largest share of what they could find for it.",
                "topk(15, ksmtuned_debt_bytes / clamp_min(ksmtuned_debt_room_bytes, 1))",
                "{{instance}}",
                "percentunit",
                RISK,
            ),
        ),
    ),
    Row(
        title="What it costs",
        panels=(
            bars(
                "Scanner",
                "The hosts whose scanner took most in the last hour, in shares of one core.",
                "topk(15, rate(ksmtuned_scanner_cpu_seconds_total[1h]))",
                "{{instance}}",
                "percentunit",
                CORE,
            ),
            bars(
                "Huge pages lost",
                "The hosts on which merging has split most huge pages in the last hour.",
                "topk(15, increase(ksmtuned_huge_pages_split_total[1h]))",
                "{{instance}}",
            ),
            bars(
                "Copies",
                "The hosts on which guests write to most merged pages, a minute.",
                "topk(15, ksmtuned_cow_ksm_pages_per_minute)",
                "{{instance}}",
            ),
        ),
    ),
    Row(
        title="How much more fits",
        panels=(
            bars(
                "More guests",
                "The hosts on which most guests more fit, each like the median guest there.",
                "topk(15, ksmtuned_capacity_guests)",
                "{{instance}}",
                "short",
                FITS,
            ),
            bars(
                "May run out",
                "The hosts with the largest chance that memory runs out within 24 hours, with no guest more.",
                "topk(15, ksmtuned_capacity_exceeded_chance_ratio)",
                "{{instance}}",
                "percentunit",
                CHANCE,
            ),
            Panel(
                title="More guests in all",
                description="How many more guests fit, on all hosts on which six hours were recorded.",
                queries=(("sum(ksmtuned_capacity_guests)", "all hosts"),),
            ),
        ),
    ),
    Row(
        title="What differs",
        panels=(
            Panel(
                kind="bargauge",
                title="Versions",
                description="Hosts with each version.",
                queries=(("count by (version) (ksmtuned_build_info)", "{{version}}"),),
            ),
            Panel(
                kind="bargauge",
                title="Configurations",
                description="Hosts with each configuration, by its hash and its mode.",
                queries=(("count by (hash, mode) (ksmtuned_config_info)", "{{hash}} {{mode}}"),),
            ),
            Panel(
                title="Modes",
                description="What the daemons do with KSM, in hosts.",
                queries=(("sum by (mode) (ksmtuned_mode)", "{{mode}}"),),
                stacked=True,
            ),
            Panel(
                title="Need",
                description="How badly the hosts want memory, in hosts.",
                queries=(("sum by (need) (ksmtuned_need)", "{{need}}"),),
                stacked=True,
            ),
            bars(
                "Writes of others",
                "The hosts on which somebody else wrote the knobs most often in the last hour.",
                "topk(15, sum by (instance) (increase(ksmtuned_foreign_writes_total[1h])))",
                "{{instance}}",
                "short",
                NONE_ALLOWED,
            ),
            Panel(
                title="Alerts",
                description="Alerts that fire, or are about to.",
                queries=((f'count by (alertname) (ALERTS{{alertname=~"Ksmtuned.+"}}) or {NO_ALERT}', "{{alertname}}"),),
                steps=NONE_ALLOWED,
            ),
        ),
    ),
)


def host_json() -> str:
    """The dashboard of one host."""
    instance = {
        "name": "instance",
        "label": "Host",
        "type": "query",
        "datasource": SOURCE,
        "definition": "label_values(ksmtuned_build_info, instance)",
        "query": {"query": "label_values(ksmtuned_build_info, instance)", "refId": "instance"},
        "refresh": 2,
        "sort": 1,
    }
    return _dashboard("ksmtuned-py-host", "ksmtuned-py: a host", HOST_ROWS, [instance])


def fleet_json() -> str:
    """The dashboard of all hosts."""
    return _dashboard("ksmtuned-py-fleet", "ksmtuned-py: all hosts", FLEET_ROWS, [])


def _dashboard(uid: str, title: str, rows: Iterable[Row], variables: list[dict[str, Any]]) -> str:
    source = {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus"}
    content = {
        "uid": uid,
        "title": title,
        "tags": ["ksm", "ksmtuned-py"],
        "schemaVersion": SCHEMA,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {"list": [source, *variables]},
        "panels": list(_placed(rows)),
    }
    return json.dumps(content, indent=2) + "\n"


def _placed(rows: Iterable[Row]) -> Iterator[dict[str, Any]]:
    """The panels as Grafana has them, from left to right and down."""
    number, top = 1, 0
    for row in rows:
        yield {"id": number, "type": "row", "title": row.title, "gridPos": _place(0, top, COLUMNS, 1), "panels": []}
        number, top, left, lowest = number + 1, top + 1, 0, 0
        for panel in row.panels:
            if left + panel.width > COLUMNS:
                top, left, lowest = top + lowest, 0, 0
            yield _panel(panel, number, _place(left, top, panel.width, panel.height))
            number, left, lowest = number + 1, left + panel.width, max(lowest, panel.height)
        top += lowest


def _place(left: int, top: int, width: int, height: int) -> dict[str, int]:
    return {"x": left, "y": top, "w": width, "h": height}


def _panel(panel: Panel, number: int, place: dict[str, int]) -> dict[str, Any]:
    is_now = panel.kind in ("stat", "bargauge")
    targets = [
        {"refId": chr(ord("A") + at), "datasource": SOURCE, "expr": expression, "legendFormat": legend}
        | ({"instant": True, "range": False} if is_now else {"instant": False, "range": True})
        for at, (expression, legend) in enumerate(panel.queries)
    ]
    custom = {"fillOpacity": 20, "stacking": {"mode": "normal" if panel.stacked else "none"}}
    defaults: dict[str, Any] = {
        "unit": panel.unit,
        "thresholds": {"mode": "absolute", "steps": [{"value": at, "color": colour} for at, colour in panel.steps]},
        "color": {"mode": "thresholds" if is_now else "palette-classic"},
        "custom": custom if panel.kind == "timeseries" else {},
    }
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": SOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": _options(panel),
        "targets": targets,
    }


def _options(panel: Panel) -> dict[str, Any]:
    now = {"calcs": ["lastNotNull"], "fields": "", "values": False}
    match panel.kind:
        case "stat":
            return {"reduceOptions": now, "textMode": "name" if panel.shows_name else "value", "graphMode": "none"}
        case "bargauge":
            return {"reduceOptions": now, "orientation": "horizontal", "displayMode": "gradient"}
        case "state-timeline":
            return {"showValue": "never", "mergeValues": True}
        case _:
            return {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}}
