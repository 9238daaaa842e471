"""The second rpm, with which the service runs without root's rights: what its scripts do, whatever the order."""

import re
import subprocess
from pathlib import Path

import pytest

from tests.packages.conftest import build, tracked_source
from tests.packages.rpmroot import CALLED, RpmRoot, rpm_says
from tests.support.container import ROOT

pytestmark = pytest.mark.packages

BOTH = ("ksmtuned-py", "ksmtuned-py-unprivileged")
FILES = {
    "/usr/lib/systemd/system/ksmtuned-py.service.d/unprivileged.conf": "unprivileged.conf",
    "/usr/lib/sysusers.d/ksmtuned-py.conf": "unprivileged.sysusers",
    "/usr/lib/tmpfiles.d/ksmtuned-py.conf": "unprivileged.tmpfiles",
}
STATE, RUNTIME, ITS_RULES = "var/lib/ksmtuned-py", "run/ksmtuned-py", "etc/tmpfiles.d/ksmtuned-py.conf"
STOP, START = "systemctl stop ksmtuned-py.service", "systemctl start ksmtuned-py.service"
USERS, RULES = "systemd-sysusers ksmtuned-py.conf", "systemd-tmpfiles --create ksmtuned-py.conf"
RELOAD, RESTORE = "systemctl daemon-reload", "ksmtuned-py restore"
TAKEN_BACK = ["chown root:root /sys/kernel/mm/ksm/run", "chmod 644 /sys/kernel/mm/ksm/run"]
STATE_BACK = f"chown --recursive --no-dereference -P --from=ksmtuned-py root:root /{STATE}"
END = ["systemctl disable --now ksmtuned-py.service", RESTORE, RELOAD]


@pytest.fixture
def installed(root: RpmRoot, rpm: Path, unprivileged_rpm: Path) -> RpmRoot:
    """A root directory with both, and with a command that only writes down its calls."""
    root.install(rpm, unprivileged_rpm)
    root.command("usr/bin/ksmtuned-py", CALLED)
    root.calls()
    return root


def test_it_holds_three_files_and_wants_the_other(unprivileged_rpm: Path, root: RpmRoot, rpm: Path) -> None:
    listed = rpm_says("-qp", "--queryformat", "[%{FILEMODES:perms} %{FILEUSERNAME} %{FILENAMES}\n]", unprivileged_rpm)
    assert {line for line in listed.splitlines() if line[0] == "-"} == {f"-rw-r--r-- root {name}" for name in FILES}
    version = re.findall(r"ksmtuned-py-([\d.]+-\d+)\.noarch", rpm.name)[0]
    assert f"ksmtuned-py = {version}\n" in rpm_says("-qp", "--requires", unprivileged_rpm)
    root.install(unprivileged_rpm)
    for name, source in FILES.items():
        assert (root.path / name[1:]).read_text() == (ROOT / "systemd" / source).read_text()


def test_where_its_files_go_is_told() -> None:
    table = (ROOT / "docs/install.md").read_text().partition("\n## Where every file goes\n")[2].partition("\n## ")[0]
    places = tuple(re.findall(r"`(/\S+)`", table))
    assert [name for name in FILES if not name.startswith(places)] == []


def test_both_at_once(root: RpmRoot, rpm: Path, unprivileged_rpm: Path) -> None:
    root.install(unprivileged_rpm, rpm)
    assert root.calls() == [RELOAD, "systemctl preset ksmtuned-py.service", USERS, RULES, RELOAD]
    assert [name for name in FILES if not (root.path / name[1:]).exists()] == []


def test_a_service_at_work_begins_anew_as_that_user(root: RpmRoot, rpm: Path, unprivileged_rpm: Path) -> None:
    root.install(rpm)
    root.calls()
    root.is_now("active")
    root.install(unprivileged_rpm)
    assert root.calls() == [STOP, USERS, RULES, RELOAD, START]


@pytest.mark.parametrize("state", ["inactive", "failed", "active"])
def test_what_it_gave_it_takes_back(state: str, installed: RpmRoot) -> None:
    installed.is_now(state)
    installed.rpm("--erase", BOTH[1])
    stop, start = ([STOP], [START]) if state == "active" else ([], [])
    assert installed.calls() == [*stop, RESTORE, *TAKEN_BACK, STATE_BACK, RELOAD, *start]
    assert [name for name in (*FILES, "/usr/lib/systemd/system/ksmtuned-py.service.d") if there(installed, name)] == []
    assert (installed.path / "usr/lib/systemd/system/ksmtuned-py.service").exists()


def there(root: RpmRoot, name: str) -> bool:
    return (root.path / name[1:]).exists()


