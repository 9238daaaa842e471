"""A real Prometheus scrapes real daemons, by the configuration, the rules and the dashboards that are shipped."""

import json
import os
import re
import subprocess
import sys
import time
from array import array
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple
from urllib.request import urlopen

import pytest
import yaml

from ksmtuned_py.policy.demand import DemandRecord, Moment
from ksmtuned_py.publish import capacityfile
from ksmtuned_py.units import GIB, MIB
from tests.publish.fleet.test_ask import answering
from tests.support.daemon import Daemon, Sections, free_port, merged, verb
from tests.support.need import need
from tests.support.process import wait_for
from tests.support.prometheus import Prometheus, promtool
from tests.support.trees import FakeGuest, make_fake_tree, put

ROOT = Path(__file__).parent.parent.parent
PLACE = ROOT / "packaging/prometheus"
DASHBOARDS = ROOT / "packaging/grafana"
TREE, MODEL, DOWN = "127.0.0.1", "127.0.0.2", "127.0.0.3"
"""The hosts: one on a made-up tree, one on a model, and one that does not answer."""
BRISK: Sections = {"daemon": {"tick_seconds": 0.2, "idle_tick_seconds": 0.2}}
SECOND = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
UP_SECONDS = 86_400.0
LONG_UP = ("unshare", "--time", "--monotonic", str(int(UP_SECONDS)))
"""What has a command find the machine up for a day more: its record is longer than many a machine has been up."""
LABEL_VALUES = re.compile(r"label_values\((\w+), (\w+)\)")


class Watched(NamedTuple):
    """The hosts under watch."""

    prometheus: Prometheus
    pages: dict[str, str]
    """Where each daemon's metrics are."""


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """Two daemons and a Prometheus that has scraped them for some seconds."""
    place = tmp_path_factory.mktemp("watched")
    addresses = {host: f"{host}:{free_port()}" for host in (TREE, MODEL, DOWN)}
    tree = make_fake_tree(place / "tree", guests=[FakeGuest(pid=1001, name="web")], run=1)
    put(tree, "proc/1001/smaps_rollup", "Rss: 4096 kB\nAnonHugePages: 2048 kB\n")
    inventory = json.dumps([{"targets": [addresses[MODEL]]}])
    with ExitStack() as stack:
        keep_record(place / "a/runtime")
        sections = merged(BRISK, metrics(addresses[TREE]))
        stack.enter_context(Daemon(place / "a", sections, root=tree, before=long_up()))
        model = ("--backend", "model")
        stack.enter_context(Daemon(place / "b", merged(BRISK, metrics(addresses[MODEL])), *model))
        server = stack.enter_context(answering(inventory, 200, **{"Content-Type": "application/json"}))
        (place / "prometheus/targets").mkdir(parents=True)
        (place / "prometheus/targets/hosts.yml").write_text(
            yaml.safe_dump([{"targets": [addresses[TREE], addresses[DOWN]]}])
        )
        prometheus = stack.enter_context(Prometheus(place / "prometheus", configuration(server.url)))
        prometheus.wait_ready()
        enough = "count_over_time(ksmtuned_last_tick_timestamp_seconds[1m]) >= 5"
        wait_for(lambda: len(prometheus.query(enough)) == 2, 60, "scrapes", every_seconds=0.3)
        wait_for(lambda: prometheus.query("ksmtuned_capacity_guests"), 60, "the capacity", every_seconds=0.3)
        yield Watched(prometheus, {host: f"http://{addresses[host]}/metrics" for host in (TREE, MODEL)})


def keep_record(runtime: Path) -> None:
    """Writes down eight hours of the made-up tree, without which nobody could tell how many more guests fit."""
    record, now = DemandRecord(), time.monotonic() + UP_SECONDS
    for minute in range(480):
        own = array("Q", [GIB + minute % 7 * MIB])
        record.add(Moment(now - 28_800 + 60 * minute, {"": 8 * GIB}, ("1001:5000",), own, 0.5))
    runtime.mkdir(parents=True, mode=0o755)
    capacityfile.write(runtime / capacityfile.NAME, record)


