"""Scenarios run as expected, and the verb shows their results."""

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ksmtuned_py.cli.main import main
from ksmtuned_py.cli.policies import POLICIES
from ksmtuned_py.config import Config, Policy
from ksmtuned_py.configfile.text import toml_value
from ksmtuned_py.model import Mode
from ksmtuned_py.simulate.figures import figures
from ksmtuned_py.simulate.plot import NoPlot
from ksmtuned_py.simulate.run import SimulatedRun, SimulatedSample, simulate
from ksmtuned_py.simulate.scenario import (
    BadScenario,
    HostSize,
    NoScenario,
    Scenario,
    events,
    load,
    parse_scenario,
    shipped_names,
)
from ksmtuned_py.units import GIB

HOST = "[host]\ntotal_gib = 8\n"
TWO = 'title = "two"\nseconds = 120\n' + HOST + '[[guests]]\nname = "a"\ncount = 2\nmemory_gib = 0.5\n'


def scenario(text: str = TWO, **guests: Any) -> Scenario:
    return parse_scenario("test", text + "".join(f"{key} = {toml_value(value)}\n" for key, value in guests.items()))


def config(name: str) -> Config:
    return Config.model_validate({"policy": {"name": name}})


@pytest.mark.parametrize("name", shipped_names())
def test_shipped_scenarios_are_good_and_fit_into_their_host(name: str) -> None:
    loaded = load(name)
    most = sum(kind.count * kind.memory_gib for kind in loaded.guests)
    assert most < loaded.host.total_gib


def test_at_least_the_big_host_is_shipped() -> None:
    big = load("terabyte")
    assert sum(kind.count for kind in big.guests) == 500
    assert (big.host.total_gib, big.seconds) == (1024, 86400)


def test_guests_come_in_turn_and_are_replaced() -> None:
    seen = events(scenario(every_seconds=10, lifetime_seconds=50))
    assert [(event.seconds, event.name, event.comes) for event in seen[:6]] == [
        (0, "a-0", True),
        (10, "a-1", True),
        (50, "a-0", False),
        (50, "a-0.1", True),
        (60, "a-1", False),
        (60, "a-1.1", True),
    ]
    assert all(event.seconds < 120 or not event.comes for event in seen)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("title = ", "no valid TOML"),
        (TWO + "speed = 3\n", "guests.0.speed"),
        (TWO + "equal_percent = 90\nzero_percent = 20\n", "more than 100 together"),
        ('title = "x"\nseconds = 5\n' + HOST, "guests"),
    ],
)
def test_a_bad_scenario_names_what_is_wrong(text: str, words: str) -> None:
    with pytest.raises(BadScenario, match=words):
        parse_scenario("test", text)


def test_an_unknown_name_tells_the_shipped_ones() -> None:
    with pytest.raises(NoScenario) as caught:
        load("terrabyte")
    assert "terabyte" in caught.value.hint
    with pytest.raises(BadScenario, match="cannot be read"):
        load("/nonexistent/a.toml")


@pytest.mark.parametrize("name", POLICIES)
def test_every_policy_can_be_simulated_and_the_same_each_time(name: str) -> None:
    once, again = (simulate(scenario(), config(name), name) for _ in range(2))
    assert once.samples == again.samples
    assert once.samples[-1].seconds > 100


def test_adaptive_saves_what_can_be_saved() -> None:
    row = figures(scenario(), simulate(scenario(), config("adaptive"), "adaptive"))
    assert [reached.share for reached in row.reached] == [0.5, 0.9, 0.95]
    assert row.saved_area > 0.8
    assert row.longest_boost_pass_seconds is not None
    assert row.deciding_cpu < 0.01


def test_guests_that_come_later_are_noticed_at_once() -> None:
    late = scenario(every_seconds=33.5)
    run = simulate(late, config("adaptive"), "adaptive")
    assert next(sample.mode for sample in run.samples if sample.seconds == 33.5) is Mode.BOOST


