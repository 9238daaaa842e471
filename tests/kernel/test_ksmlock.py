"""The lock on the real KSM, and what it leaves behind: each can fail, as is shown here."""

import json
import subprocess
import sys

import pytest

from ksmtuned_py.cli.workload import Mix, achievable_pages, workloads
from ksmtuned_py.units import MIB
from tests.support.ksmlock import RealKsm, knobs, knobs_at_rest, locked_ksm, need_real_ksm


@pytest.mark.kernel
def test_real_ksm_merges_and_others_see_that_it_is_taken(real_ksm: RealKsm) -> None:
    mixes = [Mix(equal_bytes=8 * MIB, zero_bytes=2 * MIB, unique_bytes=2 * MIB)] * 3
    with workloads(mixes) as children_:
        for name, value in {"smart_scan": 0, "pages_to_scan": 5000, "sleep_millisecs": 5, "run": 1}.items():
            real_ksm.write(name, value)
        real_ksm.wait_saved(achievable_pages(mixes), 30)
        assert knobs_at_rest() is None
        assert [child.wrong_pages() for child in children_] == [0, 0, 0]


MESS = {"merge_across_nodes": 0, "max_page_sharing": 20, "pages_to_scan": 777, "advisor_mode": "scan-time", "run": 1}
KILLED_HOLDER = """
import json, os, signal
from tests.support.ksmlock import locked_ksm, knobs
with locked_ksm() as ksm:
    print(json.dumps(knobs()), flush=True)
    ksm.write("pages_to_scan", 777)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def fail_in_a_mess(found: dict[str, str]) -> None:
    """Leave a mess, as a bad test does; `found` gets the knobs as they were."""
    with locked_ksm() as ksm:
        found.update(knobs())
        for name, value in MESS.items():
            if name in found:
                ksm.write(name, value)
        raise ZeroDivisionError


@pytest.mark.kernel
def test_a_test_that_fails_in_a_mess_leaves_the_knobs_as_they_were() -> None:
    need_real_ksm()
    before: dict[str, str] = {}
    with pytest.raises(ZeroDivisionError):
        fail_in_a_mess(before)
    assert knobs_at_rest() in (before, None)  # None when somebody else has taken the lock since


@pytest.mark.kernel
def test_a_holder_that_was_killed_is_mended_by_the_next() -> None:
    need_real_ksm()
    killed = subprocess.run([sys.executable, "-c", KILLED_HOLDER], stdout=subprocess.PIPE, check=False)
    assert killed.returncode == -9
    assert knobs_at_rest() is None
    with locked_ksm():
        assert knobs() == json.loads(killed.stdout)
