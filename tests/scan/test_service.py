"""The scan backend as a service: a systemd of its own, the unit and its drop-ins as they are shipped."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests.scan.test_zero import ZERO_MIB, ZERO_PAGES, Holder
from tests.scan.writers import Writer, stores
from tests.support.container import PACKAGES, PYTHON, ROOT, SOURCE, booted
from tests.support.ksmlock import KSM
from tests.support.process import wait_for
from tests.support.seccomp import KILL_PROCESS, NO_SUCH_CALL, returning
from tests.support.unit import Unit

UNIT = "/etc/systemd/system/ksmtuned-py.service"
GUEST = "/run/scanned-guest"
CONFIG = """
metrics.address = ""
guests = {{ name_patterns = ["scanned-guest*"], libvirt_uri = "", mergeable = false }}
daemon = {{ tick_seconds = 0.2, idle_tick_seconds = 0.2 }}
kernel.ksmd_nice = "keep"  # other tests may have all CPUs
scan = {{ reclaim = "{reclaim}", remap_guests = ["*"], remap_least_mib = 16 }}
"""
INSTALLED = f"""
[Service]
Environment=PYTHONPATH={SOURCE}
ExecStart=
ExecStart={PYTHON}/bin/python -m ksmtuned_py run --backend scan
ExecStopPost=
ExecStopPost={PYTHON}/bin/python -m ksmtuned_py restore
"""
"""Lets the unit run the source as if it were installed in /usr/bin."""
SECONDS = 60.0
ENVIRONMENT = (f"PYTHONPATH={PACKAGES}:{SOURCE}", "WRITER_IDLE_SECONDS=0.05")
"""The guests' environment. Writers idle, or what is equal in them is gone before a busy machine has merged it."""


class Service(Unit):
    """The service in its container, with guests beside it."""

    def guest(self, *words: str) -> list[str]:
        """Returns the command line of a guest inside."""
        return self.container.inside("env", *ENVIRONMENT, GUEST, *words)

    def writer(self, *words: str) -> "WriterInside":
        """Starts a guest inside that always writes."""
        return WriterInside("writer", command=self.guest(*words))

    def counter(self, name: str) -> int:
        """Returns one of the counters that ksmd would have; 0 before the first look."""
        found = self.status()
        return int(found["snapshot"]["counters"][name] or 0) if found else 0


class WriterInside(Writer):
    """A guest inside, of which this process knows only the command that has entered the container for it."""

    @property
    def pid(self) -> int:
        return psutil.Process(self.process.pid).children()[0].pid

    def __exit__(self, *_: object) -> None:
        # It ends with its standard input. Killed, it would be left to this process, and its container wait for that.
        self.process.communicate(timeout=SECONDS)


@contextmanager
def service(directory: Path, reclaim: str, drop_ins: Sequence[str], setting: str = "") -> Iterator[Service]:
    """Yields the service in a container, not started yet; the setting is of somebody who wants it to have less."""
    config, installed = directory / "config.toml", directory / "installed.conf"
    config.write_text(CONFIG.format(reclaim=reclaim))
    installed.write_text(f"{INSTALLED}{setting}\n")
    files = [(config, "/etc/ksmtuned-py/config.toml"), (installed, f"{UNIT}.d/installed.conf")]
    files += [(ROOT / "systemd" / name, f"{UNIT}.d/{name}") for name in drop_ins]
    with booted([(ROOT / "systemd/ksmtuned-py.service", UNIT), *files]) as container:
        container.run("ln", "-s", "/usr/bin/python3", GUEST)
        yield Service(container, KSM)


@pytest.mark.parametrize("drop_ins", [[], ["scan.conf"]], ids=["unit", "memory"])
def test_zero_takes_the_rights_of_the_unit(zram_swap: None, tmp_path: Path, drop_ins: list[str]) -> None:
    with (
        service(tmp_path, "zero", drop_ins) as daemon,
        Holder("zeros", ZERO_MIB, program=daemon.guest("tests/scan/holder.py")) as guest,
    ):
        daemon.start()
        wait_for(lambda: daemon.counter("ksm_zero_pages") >= 0.95 * ZERO_PAGES, SECONDS, "pages given back")
        assert guest.wrong_pages() == 0
        daemon.stop()


def test_without_the_right_the_reason_is_told(zram_swap: None, tmp_path: Path) -> None:
    with (
        service(tmp_path, "zero", [], "CapabilityBoundingSet=~CAP_SYS_NICE") as daemon,
        Holder("zeros", ZERO_MIB, program=daemon.guest("tests/scan/holder.py")),
    ):
        daemon.start()
        wait_for(lambda: "CAP_SYS_NICE is missing" in str(daemon.status()), SECONDS, "reason")
        daemon.stop()


def test_remap_without_its_own_is_refused_and_kills_no_worker(root: None, tmp_path: Path) -> None:
    with service(tmp_path, "remap", ["scan.conf"]) as daemon, daemon.writer("tests/scan/writer.py", "64") as one:
        daemon.start()
        wait_for(lambda: "(systemd/scan_remap.conf)" in daemon.journal(), SECONDS, "reason")
        assert "worker has died" not in daemon.journal()
        daemon.stop()
        assert one.check()["wrong"] == 0


def test_remap_takes_both(root: None, tmp_path: Path) -> None:
    harmless = returning(KILL_PROCESS, [NO_SUCH_CALL]).hex()
    with (
        service(tmp_path, "remap", ["scan.conf", "scan_remap.conf"]) as daemon,
        daemon.writer("tests/scan/writer.py", "64") as one,
        daemon.writer("-m", "tests.scan.sandboxed", "64", harmless) as other,
    ):
        daemon.start()
        wait_for(lambda: min(len(stores(each)) for each in (one, other)), SECONDS, "pages shared by both")
        wait_for(lambda: daemon.counter("pages_sharing") > 2 * 64 * 256 / 4, SECONDS, "shared pages in the counters")
        daemon.stop()
        assert one.check()["wrong"] == other.check()["wrong"] == 0