def long_up() -> list[str]:
    """Returns LONG_UP, as one may use it here."""
    before = [*LONG_UP, *([] if os.geteuid() == 0 else ["--map-root-user"])]
    command = [*before, sys.executable, "-c", "import time; print(time.monotonic())"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    need(float(done.stdout or 0) >= UP_SECONDS, "a kernel that gives a program a clock of its own")
    return before


def metrics(address: str) -> Sections:
    return {"metrics": {"address": address}}


def configuration(inventory: str) -> dict[str, Any]:
    """What is shipped, with an interval of a second, the inventory of this test, and no time to wait for alerts."""
    config: dict[str, Any] = yaml.safe_load((PLACE / "prometheus.yml").read_text())
    config["global"] = SECOND
    config["rule_files"] = [str(PLACE / name) for name in config["rule_files"]]
    config["scrape_configs"][0]["http_sd_configs"][0]["url"] = inventory
    return config


def panels(name: str) -> list[dict[str, Any]]:
    return [panel for panel in dashboard(name)["panels"] if panel["type"] != "row"]


def dashboard(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((DASHBOARDS / f"{name}.json").read_text())
    return found


def filled(expression: str, host: str) -> str:
    return expression.replace("$instance", host).replace("$__rate_interval", "10s")


def unanswered(prometheus: Prometheus, name: str, host: str = "") -> set[str]:
    """Returns the questions of a dashboard that have no answer."""
    asked = [target["expr"] for panel in panels(name) for target in panel["targets"]]
    assert len(asked) > 15
    return {expression for expression in asked if not prometheus.query(filled(expression, host))}


def test_every_panel_of_the_host_has_data(watched: Watched) -> None:
    """A model has no pressure, no huge pages and no record, and on a made-up tree nothing ever happens."""
    lacking = unanswered(watched.prometheus, "host", MODEL)
    assert {re.split(r"[{(]", expression)[0] for expression in lacking} <= {
        "ksmtuned_pressure_ratio",
        "ksmtuned_cpu_pressure_ratio",
        "ksmtuned_capacity_guests",
        "ksmtuned_capacity_exceeded_chance_ratio",
        "topk",
    }
    assert lacking & unanswered(watched.prometheus, "host", TREE) == set()


def test_every_panel_of_the_fleet_has_data(watched: Watched) -> None:
    assert unanswered(watched.prometheus, "fleet") == set()


@pytest.mark.parametrize("name", ["host", "fleet"])
def test_how_many_more_guests_fit_is_among_the_panels(watched: Watched, name: str) -> None:
    asked = [target["expr"] for panel in panels(name) for target in panel["targets"]]
    capacity = [expression for expression in asked if "ksmtuned_capacity_" in expression]
    assert len(capacity) >= 2
    assert all(watched.prometheus.query(filled(expression, TREE)) for expression in capacity)


def test_the_variables_have_values(watched: Watched) -> None:
    [variable] = [each for each in dashboard("host")["templating"]["list"] if each["type"] == "query"]
    found = LABEL_VALUES.fullmatch(variable["query"]["query"])
    assert found
    assert watched.prometheus.ask(f"label/{found[2]}/values", **{"match[]": found[1]}) == [TREE, MODEL]


def test_every_panel_says_what_it_is_about_and_in_which_unit() -> None:
    for panel in [*panels("host"), *panels("fleet")]:
        defaults = panel["fieldConfig"]["defaults"]
        assert panel["description"].endswith(".")
        assert defaults["unit"] in {"bytes", "percentunit", "s", "ops", "short"}
        assert defaults["thresholds"]["steps"][0]["value"] is None
        assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24


@pytest.mark.parametrize("host", [TREE, MODEL])
def test_promtool_finds_nothing_in_what_a_daemon_serves(watched: Watched, host: str) -> None:
    with urlopen(watched.pages[host], timeout=10) as page:
        text = page.read()
    assert b"ksmtuned_saved_bytes" in text
    assert promtool("check", "metrics", text=text) == ""


def test_the_rules_are_evaluated_and_know_who_does_not_answer(watched: Watched) -> None:
    groups = watched.prometheus.ask("rules")["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert {rule["health"] for rule in rules} == {"ok"}
    active = {
        (alert["labels"]["alertname"], alert["labels"]["instance"], alert["state"])
        for rule in rules
        for alert in rule.get("alerts", [])
    }
    assert ("KsmtunedDown", DOWN, "pending") in active
    assert {name for name, *_ in active} <= {"KsmtunedDown", "KsmtunedTicksLate"}  # late, where the machine is busy
    assert watched.prometheus.query("instance:ksmtuned_room_left:bytes > 0")


def test_fleet_tells_what_prometheus_knows(watched: Watched) -> None:
    wait_for(lambda: len(watched.prometheus.query("up == 1")) == 2, 30, "scrapes in time", every_seconds=0.3)
    done = verb("fleet", "--prometheus", watched.prometheus.url, "--json")
    found = json.loads(done.stdout)
    hosts = {host["name"]: host for host in found["hosts"]}
    assert (done.returncode, done.stderr) == (1, "")
    assert found["sums"] | {"saved_bytes": 0, "debt_bytes": 0} == {
        "hosts": 3,
        "answering": 2,
        "odd": 1,
        "saved_bytes": 0,
        "debt_bytes": 0,
    }
    assert [oddity["code"] for oddity in hosts[DOWN]["odd"]] == ["down"]
    assert (hosts[MODEL]["mode"], hosts[MODEL]["guests"]) == ("manage", 4)
    assert hosts[MODEL]["saved_bytes"] > 0
    assert len(hosts[TREE]["config_hash"]) == 12
    table = verb("fleet", "--prometheus", watched.prometheus.url).stdout
    assert table.startswith("HOST ")
    assert f"\n{DOWN} " in table
    assert f"\n  {DOWN}: its daemon does not answer Prometheus\n" in table
