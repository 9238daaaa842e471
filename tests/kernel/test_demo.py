"""The verb `demo` saves memory on the real kernel, says so, and leaves nothing behind."""

import re
import signal
from pathlib import Path

import pytest

from ksmtuned_py.door import Door
from ksmtuned_py.guests.hugepages import read_huge_pages
from tests.support.daemon import KSMTUNED, verb
from tests.support.ksmlock import RealKsm, knobs
from tests.support.need import need
from tests.support.process import Program

pytestmark = pytest.mark.kernel

SMALL = ("demo", "--guests", "2", "--size", "32")


def test_it_shows_what_is_saved_and_puts_everything_back(real_ksm: RealKsm) -> None:
    real_ksm.write("pages_to_scan", 777)
    before = knobs()
    done = verb(*SMALL, "--seconds", "5")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert "boosting at 95 % of a core: new guest" in lines[0]
    assert any("50 % after " in line for line in lines)
    assert knobs() == before
    assert (real_ksm.number("pages_shared"), real_ksm.number("pages_volatile")) == (0, 0)


def test_it_says_what_it_costs_and_who_would_not_do_it(real_ksm: RealKsm) -> None:
    need(read_huge_pages(Door()).enabled != "never", "transparent huge pages")
    lines = verb(*SMALL, "--seconds", "5").stdout.splitlines()
    (split,) = re.findall(r"(\d+) huge pages were split", lines[-2])
    assert int(split) >= 2 * 16 / 2  # half of two guests of 32 MiB merges
    assert "balanced, leaves guests alone" in lines[-1]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_can_be_stopped_at_any_time(real_ksm: RealKsm, tmp_path: Path, number: signal.Signals) -> None:
    before = knobs()
    with Program([*KSMTUNED, *SMALL, "--seconds", "60"], tmp_path) as demo:
        demo.wait_output("boosting at ")
        assert demo.end(number, 30) == 0
    assert knobs() == before
    assert "of what can be saved" in demo.stdout.read_text()
