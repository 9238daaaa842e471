"""Those who would break the package: configurations, disks, masks, and other packages at the wrong moment."""

import subprocess
from pathlib import Path

import pytest

from ksmtuned_py import __version__
from ksmtuned_py.config import Config
from ksmtuned_py.model import KSM_DIRECTORY
from tests.packages.conftest import CONFIG, DPKG, PACKAGES, PURGE, Installed, commands_of_page
from tests.packages.repack import other_manager, repacked
from tests.packages.test_upgrades import OLD_CONF, REFUSES, install, steers, version
from tests.support.unit import SECONDS

pytestmark = pytest.mark.packages_long

PORT = Config().metrics.address.rpartition(":")[2]
MANAGED = f"""
rm -f {CONFIG}/config.d/10-observe.toml
printf 'policy.name = "fixed"\\nfixed.pages_to_scan = 777\\n' > {CONFIG}/config.d/60-mine.toml
"""
"""Switches it on, and pins a knob."""
SCRAPE = """
import sys, urllib.request
print(urllib.request.urlopen("http://127.0.0.1:" + sys.argv[1] + "/metrics", timeout=10).read().decode())
"""
SOCKET = "ksmtuned-py.socket"
DAEMONS = "grep -al 'ksmtuned-p[y].run' /proc/[0-9]*/cmdline 2>/dev/null | cut -d/ -f3"
"""The daemons that run, by their numbers. A bare system has no pgrep."""
NO_KSM = "mount -t tmpfs tmpfs /sys/kernel/mm"
READ_ONLY = "mount -o remount,bind,ro /sys/kernel/mm/ksm"


@pytest.fixture
def at_work(bare: Installed, newest: Path) -> Installed:
    """The service, which steers."""
    install(bare, newest)
    bare.shell(f"{MANAGED} systemctl reload ksmtuned-py")
    steers(bare)
    return bare


def ended_with(service: Installed, line: str) -> tuple[int, str]:
    """The exit code of a line, and what it says."""
    done = service.container.ended("sh", "-c", line)
    return done.returncode, done.stdout


@pytest.mark.parametrize(
    ("hide", "show", "said"),
    [
        (NO_KSM, "umount /sys/kernel/mm", "this kernel was built without CONFIG_KSM"),
        (READ_ONLY, "mount -o remount,bind,rw /sys/kernel/mm/ksm", "its file system is mounted read-only here"),
    ],
    ids=["no KSM", "read-only"],
)
def test_where_it_cannot_steer_it_watches_and_says_so(
    bare: Installed, newest: Path, hide: str, show: str, said: str
) -> None:
    bare.shell(hide)
    try:
        install(bare, newest)
        assert bare.shows("ActiveState") == "active", bare.journal()
        assert said in bare.journal()
        bare.wait_ticks(1)
        assert "ksmtuned_saved_bytes 0" in bare.shell(f"/usr/bin/python3 -c '{SCRAPE}' {PORT}")
        code, told = ended_with(bare, f"{MANAGED} systemctl reload ksmtuned-py")
        assert (code, bare.shows("ActiveState")) == (1, "active"), told
        assert f"reload refused, the old configuration stays: /{KSM_DIRECTORY}" in bare.journal()
        code, _ = ended_with(bare, "systemctl restart ksmtuned-py")
        assert (code, bare.shows("ExecMainStatus"), bare.shows("NRestarts")) == (1, "2", "0")
        bare.shell(PURGE)
    finally:
        bare.shell(show)


def test_an_upgrade_under_a_broken_configuration_says_every_mistake_and_steers_nothing(
    at_work: Installed, newest: Path
) -> None:
    at_work.shell(f"printf 'policy.name = \"fixt\"\nfixed.pages_to_scan = 0\n' > {CONFIG}/config.d/70-bad.toml")
    said = install(at_work, repacked(newest, "99"))
    assert version(at_work) == "99 installed"
    assert f"{CONFIG}/config.d/70-bad.toml:1: policy.name" in said
    assert f"{CONFIG}/config.d/70-bad.toml:2: fixed.pages_to_scan" in said
    assert "does not run" in said
    assert at_work.knobs() == at_work.found
    at_work.shell(f"rm {CONFIG}/config.d/70-bad.toml; systemctl start ksmtuned-py")
    steers(at_work)


def test_a_purge_ends_one_that_was_stopped_in_its_tracks(at_work: Installed) -> None:
    at_work.shell(f"kill -STOP {at_work.shows('MainPID')}; {PURGE}")
    assert at_work.knobs() == at_work.found
    assert at_work.container.run("sh", "-c", DAEMONS) == ""


