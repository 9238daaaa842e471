"""The package on a bare Debian with a systemd of its own and the real knobs: from its installation to its purge.

The tests are one story, in their order: each leaves the service at work for the next. It is told of each Debian, and of
Ubuntu, with the package that is for it.
"""

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ksmtuned_py import __version__
from tests.packages.conftest import CONFIG, PACKAGES, STATE, Installed, build, system
from tests.packages.repack import repacked
from tests.support.process import wait_for
from tests.support.roots import UBUNTU
from tests.support.unit import SECONDS

pytestmark = pytest.mark.packages

NEWER = f"{__version__}+newer"
DROP_INS = "/etc/systemd/system/ksmtuned-py.service.d"
IMPATIENT = f"""
mkdir -p {DROP_INS}
printf '[Service]\\nWatchdogSec=2\\nRestartSec=2\\n' > {DROP_INS}/impatient.conf
systemctl daemon-reload
"""
"""From its next start on, the service is ended soon when it hangs, and begins again soon."""
PATIENT = f"rm -r {DROP_INS}; systemctl daemon-reload"
GUEST = """
import os, time
pages = [bytearray(bytes([number]) * 4096 * 1024) for number in (1, 1, 1, 2)]
print(os.getpid(), flush=True)
time.sleep(600)
"""
"""16 MiB of pages with two contents."""


PACKAGED = {"bookworm": "packages", UBUNTU: "ubuntus_packages"}
"""The fixtures with a package."""
LATER = [pytest.param(suite, marks=pytest.mark.packages_long) for suite in ("trixie", UBUNTU)]


@pytest.fixture(scope="module", params=["bookworm", *LATER])
def suite(request: pytest.FixtureRequest) -> str:
    """The name of a Debian: of 12, or of 13, whose own libraries are new enough. Or that of an Ubuntu."""
    return str(request.param)


