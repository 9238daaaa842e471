"""The verb `demo` saves memory on the real kernel, says so, and leaves nothing behind."""

import signal
from pathlib import Path

import pytest

from tests.support.daemon import KSMTUNED, verb
from tests.support.ksmlock import RealKsm, knobs
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
    assert "50 % after " in lines[-1]
    assert knobs() == before
    assert (real_ksm.number("pages_shared"), real_ksm.number("pages_volatile")) == (0, 0)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_can_be_stopped_at_any_time(real_ksm: RealKsm, tmp_path: Path, number: signal.Signals) -> None:
    before = knobs()
    with Program([*KSMTUNED, *SMALL, "--seconds", "60"], tmp_path) as demo:
        demo.wait_output("boosting at ")
        assert demo.end(number, 30) == 0
    assert knobs() == before
    assert "saved" in demo.stdout.read_text().splitlines()[-1]