def test_a_purge_under_one_that_runs_by_hand_says_so_and_it_still_puts_the_knobs_back(
    bare: Installed, newest: Path
) -> None:
    install(bare, newest)
    bare.shell(f"{MANAGED} systemctl stop ksmtuned-py")
    by_hand = subprocess.Popen(bare.container.inside("/usr/bin/ksmtuned-py", "run"), stdin=subprocess.DEVNULL)
    try:
        steers(bare)
        said = bare.shell(PURGE)
        assert "locked by another ksmtuned-py" in said
    finally:
        bare.shell(f"kill $({DAEMONS})")
        assert by_hand.wait(SECONDS) == 0
    assert bare.knobs() == bare.found


FULL = """
mkdir /srv/small && mount -t tmpfs -o size=200m tmpfs /srv/small
cp -a /usr/lib/ksmtuned-py/. /srv/small && mount --bind /srv/small /usr/lib/ksmtuned-py
head -c 1G /dev/zero > /usr/lib/ksmtuned-py/full
"""


def test_a_disk_that_is_full_when_it_is_configured(bare: Installed, newest: Path) -> None:
    bare.shell(f"{DPKG} --unpack {PACKAGES}/{newest.name}")
    bare.container.ended("sh", "-c", FULL)
    try:
        said = bare.shell(f"{DPKG} --configure -a")
        assert "No space left on device" in said
        assert version(bare).endswith(" installed")
        assert bare.shows("ActiveState") == "active", bare.journal()
        assert bare.container.run("find", "/usr/lib/ksmtuned-py", "-name", "*.pyc.*") == ""
    finally:
        bare.shell("systemctl stop ksmtuned-py; umount /usr/lib/ksmtuned-py /srv/small; rmdir /srv/small")


def test_a_runtime_directory_that_is_full(bare: Installed, newest: Path) -> None:
    install(bare, newest)
    bare.shell(MANAGED)
    bare.shell(
        "mount -t tmpfs -o size=64k tmpfs /run/ksmtuned-py; head -c 1M /dev/zero > /run/ksmtuned-py/full || true"
    )
    try:
        code, _ = ended_with(bare, "systemctl restart ksmtuned-py")
        assert (code, bare.knobs()) == (1, bare.found)  # what cannot be saved is not changed
        assert "No space left on device" in bare.journal()
    finally:
        bare.shell("umount /run/ksmtuned-py")
    bare.shell("systemctl restart ksmtuned-py")
    steers(bare)


def test_run_without_room_for_another_file_stops_no_installation(bare: Installed, newest: Path) -> None:
    used = bare.shell("df --output=iused /run | tail -n 1").strip()
    bare.shell(f"mount -o remount,nr_inodes={used} /run")
    try:
        install(bare, newest)
        assert version(bare).endswith(" installed")
        assert bare.knobs() == bare.found
    finally:
        bare.shell("mount -o remount,nr_inodes=0 /run")
    bare.shell("systemctl restart ksmtuned-py")
    assert bare.shows("ActiveState") == "active", bare.journal()


@pytest.mark.parametrize("seconds", [0.1, 0.4, 0.8, 1.2])
def test_a_removal_that_was_killed_at_any_time_is_finished_by_another(at_work: Installed, seconds: float) -> None:
    ended_with(at_work, f"setsid timeout -s KILL {seconds} {PURGE}")
    at_work.shell(PURGE)
    assert at_work.shell("dpkg --audit") == ""
    assert at_work.knobs() == at_work.found
    assert at_work.container.run("sh", "-c", DAEMONS) == ""
    assert at_work.container.ended("test", "-e", CONFIG).returncode == 1


@pytest.mark.parametrize("lost", ["/usr/lib/ksmtuned-py", "/usr/bin/ksmtuned-py", "/usr/bin/python3 /usr/bin/py3clean"])
def test_one_whose_files_are_gone_still_puts_the_knobs_back_and_is_purged(at_work: Installed, lost: str) -> None:
    at_work.shell(f"mkdir /srv/lost; mv {lost} /srv/lost")
    try:
        at_work.shell(PURGE)
        assert at_work.knobs() == at_work.found
        assert at_work.container.ended("test", "-e", CONFIG).returncode == 1
    finally:
        at_work.shell("mv /srv/lost/py* /usr/bin || true; rm -r /srv/lost")


def test_two_at_once_are_one(bare: Installed, newest: Path) -> None:
    once = f"{DPKG} --install {PACKAGES}/{newest.name}"
    said = bare.shell(f"{once} & {once} & wait; {once}")
    assert version(bare).endswith(" installed"), said
    assert bare.shell("dpkg --audit") == ""
    assert bare.shows("ActiveState") == "active"


