"""The rules for Prometheus: promtool has nothing against them, each alert is tried, and has a page of what to do."""

import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from ksmtuned_py.publish.catalogue import rows
from ksmtuned_py.publish.metrics import PREFIX
from tests.support.prometheus import promtool

ROOT = Path(__file__).parent.parent.parent
PLACE = ROOT / "packaging/prometheus"
RULES, TESTS = PLACE / "ksmtuned-py.rules.yml", PLACE / "ksmtuned-py.tests.yml"
RUNBOOKS = ROOT / "docs/runbooks"
METRIC = re.compile(r"(?<![:\w])ksmtuned_\w+")


@cache
def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def alerts() -> list[dict[str, Any]]:
    return [rule for rule in rules() if "alert" in rule]


@pytest.mark.parametrize(
    "check",
    [("check", "config", PLACE / "prometheus.yml"), ("check", "rules", RULES), ("test", "rules", TESTS)],
    ids=lambda check: f"{check[0]} {check[1]}",
)
def test_promtool_finds_nothing(check: tuple[str | Path, ...]) -> None:
    assert promtool(*check) == ""


def test_each_alert_is_tried_where_it_fires_and_beside_it() -> None:
    fired: dict[str, set[str]] = {}
    seen: dict[str, set[str]] = {}
    for test in yaml.safe_load(TESTS.read_text())["tests"]:
        instances = set(re.findall(r'instance="(\w+)"', str(test["input_series"])))
        for trial in test.get("alert_rule_test", []):
            name = trial["alertname"]
            fired.setdefault(name, set()).update(each["exp_labels"]["instance"] for each in trial["exp_alerts"])
            seen.setdefault(name, set()).update(instances)
    named = {rule["alert"] for rule in alerts()}
    assert len(named) == 9
    assert {name for name, instances in fired.items() if instances} == named
    assert {name for name in named if not seen[name] - fired[name]} == set()


def test_each_alert_says_how_bad_it_is_and_what_to_do() -> None:
    pages = set()
    overview = (ROOT / "docs/monitoring.md").read_text()
    for rule in alerts():
        told, severity = rule["annotations"], rule["labels"]["severity"]
        assert set(told) == {"summary", "description", "runbook_url"}
        assert severity in {"critical", "warning"}
        page = RUNBOOKS / told["runbook_url"].rpartition("/docs/runbooks/")[2]
        assert page.read_text().startswith(f"# {rule['alert']}: ")
        assert f"| [{rule['alert']}](runbooks/{page.name}) | {severity} |" in overview
        pages.add(page)
    assert pages == set(RUNBOOKS.iterdir())


def test_each_page_says_what_it_means_what_to_look_at_and_what_to_do() -> None:
    for page in RUNBOOKS.iterdir():
        assert re.findall("^## (.+)$", page.read_text(), re.MULTILINE) == [
            "What it means",
            "What to look at",
            "What to do",
        ]


def test_the_metrics_that_are_named_are_there() -> None:
    known = {PREFIX + row.name + ("_total" if row.kind == "counter" else "") for row in rows(1)}
    known |= {"ksmtuned_tick_duration_seconds"}
    texts = [RULES, TESTS, ROOT / "docs/monitoring.md", *RUNBOOKS.iterdir()]
    named = {metric for text in texts for metric in METRIC.findall(text.read_text())}
    assert len(named) > 30
    assert named - known == set()