def test_figures_by_hand() -> None:
    def sample(seconds: float, gib: float, passes: int, mode: Mode = Mode.BOOST) -> SimulatedSample:
        return SimulatedSample(seconds, round(gib * GIB), 10 * GIB, seconds / 2, passes, mode)

    samples = (sample(0, 0, 0), sample(40, 5, 1), sample(80, 10, 2, Mode.CRUISE), sample(120, 10, 3, Mode.CRUISE))
    row = figures(scenario(), SimulatedRun("x", samples, 1.2, 3))
    assert [(reached.seconds, reached.cpu_seconds) for reached in row.reached] == [(40, 20), (80, 40), (80, 40)]
    assert row.saved_area == pytest.approx((2.5 + 7.5 + 10) / 30)
    assert (row.longest_pass_seconds, row.longest_boost_pass_seconds) == (40, 40)
    assert row.deciding_cpu == pytest.approx(0.01)
    assert row.cpu_seconds == 60


def test_policies_of_the_command_line_are_those_of_the_configuration() -> None:
    annotation: Any = Policy.model_fields["name"].annotation
    assert set(POLICIES) == set(annotation.__args__)


def test_the_verb_prints_a_table_json_and_a_plot(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    file, plot = tmp_path / "two.toml", tmp_path / "two.svg"
    file.write_text(TWO.replace('"two"', '"two $_$ \\u001b[2J"'))
    arguments = ["simulate", str(file), "--config-dir", str(tmp_path / "none"), "--policy", "adaptive:eager"]
    (tmp_path / "none").mkdir()
    assert main([*arguments, "--policy", "ksmtuned", "--plot", str(plot)]) == 0
    text = capsys.readouterr().out
    assert "adaptive:eager" in text
    assert "saved area" in text
    assert r"two $_$ \x1b[2J" in text
    assert "<svg" in plot.read_text()
    assert main([*arguments, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["scenario"]["title"] == "two $_$ \x1b[2J"
    assert told["figures"][0]["saved_area"] > 0.8


def test_the_verb_lists_what_is_shipped(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate"]) == 0
    assert all(name in capsys.readouterr().out for name in ["terabyte"])


def test_a_bad_scenario_is_bad_input(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", "nothing-like-it"]) == 2
    assert "terabyte" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["a = " + "[" * 9999, f"a = {'1' * 9999}", "# long\n" * 9999, None])
def test_whatever_a_scenario_holds_is_one_error(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "s.toml"
    if text is None:
        path.symlink_to("/dev/zero")
    else:
        path.write_text(text)
    with pytest.raises(BadScenario, match=r"at most|no valid TOML"):
        load(str(path))


def test_without_matplotlib_the_plot_is_an_error_with_a_hint(tmp_path: Path) -> None:
    assert "bench" in NoPlot("x.svg", "matplotlib is not installed").hint


def test_guests_with_huge_pages_tell_what_merging_costs_them() -> None:
    plain, huge = (scenario(pages=pages) for pages in ("small", "mixed"))
    small = figures(plain, simulate(plain, config("fixed"), "fixed"))
    split = figures(huge, simulate(huge, config("fixed"), "fixed"))
    assert (small.huge_share, small.speed) == (None, None)
    assert split.huge_share is not None
    assert split.speed is not None
    assert split.huge_share < 1
    assert split.speed < 1


@given(st.floats(0, 1e4), st.floats(0, 1e4))
def test_others_take_memory_until_they_have_theirs(one: float, other: float) -> None:
    size = HostSize(total_gib=100, used_gib=4, filling_gib=50, filling_gib_per_second=0.1, filling_from_seconds=60)
    earlier, later = sorted((one, other))
    assert 4 <= size.used_now_gib(earlier) <= size.used_now_gib(later) <= 54
    assert (size.used_now_gib(60), size.used_now_gib(70), size.used_now_gib(600)) == (4, 5, 54)


def test_scenarios_are_installed_with_the_package() -> None:
    project = tomllib.loads((Path(__file__).parent.parent.parent / "pyproject.toml").read_text())
    assert "simulate/scenarios/*.toml" in project["tool"]["setuptools"]["package-data"]["ksmtuned_py"]
