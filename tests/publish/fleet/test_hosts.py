"""Prometheus is asked of all hosts at once, and its answers become hosts with figures."""

import math
import re

import pytest

from ksmtuned_py.publish.catalogue import rows
from ksmtuned_py.publish.fleet.hosts import (
    FIGURES,
    JOBS_QUERY,
    LEVELS,
    SUMS,
    Answers,
    Figure,
    FleetHost,
    Series,
    hosts_in,
    jobs_in,
    queries,
)
from ksmtuned_py.publish.metrics import PREFIX


def answers(**given: list[Series]) -> Answers:
    """Returns the answers to all questions, of which most are empty."""
    return {name: given.get(name, []) for name in queries([])}


def of(instance: str, value: float = 1.0, **labels: str) -> Series:
    return Series({"instance": instance, **labels}, value)


def level(figure: Figure, instance: str, value: float) -> Series:
    return of(instance, value, __name__=LEVELS[figure])


def test_all_that_is_asked_for_is_in_the_catalogue() -> None:
    catalogue = {PREFIX + row.name + ("_total" if row.kind == "counter" else "") for row in rows(1)}
    asked = set(re.findall(r"ksmtuned_\w+", " ".join([JOBS_QUERY, *queries([]).values()])))
    assert len(asked) > len(FIGURES)
    assert asked <= catalogue


def test_there_are_as_many_questions_for_any_number_of_hosts() -> None:
    assert len(queries([])) == len(queries(["a", "b"])) == len(SUMS) + 4
    assert sorted([*LEVELS, *SUMS]) == sorted(FIGURES)


def test_a_host_is_what_answers_and_what_should() -> None:
    found = hosts_in(
        answers(
            up=[of("a"), of("b", 0.0)],
            build=[of("a", version="1"), of("c", version="2")],
            config=[of("a", hash="f00", mode="manage")],
            levels=[level("saved_bytes", "a", 12.0), level("saved_bytes", "gone", 5.0), of("a", 7.0)],
            ticks_late=[of("a", 3.0)],
        )
    )
    assert found == (
        FleetHost(
            name="a", version="1", config_hash="f00", mode="manage", figures={"saved_bytes": 12.0, "ticks_late": 3.0}
        ),
        FleetHost(name="b", answers=False, figures={}),
        FleetHost(name="c", version="2", figures={}),
    )


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e308])
def test_a_figure_that_no_host_has_is_not_known(value: float) -> None:
    [host] = hosts_in(answers(build=[of("a")], levels=[level("profit_bytes", "a", value)]))
    assert host.get("profit_bytes") is None


def test_a_host_may_say_anything() -> None:
    [host] = hosts_in(
        answers(build=[of("\x1b[2J\nroot", version="\x1b" * 9999)], config=[of("\x1b[2J\nroot", hash="\r")])
    )
    assert host.name == "\\x1b[2J\\nroot"
    assert len(host.version) == 400
    assert (host.version + host.config_hash).isprintable()


def test_the_risk_is_the_debt_for_what_could_be_found() -> None:
    assert FleetHost(name="a", figures={"debt_bytes": 3.0, "could_find_bytes": 4.0}).risk == 0.75
    assert FleetHost(name="a", figures={"debt_bytes": 3.0, "could_find_bytes": 0.0}).risk == 3.0
    assert FleetHost(name="a", figures={"debt_bytes": 3.0}).risk is None


def test_a_host_without_guests_has_nothing_to_save() -> None:
    figures = {"saved_bytes": 1.0, "memory_bytes": 4.0}
    assert FleetHost(name="a", figures={**figures, "guests": 2.0}).saved_share == 0.25  # type: ignore[dict-item] # its keys are figures
    assert FleetHost(name="a", figures={**figures, "guests": 0.0}).saved_share is None  # type: ignore[dict-item] # so here


def test_jobs_are_those_of_hosts_that_answer() -> None:
    assert jobs_in([Series({"job": "a"}, 3.0), Series({}, 1.0)]) == ["a"]
    asked = queries(['kvm "x" {}.*', *(f"job-{number:03}" for number in range(100))])["up"]
    assert asked.startswith('max by (instance) (up{job=~"(.+/)?ksmtuned-py|job\\\\-000|')
    assert asked.count("|") == 20
