"""Which hosts are odd: what is wrong on one alone, and what is otherwise on most."""

from collections.abc import Sequence
from dataclasses import replace
from random import Random

import pytest

from ksmtuned_py.publish.fleet.hosts import FleetHost
from ksmtuned_py.publish.fleet.judge import judge
from ksmtuned_py.units import GIB

WELL: dict[str, float] = {
    "saved_bytes": 20.0 * GIB,
    "debt_bytes": 20.0 * GIB,
    "could_find_bytes": 80.0 * GIB,
    "profit_bytes": 19.0 * GIB,
    "memory_bytes": 256.0 * GIB,
    "guests": 30.0,
    "scanner_cpu_ratio": 0.02,
    "huge_pages_lost": 100.0,
    "ticks_late": 0.0,
    "foreign_writes": 0.0,
    "cow_storm": 0.0,
    "knobs_not_restored": 0.0,
}


def host(name: str = "odd", /, **figures: float) -> FleetHost:
    """Returns a host that is as most are, but for some figures."""
    known = {**WELL, **figures}
    return FleetHost(name=name, version="1.0", config_hash="f00", mode="manage", figures=known)  # type: ignore[arg-type] # its keys are figures


FLEET = tuple(host(f"kvm{number}") for number in range(10))


def codes(odd: FleetHost, others: Sequence[FleetHost] = FLEET) -> list[str]:
    """Returns why a host is odd among others, of which none is."""
    judged = judge([*others, odd])
    assert {each.host.name for each in judged if each.oddities} <= {odd.name}
    return [oddity.code for each in judged for oddity in each.oddities]


def sentence(odd: FleetHost) -> str:
    [said] = [oddity.sentence for each in judge([*FLEET, odd]) for oddity in each.oddities]
    return said


def test_a_host_like_all_others_is_not_odd() -> None:
    assert codes(host()) == []


@pytest.mark.parametrize(
    ("figures", "code", "said"),
    [
        ({"could_find_bytes": 19.0 * GIB}, "debt", "its debt is 20 GiB, and it could find 19 GiB"),
        ({"profit_bytes": -2.0 * GIB}, "profit", "merging takes 2 GiB more than it saves"),
        ({"foreign_writes": 2.02}, "foreign_writer", "somebody else wrote its knobs 2 times in the last hour"),
        ({"cow_storm": 1.0}, "cow_storm", "its guests write to many merged pages"),
        ({"knobs_not_restored": 2.0}, "knobs_not_restored", "2 knobs are as an earlier daemon has left them"),
        ({"scanner_cpu_ratio": 0.5}, "scanner_cpu", "its scanner takes 50 % of a core, the median is 2 %"),
        ({"huge_pages_lost": 9e4}, "huge_pages_lost", "it lost 90000 huge pages in the last hour, the median is 100"),
        ({"ticks_late": 40.0}, "ticks_late", "40 ticks were late in the last hour, the median is 0"),
        ({"saved_bytes": 0.0}, "saves_little", "it saves 0 % of its memory, the median is 7.81 %"),
    ],
    ids=lambda value: value if isinstance(value, str) and " " not in value else "",
)
def test_each_reason_has_its_sentence(figures: dict[str, float], code: str, said: str) -> None:
    assert codes(host(**figures)) == [code]
    assert sentence(host(**figures)) == said


def test_another_version_another_mode_another_configuration() -> None:
    assert sentence(replace(host(), version="0.9", config_hash="old")) == "it runs 0.9, most run 1.0"
    assert sentence(replace(host(), config_hash="bad")) == "its configuration is bad, most have f00"
    assert sentence(replace(host(), mode="observe", config_hash="bad")) == (
        "its mode is observe, on most hosts it is manage"
    )


def test_while_half_of_the_hosts_are_upgraded_none_is_odd() -> None:
    halves = [replace(each, version="2.0") if number % 2 else each for number, each in enumerate(FLEET)]
    assert not any(each.oddities for each in judge(halves))


def test_of_a_host_that_does_not_answer_nothing_else_is_told() -> None:
    assert codes(replace(host(profit_bytes=-1.0, scanner_cpu_ratio=1.0), answers=False, version="")) == ["down"]


def test_what_nobody_would_mind_is_not_odd_however_rare_it_is() -> None:
    assert codes(host(scanner_cpu_ratio=0.029, huge_pages_lost=600.0, ticks_late=2.0)) == []
    assert codes(host(saved_bytes=18.0 * GIB)) == []


def test_little_cpu_and_much_saved_are_not_odd() -> None:
    busy = [replace(each, figures={**each.figures, "scanner_cpu_ratio": 0.3}) for each in FLEET]
    assert codes(host(scanner_cpu_ratio=0.0, saved_bytes=79.0 * GIB, debt_bytes=79.0 * GIB), busy) == []


def test_of_few_hosts_none_is_compared() -> None:
    assert codes(host(scanner_cpu_ratio=0.9), FLEET[:3]) == []
    assert codes(host(scanner_cpu_ratio=0.9), FLEET[:4]) == ["scanner_cpu"]


def test_what_is_not_known_is_not_odd() -> None:
    assert codes(replace(host(), figures={})) == []


def test_a_third_of_the_hosts_cannot_hide_that_they_are_odd() -> None:
    chance = Random(1)
    usual = [host(f"kvm{number}", scanner_cpu_ratio=max(0.0, chance.gauss(0.05, 0.01))) for number in range(700)]
    odd = [host(f"odd{number}", scanner_cpu_ratio=0.4 + number / 1000) for number in range(300)]
    found = {each.host.name for each in judge([*usual, *odd]) if each.oddities}
    assert {each.name for each in odd} <= found
    assert len(found) < 310


def test_odd_hosts_come_first_and_then_those_at_risk() -> None:
    calm, risky, odd = host("calm"), host("risky", could_find_bytes=21.0 * GIB), host("odd", cow_storm=1.0)
    down = FleetHost(name="down", answers=False, figures={})
    assert [each.host.name for each in judge([calm, risky, odd, down])] == ["down", "odd", "risky", "calm"]


def test_of_no_host_there_is_nothing_to_say() -> None:
    assert judge([]) == ()