@pytest.mark.parametrize("first", ["ours", "theirs"])
def test_ours_and_another_manager_in_one_command(bare: Installed, newest: Path, first: str) -> None:
    theirs = other_manager(newest.parent, "ksm-control-daemon", OLD_CONF)
    names = [newest.name, theirs.name] if first == "ours" else [theirs.name, newest.name]
    ended_with(bare, f"{DPKG} --install {' '.join(f'{PACKAGES}/{name}' for name in names)}")
    try:
        active = [bare.container.run("systemctl", "is-active", unit).strip() for unit in ("ksmtuned-py", "ksmtuned")]
        assert active.count("active") == 1
        assert bare.shell("dpkg --audit") == ""
    finally:
        bare.shell(f"{DPKG} --purge ksm-control-daemon")


def test_who_masks_the_socket_has_no_metrics_and_no_open_port(at_work: Installed) -> None:
    at_work.shell(f"systemctl mask --now {SOCKET}; echo 'metrics.address = \"\"' > {CONFIG}/config.d/70-none.toml")
    at_work.shell("systemctl restart ksmtuned-py")
    steers(at_work)
    assert ended_with(at_work, f"/usr/bin/python3 -c '{SCRAPE}' {PORT}")[0] == 1
    at_work.shell(f"systemctl unmask {SOCKET}; rm {CONFIG}/config.d/70-none.toml; systemctl restart ksmtuned-py")
    assert "ksmtuned_saved_bytes" in at_work.shell(f"sleep 1; /usr/bin/python3 -c '{SCRAPE}' {PORT}")


def test_a_service_that_was_disabled_stays_so(at_work: Installed, newest: Path) -> None:
    at_work.shell("systemctl disable --now ksmtuned-py")
    install(at_work, repacked(newest, "98"))
    assert (at_work.shows("ActiveState"), at_work.shows("UnitFileState")) == ("inactive", "disabled")
    assert at_work.knobs() == at_work.found


def test_one_that_was_stopped_is_not_started_by_a_package_that_cannot_take_its_place(
    at_work: Installed, newest: Path
) -> None:
    at_work.shell("systemctl stop ksmtuned-py")
    broken = other_manager(newest.parent, "ksm-control-daemon", OLD_CONF, REFUSES)
    code, said = ended_with(at_work, f"{DPKG} --auto-deconfigure --install {PACKAGES}/{broken.name}")
    assert (code, version(at_work)) == (1, f"{__version__} installed"), said
    assert (at_work.shows("ActiveState"), at_work.shows("UnitFileState")) == ("inactive", "enabled")
    assert at_work.knobs() == at_work.found
    assert at_work.shell("find /run -maxdepth 1 -name '*ksmtuned*' ! -type d") == ""


def test_an_installation_that_broke_off_leaves_nothing_in_run(bare: Installed, newest: Path) -> None:
    bare.shell("mkdir /usr/lib/ksmtuned-py; mount -t tmpfs -o size=64k tmpfs /usr/lib/ksmtuned-py")  # too small
    code, _ = ended_with(bare, f"{DPKG} --install {PACKAGES}/{newest.name}")
    bare.shell("umount /usr/lib/ksmtuned-py; rm -rf /usr/lib/ksmtuned-py")
    assert code == 1
    assert bare.shell("find /run -name '*ksmtuned*'") == ""


WITH_RIGHTS = """
rm -r /etc/sysusers.d/ksmtuned-py.conf /etc/tmpfiles.d/ksmtuned-py.conf /etc/systemd/system/ksmtuned-py.service.d
userdel ksmtuned-py; systemctl daemon-reload
"""


def test_it_gives_up_roots_rights_by_the_lines_of_the_page(at_work: Installed, newest: Path) -> None:
    at_work.shell(commands_of_page("Without root's rights", "docs/operating.md")[0])
    for again in ("", "95"):
        if again:
            install(at_work, repacked(newest, again))
        assert at_work.shell(f"stat --format=%U /proc/{at_work.shows('MainPID')}") == "ksmtuned-py\n"
        assert at_work.knobs()["pages_to_scan"] == "777"
    at_work.shell(f"ksmtuned-py pause --for 1h; {PURGE}")
    assert at_work.knobs() == at_work.found
    at_work.shell(WITH_RIGHTS)


def test_a_masked_service_is_installed_and_upgraded_all_the_same(bare: Installed, newest: Path) -> None:
    bare.shell("systemctl mask ksmtuned-py")
    install(bare, newest)
    install(bare, repacked(newest, "97"))
    assert (version(bare), bare.shows("ActiveState")) == ("97 installed", "inactive")
    bare.shell(f"systemctl unmask ksmtuned-py; {PURGE}")