@pytest.fixture(scope="module")
def built(suite: str, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the package for it."""
    if suite in PACKAGED:
        found: Path = request.getfixturevalue(PACKAGED[suite])
        return found
    directory = tmp_path_factory.mktemp("built")
    build(directory, "deb", "--flavour", "system")
    return directory


@pytest.fixture(scope="module")
def debian(suite: str, built: Path) -> Iterator[Installed]:
    """A bare one."""
    with system(suite, built) as one:
        yield one


@pytest.fixture(scope="module")
def before(debian: Installed) -> set[str]:
    """The files of the bare system."""
    return debian.files()


@pytest.fixture(scope="module")
def said(debian: Installed, built: Path, before: set[str]) -> str:
    """What is said while the package is installed."""
    return install(debian, built)


def install(debian: Installed, built: Path) -> str:
    """Installs the package with the one that it recommends, and not with all that those recommend."""
    package = next(built.glob("*_*_*.deb")).name
    return debian.apt_get("install", "--no-install-recommends", f"{PACKAGES}/{package}", "python3-systemd")


@pytest.fixture
def service(debian: Installed, said: str) -> Installed:
    """The installed service, at work."""
    assert debian.shows("ActiveState") == "active", said + debian.journal()
    return debian


@contextmanager
def guest(service: Installed) -> Iterator[None]:
    """A process with memory to merge, while a with block lasts."""
    command = service.container.inside("ksmtuned-py", "exec", "--", "/usr/bin/python3", "-c", GUEST)
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        pid = process.stdout.readline().strip()
        try:
            yield
        finally:
            service.shell(f"kill -KILL {pid}")


def steers(service: Installed) -> bool:
    """Whether the knobs are its own."""
    return service.knobs() != service.found


def gives_up(service: Installed) -> None:
    """Waits until the knobs are as found."""
    wait_for(lambda: service.knobs() == service.found, SECONDS, "knobs as found")


def begins_anew(service: Installed, pid: str) -> None:
    """Waits until another one is at work."""
    wait_for(lambda: service.shows("MainPID") not in ("0", pid) and steers(service), SECONDS, "another one at work")


def test_it_begins_as_one_that_watches(service: Installed, said: str) -> None:
    assert service.shows("SubState") == "running"
    assert service.shows("UnitFileState") == "enabled"
    assert service.shows("StatusText") == "off: 0 B saved, only watching"  # so it has notified
    service.wait_ticks(1)
    assert service.knobs() == service.found
    assert "it decides and explains, and writes nothing" in said
    wait_for(lambda: "history.sqlite" in service.shell(f"ls {STATE}"), SECONDS, "a past on the disk")
    assert "history" not in service.journal()


def test_the_line_that_is_said_switches_it_on(service: Installed, said: str) -> None:
    line = re.search(r"To switch it on: (.*)", said)
    assert line is not None
    service.shell(line[1])
    with guest(service):
        wait_for(lambda: int((service.ksm / "pages_sharing").read_text()) > 2000, SECONDS, "merging")
        assert service.knobs()["run"] == "1"
        assert "python3-" in service.shell("ksmtuned-py guests")
        wait_for(
            lambda: re.search(r"saved +[1-9]", service.shell("ksmtuned-py status")), SECONDS, "saved memory in status"
        )


def test_a_bad_reload_says_every_mistake_and_the_old_configuration_stays(service: Installed) -> None:
    pid, shown = service.shows("MainPID"), service.shell("ksmtuned-py check --show")
    service.shell(f"printf 'policy.name = \"fixt\"\\nfixed.pages_to_scan = 0\\n' > {CONFIG}/config.d/50-bad.toml")
    reload = service.container.ended("systemctl", "reload", "ksmtuned-py")
    assert reload.returncode != 0
    told = service.container.run("journalctl", "--no-pager", "--output=cat", "--unit=ksmtuned-py", "--lines=20")
    assert f"{CONFIG}/config.d/50-bad.toml:1: policy.name" in told
    assert f"{CONFIG}/config.d/50-bad.toml:2: fixed.pages_to_scan" in told
    assert (service.shows("MainPID"), service.shows("ActiveState")) == (pid, "active")
    service.shell(f"rm {CONFIG}/config.d/50-bad.toml")
    assert service.shell("ksmtuned-py check --show") == shown


def test_a_good_reload_is_in_force_at_once(service: Installed) -> None:
    pid = service.shows("MainPID")
    service.shell(f"printf 'policy.name = \"fixed\"\\nfixed.pages_to_scan = 777\\n' > {CONFIG}/config.d/60-fixed.toml")
    service.shell("systemctl reload ksmtuned-py")
    wait_for(lambda: service.knobs()["pages_to_scan"] == "777", SECONDS, "the new configuration")
    assert service.shows("MainPID") == pid


def test_killed_it_puts_the_knobs_back_and_begins_again(service: Installed) -> None:
    service.shell(IMPATIENT)
    pid = service.shows("MainPID")
    service.shell(f"kill -KILL {pid}")
    gives_up(service)
    begins_anew(service, pid)


def test_stopped_in_its_tracks_the_watchdog_ends_it_and_the_knobs_come_back(service: Installed) -> None:
    pid = service.shows("MainPID")
    service.shell(f"kill -STOP {pid}")
    gives_up(service)
    service.shell(PATIENT)
    begins_anew(service, pid)
    assert "watchdog" in service.journal().lower()


def test_an_upgrade_keeps_what_was_configured(service: Installed, built: Path) -> None:
    service.shell(f"echo '# mine' >> {CONFIG}/config.toml; ksmtuned-py pause --for 1h --reason upgrade")
    pid, past = service.shows("MainPID"), service.shell(f"ls -i {STATE}/history.sqlite")
    newer = repacked(next(built.glob("*_*_*.deb")), NEWER)
    said = service.apt_get("install", f"{PACKAGES}/{newer.name}")
    assert NEWER in service.shell("dpkg-query --show ksmtuned-py")
    assert service.shell(f"tail -n 1 {CONFIG}/config.toml") == "# mine\n"
    assert service.shell(f"ls {CONFIG}/config.d") == "60-fixed.toml\nREADME\n"  # so it stays switched on
    assert "To switch it on" not in said
    assert service.shows("MainPID") not in ("0", pid)
    assert "upgrade" in service.shell("ksmtuned-py status")
    assert service.shell(f"ls -i {STATE}/history.sqlite") == past
    assert service.knobs()["run"] == "0"
    service.shell("ksmtuned-py resume")
    wait_for(lambda: service.knobs()["pages_to_scan"] == "777", SECONDS, "the old configuration")


def test_a_purge_leaves_knobs_and_files_as_they_were(service: Installed, before: set[str]) -> None:
    service.shell(f"rm {CONFIG}/config.d/60-fixed.toml")
    wait_for(lambda: steers(service), SECONDS, "knobs of its own")
    service.apt_get("purge", "--autoremove", "ksmtuned-py", "python3-systemd")
    assert service.knobs() == service.found
    assert service.files() - before == set()
    assert service.container.run("find", "/run", "-name", "*ksmtuned*") == ""


@pytest.mark.packages_long
def test_it_takes_over_from_ksmtuned(debian: Installed, built: Path) -> None:
    debian.apt_get("install", "--no-install-recommends", "ksmtuned")
    debian.shell("sed -i 's/.*KSM_THRES_COEF=.*/KSM_THRES_COEF=33/' /etc/ksmtuned.conf; systemctl restart ksmtuned")
    said = install(debian, built)
    assert f"the settings of /etc/ksmtuned.conf are in {CONFIG}/config.d/20-imported.toml" in said
    assert "20-imported.toml" in debian.shell("ksmtuned-py check --show | grep short_enter_percent")
    assert "33" in debian.shell(f"cat {CONFIG}/config.d/20-imported.toml")
    assert debian.container.run("systemctl", "is-active", "ksmtuned") != "active\n"
    assert debian.shows("ActiveState") == "active", debian.journal()


@pytest.mark.packages_long
def test_ksmtuned_takes_over_again(debian: Installed) -> None:
    debian.shell("echo 1234 > /sys/kernel/mm/ksm/pages_to_scan")
    debian.shell(f"printf 'policy.name = \"fixed\"\\n' > {CONFIG}/config.d/60-fixed.toml")
    debian.shell(f"rm {CONFIG}/config.d/10-observe.toml && systemctl restart ksmtuned-py")
    wait_for(lambda: debian.knobs()["pages_to_scan"] == "1000", SECONDS, "knobs of its own")
    said = debian.apt_get("install", "--no-install-recommends", "ksmtuned")
    assert "Removing ksmtuned-py" in said
    assert debian.container.run("systemctl", "is-active", "ksmtuned") == "active\n"
    assert debian.shows("ActiveState") in ("inactive", "failed")
    assert debian.knobs()["pages_to_scan"] == "1234"  # ksmtuned adjusts after a minute
    assert debian.container.run("cat", "/run/ksmtuned-py/originals.json").endswith("No such file or directory\n")
