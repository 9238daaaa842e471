"""Runs the daemon on the kernel of an emulated machine, from the arrival of two guests to its end.

It prints what was seen. The arguments are the MiB of each guest that no other has, and the seconds for which the
resting scanner is judged.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from ksmtuned_py.backends.ksmd import find_ksmd
from ksmtuned_py.cli.workload import Mix, achievable_pages, workloads
from ksmtuned_py.door import Door
from ksmtuned_py.units import MIB
from tests.support.daemon import Daemon, Sections
from tests.support.process import wait_for

KSM = Path("/sys/kernel/mm/ksm")
BOOST_PERCENT, CRUISE_PERCENT = 10, 2
"""Shares below the defaults. Idle time costs nothing in an emulated machine, so a longer time can be judged."""
SECTIONS: Sections = {
    "metrics": {"address": ""},
    # Programs begin so slowly here that the looks at a new process may be over before it says who it is.
    "guests": {"mergeable_rescan_seconds": 5},
    "adaptive": {"pass_gap_seconds": 1, "profile": "eager"},  # the others would leave guests with huge pages alone
    "adaptive.eager.boost_percent": {"calm": BOOST_PERCENT},
    "adaptive.eager.cruise_percent": {"calm": CRUISE_PERCENT},
}
EQUAL_BYTES = 12 * MIB
LEARNING_SECONDS = 4.0
"""The time for learning what a page costs, 20 times as much here as the daemon believes at its start."""
PATIENCE_SECONDS = 60.0


def main(unique_mib: int, rest_seconds: float) -> None:
    """Run the daemon, and print one line of JSON."""
    before, mixes = knobs(), [Mix(equal_bytes=EQUAL_BYTES, unique_bytes=unique_mib * MIB)] * 2
    found: dict[str, object] = {"counts_pages": (KSM / "pages_scanned").exists()}
    with TemporaryDirectory() as scratch, Daemon(Path(scratch), SECTIONS) as daemon:
        wait_mode(daemon, "off")
        with workloads(mixes, comm="kvm"):
            wait_mode(daemon, "boost")
            time.sleep(LEARNING_SECONDS)
            found["boost"] = share(lambda: wait_mode(daemon, "cruise", "rest"))
            found["merged"] = int((KSM / "pages_sharing").read_text()) / achievable_pages(mixes)
            found["rest"] = share(lambda: time.sleep(rest_seconds))
            found["exit_code"] = daemon.end(seconds=PATIENCE_SECONDS)
            found["as_found"] = knobs() == before
    print(json.dumps(found))


def wait_mode(daemon: Daemon, *modes: str) -> None:
    """Wait until the daemon is in one of these modes. It is not asked often, because that takes time in here."""
    wait_for(
        lambda: daemon.status().get("decision", {}).get("mode") in modes,
        PATIENCE_SECONDS,
        " or ".join(modes),
        every_seconds=0.25,
        said=daemon.output,
    )


def share(act: Callable[[], object]) -> float:
    """ksmd's share of one core during an act, by the scheduler's account."""
    ksmd = Path(f"/proc/{find_ksmd(Door())}/schedstat")
    before, begun = ksmd.read_text(), time.monotonic()
    act()
    cpu_ns = int(ksmd.read_text().split()[0]) - int(before.split()[0])
    return cpu_ns / 1e9 / (time.monotonic() - begun)


def knobs() -> dict[str, str]:
    """Every knob with its text."""
    return {file.name: file.read_text() for file in KSM.iterdir() if file.stat().st_mode & 0o200}


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]))
