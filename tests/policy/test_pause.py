"""Every policy obeys a pause, which is in force until its time and not longer."""

from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest

from ksmtuned_py.config import Config
from ksmtuned_py.config.types import PolicyName
from ksmtuned_py.door import Door
from ksmtuned_py.door.boot import boot_id
from ksmtuned_py.door.runtime import Runtime
from ksmtuned_py.errors import Garbage
from ksmtuned_py.model import Clock, Mode, Pause
from ksmtuned_py.policy import decide
from ksmtuned_py.policy.trend import Trend
from tests.support.snapshots import guest, snapshot


def at(seconds: float, put_back: float = 0) -> Clock:
    """The time since a boot in 1970, by a clock that was put back by so many seconds since."""
    return Clock(monotonic_seconds=seconds, unix_seconds=seconds - put_back)


@pytest.mark.parametrize("name", get_args(PolicyName))
def test_every_policy_obeys(name: str) -> None:
    config = Config.model_validate({"policy": {"name": name}})
    now = snapshot(guests=(guest(),))
    paused = replace(now, pause=Pause(until_unix_seconds=now.clock.unix_seconds + 3, reason="backup"))
    decision = decide(paused, Trend.begin(config).after(paused, config), config)
    assert (decision.mode, decision.rule, decision.knobs.run) == (Mode.OFF, "paused", 0)
    assert decision.reason == "off: paused for 3 s more (backup)"
    assert decision.next_tick_seconds <= 3  # it ends in time
    assert decide(now, Trend.begin(config).after(now, config), config).rule != "paused"


def test_it_is_over_at_its_time(tmp_path: Path) -> None:
    runtime = Runtime(tmp_path / "runtime")
    assert runtime.pause(at(0)) is None
    asked = Pause(until_unix_seconds=100, reason="backup")
    runtime.save_pause(asked)
    assert (runtime.pause(at(99)), runtime.pause(at(100))) == (asked, None)
    runtime.forget_pause()
    assert runtime.pause(at(99)) is None


def test_a_clock_that_was_put_back_does_not_prolong_it(tmp_path: Path) -> None:
    runtime = Runtime(tmp_path / "runtime")
    asked = Pause(until_unix_seconds=4000, until_monotonic_seconds=4000, reason="backup")
    runtime.save_pause(asked)
    assert runtime.pause(at(3999, put_back=1000)) == asked
    assert asked.left_seconds(at(3999, put_back=1000)) == 1
    assert runtime.pause(at(4000, put_back=1000)) is None


def test_a_clock_that_was_put_forward_does_not_end_it(tmp_path: Path) -> None:
    """A live migration goes on, whatever the clock says."""
    runtime = Runtime(tmp_path / "runtime")
    asked = Pause(until_unix_seconds=4000, until_monotonic_seconds=4000, boot_id=boot_id(Door()), reason="migration")
    runtime.save_pause(asked)
    assert runtime.pause(at(3999, put_back=-7200)) == asked
    assert asked.left_seconds(at(3999, put_back=-7200)) == 1
    assert runtime.pause(at(4000)) is None


def test_it_does_not_survive_a_reboot(tmp_path: Path) -> None:
    """Not even in a runtime directory that does: there the clock since boot begins anew."""
    runtime = Runtime(tmp_path / "runtime")
    runtime.save_pause(Pause(until_unix_seconds=4000, until_monotonic_seconds=4000, boot_id="other", reason="backup"))
    assert runtime.pause(at(100)) is None


@pytest.mark.parametrize("text", ["Infinity", "1e300", "31536000"])
def test_one_that_is_longer_than_any_is_none(text: str, tmp_path: Path) -> None:
    runtime = Runtime(tmp_path / "runtime")
    runtime.make()
    runtime.pause_path.write_text(f'{{"until_unix_seconds": {text}, "reason": "backup"}}')
    assert runtime.pause(at(0)) is None


def test_a_file_that_holds_none_is_an_error(tmp_path: Path) -> None:
    runtime = Runtime(tmp_path / "runtime")
    runtime.make()
    runtime.pause_path.write_text("{}")
    with pytest.raises(Garbage, match="wanted a pause"):
        runtime.pause(at(0))
