"""The service without root's rights by one command, on a bare system: the rpm for it beside a service that is there.

The knobs only look like knobs. The service is the Debian package's, for the rpm's scripts ask only what it is called.
The tests are one story, in their order.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.packages.conftest import CONFIG, PACKAGES, STATE, Installed
from tests.packages.test_upgrades import install, steers
from tests.support.ksmlock import KSM
from tests.support.process import wait_for
from tests.support.unit import SECONDS

pytestmark = pytest.mark.packages_long

USER = "ksmtuned-py"
RPM = "rpm --force-debian"
"""Which does not warn that this is a Debian."""
ERASE = f"{RPM} --erase ksmtuned-py-unprivileged"
RUNTIME = "/run/ksmtuned-py"
MINE = f"{CONFIG}/config.d/60-mine.toml"
SWITCHED_ON = f"""
rm {CONFIG}/config.d/10-observe.toml
printf 'policy.name = "fixed"\\nfixed.pages_to_scan = 777\\n' > {MINE}
systemctl reload ksmtuned-py
"""


@pytest.fixture(scope="module")
def service(made_up: Installed, packages: Path, newest: Path, unprivileged_rpm: Path) -> Installed:
    """The service of root, which steers."""
    shutil.copy(unprivileged_rpm, packages)
    made_up.apt_get("install", "--no-install-recommends", "rpm")
    install(made_up, newest)
    made_up.shell(SWITCHED_ON)
    steers(made_up)
    return made_up


@pytest.fixture(scope="module")
def command(unprivileged_rpm: Path) -> str:
    """What installs the rpm. Debian's package is not what it wants, as rpm sees it."""
    return f"{RPM} --install --nodeps {PACKAGES}/{unprivileged_rpm.name}"


@pytest.fixture
def without(service: Installed) -> Iterator[Installed]:
    """The service of root without the rpm, which is there neither before nor afterwards."""
    yield service
    service.shell(f"! rpm --query --quiet ksmtuned-py-unprivileged || {ERASE}")
    assert runs_as(service) == "root"


def runs_as(service: Installed) -> str:
    """Who it is; it has to be at work."""
    assert service.shows("ActiveState") == "active", service.journal()
    return service.shell(f"stat --format=%U /proc/{service.shows('MainPID')}").strip()


def owner(service: Installed, *places: str) -> list[str]:
    """The modes and owners."""
    return service.shell(f"stat --format='%a %U %G' {' '.join(places)}").splitlines()


def knob(name: str) -> str:
    return f"{KSM}/{name}"


def test_one_command_and_it_runs_as_a_user_and_steers(service: Installed, command: str) -> None:
    said = service.shell(command)
    assert runs_as(service) == USER, said
    steers(service)
    assert owner(service, knob("run"), knob("max_page_sharing")) == [f"664 root {USER}", "644 root root"]
    assert set(owner(service, STATE, f"{STATE}/history.sqlite", RUNTIME)) <= {f"{m} {USER} {USER}" for m in (755, 600)}
    assert "cannot be kept" not in service.journal()


def test_the_same_once_more_leaves_it_at_work(service: Installed, command: str) -> None:
    pid = service.shows("MainPID")
    service.shell(command.replace("--install", "--upgrade --replacepkgs"))
    assert service.shows("MainPID") == pid


def test_erased_it_runs_as_root_and_nothing_is_that_users(service: Installed) -> None:
    service.shell(ERASE)
    assert runs_as(service) == "root"
    steers(service)
    assert set(owner(service, f"{KSM}/*")) == {"644 root root"}
    assert service.shell(f"find {STATE} {RUNTIME} /sys/kernel/mm /etc -user {USER} -o -group {USER}") == ""
    assert service.shell(f"getent passwd {USER} | cut -d: -f1") == f"{USER}\n"
    service.stop()
    assert service.knobs() == service.found
    service.start()


def test_what_a_service_that_failed_owes_is_put_back(without: Installed, command: str) -> None:
    without.shell(command)
    steers(without)
    without.shell(f"cp --archive {RUNTIME}/originals.json /root; systemctl stop ksmtuned-py")
    without.shell(f"cp --archive /root/originals.json {RUNTIME}; echo 777 > {knob('pages_to_scan')}")
    without.shell(ERASE)
    assert without.knobs() == without.found
    assert without.shows("ActiveState") == "inactive"
    assert owner(without, RUNTIME) == ["755 root root"]
    without.start()


def test_no_link_is_followed(without: Installed, command: str) -> None:
    without.shell("mkdir -p /srv/precious; touch /srv/precious/file /srv/file; chown nobody /srv/file")
    without.shell(f"systemctl stop ksmtuned-py; mv {STATE} /root/past; ln -s /srv/precious {STATE}")
    without.shell(f"systemctl start ksmtuned-py; {command}")
    assert runs_as(without) == USER
    assert owner(without, "/srv/precious", "/srv/precious/file") == ["755 root root", "644 root root"]
    without.shell(f"chown -R {USER} /srv/precious")
    without.shell(ERASE)
    assert {line.split()[1] for line in owner(without, "/srv/precious", "/srv/precious/file")} == {USER}
    without.shell(f"systemctl stop ksmtuned-py; rm {STATE}; mv /root/past {STATE}; systemctl start ksmtuned-py")


def test_no_link_in_the_past_is_followed_and_what_is_others_stays_so(without: Installed, command: str) -> None:
    without.shell(command)
    without.shell(f"ln -s /srv/precious {STATE}/link; ln -s /srv/precious/file {STATE}/file; mv /srv/file {STATE}/mine")
    without.shell(f"chown --no-dereference {USER} {STATE}/link {STATE}/file; {ERASE}")
    assert {line.split()[1] for line in owner(without, "/srv/precious", "/srv/precious/file")} == {USER}
    assert owner(without, STATE, f"{STATE}/mine", f"{STATE}/link")[1] == "644 nobody root"
    without.shell(f"rm {STATE}/link {STATE}/file {STATE}/mine; userdel ksmtuned-py")


def test_a_read_only_sys_is_told_and_stops_no_transaction(without: Installed, command: str) -> None:
    without.shell(f"systemctl stop ksmtuned-py; mount -o remount,bind,ro {KSM}")
    said = without.shell(command)
    assert f"{knob('run')}" in said
    assert "Read-only file system" in said
    assert "error" not in without.shell(ERASE).lower()
    without.shell(f"mount -o remount,bind,rw {KSM}; systemctl start ksmtuned-py")


def test_a_kernel_without_ksm_stops_no_transaction(without: Installed, command: str) -> None:
    without.shell("systemctl stop ksmtuned-py; mount -t tmpfs tmpfs /sys/kernel/mm")
    assert without.shell(command) == ""
    assert without.shell(ERASE) == ""
    without.shell("umount /sys/kernel/mm; systemctl start ksmtuned-py")


def test_a_user_that_is_there_already_is_the_one(without: Installed, command: str) -> None:
    without.shell(f"useradd --system --uid 987 {USER} 2>/dev/null || usermod --uid 987 {USER}")
    without.shell(command)
    assert runs_as(without) == USER
    wait_for(lambda: without.knobs()["pages_to_scan"] == "777", SECONDS, "knobs of its own")
    assert without.shell(f"id -u {USER}") == "987\n"