@pytest.mark.parametrize("then", ["inactive", "active"])
def test_one_that_is_ending_ends_as_who_it_is(then: str, root: RpmRoot, rpm: Path, unprivileged_rpm: Path) -> None:
    """It puts its knobs back meanwhile, with the rights that it has. Where it is to begin anew, it does."""
    root.install(rpm)
    root.command("usr/bin/ksmtuned-py", CALLED)
    root.command("bin/sleep", f"#!/bin/sh\necho {then} > /active\n")
    root.calls()
    stop, start = ([STOP], [START]) if then == "active" else ([], [])
    root.is_now("deactivating")
    root.install(unprivileged_rpm)
    assert root.calls() == [*stop, USERS, RULES, RELOAD, *start]
    assert (root.path / "active").read_text() == f"{then}\n"
    root.is_now("deactivating")
    root.rpm("--erase", BOTH[1])
    assert root.calls() == [*stop, RESTORE, *TAKEN_BACK, STATE_BACK, RELOAD, *start]
    assert (root.path / "active").read_text() == f"{then}\n"


def test_what_could_not_be_put_back_is_roots(installed: RpmRoot) -> None:
    """As long as the runtime directory is that user's, root puts knobs back as that user, who may not write them."""
    (installed.path / RUNTIME).mkdir()
    installed.rpm("--erase", BOTH[1])
    back = [STATE_BACK.replace(STATE, RUNTIME), STATE_BACK]
    assert installed.calls() == [RESTORE, *TAKEN_BACK, *back, RELOAD]


def test_both_are_erased_at_once(installed: RpmRoot) -> None:
    installed.is_now("active")
    installed.rpm("--erase", *BOTH)
    assert installed.calls() == [STOP, RESTORE, *TAKEN_BACK, STATE_BACK, RELOAD, START, *END]
    assert installed.left() == []


def test_the_other_one_is_erased_before(installed: RpmRoot) -> None:
    installed.rpm("--erase", "--nodeps", BOTH[0])
    assert installed.calls() == END
    installed.rpm("--erase", BOTH[1])
    assert installed.calls() == [*TAKEN_BACK, RELOAD]
    assert installed.left() == []


def test_an_upgrade_gives_the_past_back_and_starts_the_service_once(
    installed: RpmRoot, tmp_path_factory: pytest.TempPathFactory
) -> None:
    source = tracked_source(tmp_path_factory.mktemp("source"))
    version = source / "ksmtuned_py/__init__.py"
    version.write_text(re.sub(r'(?m)^__version__ = ".*"', '__version__ = "99.0.0"', version.read_text()))
    newer = [path for path in build(tmp_path_factory.mktemp("newer"), "rpm", source=source) if path.suffix == ".rpm"]
    installed.is_now("active")
    subprocess.run(["chown", "1234", installed.path / STATE], check=True)
    installed.rpm("--upgrade", "--nodeps", *newer)
    assert (installed.path / STATE).stat().st_uid == 0  # which is why rpm is not left alone with it
    restart = "systemctl try-restart ksmtuned-py.service"
    assert installed.calls() == [RULES, RELOAD, USERS, RULES, RELOAD, RELOAD, restart]
    assert "99.0.0" in installed.rpm("-q", BOTH[1])


def test_an_installation_once_more_changes_no_service_at_work(installed: RpmRoot, unprivileged_rpm: Path) -> None:
    installed.is_now("active")
    installed.rpm("--upgrade", "--nodeps", "--replacepkgs", unprivileged_rpm)
    assert installed.calls() == [USERS, RULES, RELOAD]


def test_without_a_systemd_no_knob_is_touched_for_they_are_another_systems(
    root: RpmRoot, rpm: Path, unprivileged_rpm: Path
) -> None:
    (root.path / "run/systemd/system").rmdir()
    root.install(rpm, unprivileged_rpm)
    assert root.calls() == [USERS]
    root.command("usr/bin/ksmtuned-py", CALLED)
    root.rpm("--erase", *BOTH)
    assert root.calls() == [STATE_BACK, RESTORE]


def test_without_all_these_commands_it_comes_and_goes(root: RpmRoot, rpm: Path, unprivileged_rpm: Path) -> None:
    for name in ("systemctl", "systemd-sysusers", "systemd-tmpfiles", "chown", "chmod", "stat"):
        (root.path / "bin" / name).unlink()
    root.install(rpm, unprivileged_rpm)
    root.rpm("--erase", *BOTH)
    assert root.left() == []


def test_what_an_admin_gives_by_rules_of_the_same_name_stays_given(installed: RpmRoot) -> None:
    (installed.path / ITS_RULES).parent.mkdir()
    (installed.path / ITS_RULES).write_text("# mine\n")
    installed.rpm("--erase", BOTH[1])
    assert installed.calls() == [RESTORE, RELOAD]


def test_a_link_in_place_of_the_past_is_left_alone(installed: RpmRoot) -> None:
    (installed.path / STATE).rmdir()
    (installed.path / STATE).symlink_to("/etc")
    installed.rpm("--erase", BOTH[1])
    assert STATE_BACK not in installed.calls()
