"""The role for Ansible on a bare Debian 12: what it would do, what it does, and that a second time it does nothing.

The tests are one story, in their order. The core of it is told of Ubuntu 24.04, too.
"""

import json
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ksmtuned_py import __version__
from tests.packages.conftest import PACKAGES, Installed, system_with
from tests.support.ansible import ansible
from tests.support.container import ROOT
from tests.support.process import wait_for
from tests.support.roots import UBUNTU
from tests.support.trees import make_fake_tree
from tests.support.unit import SECONDS

pytestmark = pytest.mark.packages_long

ANSIBLE, ROLES = "/opt/ansible", "/opt/role/roles"
PLAY = "- {hosts: all, gather_facts: false, roles: [ksmtuned_py]}"
DROP_INS = "/etc/ksmtuned-py/config.d"
STEERS = {"ksmtuned_py_mode": "manage", "ksmtuned_py_settings": {"policy": {"name": "fixed"}}}
ANSIBLES_OWN = {"/root/.ansible", "/root/.ansible/tmp"}
HOSTILE = 'a"\npolicy.name = "mom"\n#\\'
"""What would begin another line, if it could end its string."""


@dataclass
class Run:
    """How a run of the role ended."""

    said: str
    failed: bool

    def count(self, name: str) -> int:
        """How many tasks were ok, changed or failed."""
        found = re.search(rf"localhost .*\b{name}=(\d+)", self.said)
        assert found is not None, self.said
        return int(found[1])


@dataclass
class Host:
    """A bare Debian, and the role on it."""

    one: Installed
    package: str

    def play(self, *options: str, **variables: Any) -> Run:
        """Runs the role with these variables."""
        settings = {"ksmtuned_py_deb": self.package, "ansible_python_interpreter": "/usr/bin/python3", **variables}
        environment = [f"ANSIBLE_ROLES_PATH={ROLES}", "ANSIBLE_NOCOLOR=1", "LC_ALL=C.UTF-8", "HOME=/root"]
        command = [f"{ANSIBLE}/bin/python", "-m", "ansible", "playbook", "--connection=local", "--inventory=localhost,"]
        command += [*options, f"--extra-vars={json.dumps(settings)}", "/root/play.yml"]
        done = self.one.container.ended_online("env", *environment, *command)
        return Run(done.stdout, done.returncode != 0)

    def changed(self, *options: str, **variables: Any) -> int:
        """How many tasks changed something in a run that ends well."""
        run = self.play(*options, **variables)
        assert not run.failed, run.said
        return run.count("changed")

    def refused(self, **variables: Any) -> str:
        """What a run says that fails."""
        run = self.play(**variables)
        assert run.failed, run.said
        return run.said

    def shown(self) -> str:
        """The configuration in force."""
        return self.one.shell("ksmtuned-py check --show")


PYTHONS = {"bookworm": "3.11", UBUNTU: "3.12"}
CORE = {
    "test_check_mode_tells_and_does_nothing",
    "test_it_installs_and_steers",
    "test_a_second_time_it_changes_nothing",
    "test_another_setting_is_in_force_at_once",
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Tells the core on each system, and all the rest on the first."""
    if "suite" in metafunc.fixturenames:
        suites = [*PYTHONS] if metafunc.function.__name__ in CORE else ["bookworm"]
        metafunc.parametrize("suite", suites, indirect=True, scope="module")


@pytest.fixture(scope="module")
def suite(request: pytest.FixtureRequest) -> str:
    """The name of a Debian or an Ubuntu."""
    return str(request.param)


@pytest.fixture(scope="module")
def built(suite: str, request: pytest.FixtureRequest) -> Path:
    """A directory with the package for it."""
    found: Path = request.getfixturevalue("ubuntus_packages" if suite == UBUNTU else "packages")
    return found


@pytest.fixture(scope="module")
def host(suite: str, built: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """A bare one with the Python that Ansible wants of any host, and with knobs that only look like knobs."""
    package = f"{PACKAGES}/{next(built.glob('*_*_*.deb')).name}"
    more = [(ansible(PYTHONS[suite]), ANSIBLE), (ROOT / "packaging/ansible", "/opt/role")]
    knobs = make_fake_tree(tmp_path_factory.mktemp("knobs")) / "sys/kernel/mm/ksm"
    with system_with(knobs, suite, built, more) as one:
        one.apt_get("install", "--no-install-recommends", "python3", "python3-apt")
        one.shell(f"echo '{PLAY}' > /root/play.yml")
        yield Host(one, package)


def test_a_wrong_variable_is_refused_before_anything_is_done(host: Host) -> None:
    before = host.one.files()
    wanted = "value of ksmtuned_py_mode must be one of: observe, manage, got: observ"
    assert wanted in host.refused(ksmtuned_py_mode="observ")
    for name in ("../evil.toml", "60-site.toml\n", "50-ansible.toml"):
        assert "is no name of a file of yours" in host.refused(ksmtuned_py_drop_ins={name: "# evil"})
    assert host.one.files() - before <= ANSIBLES_OWN


def test_check_mode_tells_and_does_nothing(host: Host) -> None:
    before = host.one.files()
    run = host.play("--check", **STEERS)
    assert not run.failed, run.said
    assert run.count("changed") > 0
    assert host.one.files() - ANSIBLES_OWN == before - ANSIBLES_OWN


def test_it_installs_and_steers(host: Host) -> None:
    assert host.changed(**STEERS) > 0
    assert host.one.shows("ActiveState") == "active", host.one.journal()
    wait_for(lambda: host.one.knobs()["pages_to_scan"] == "1000", SECONDS, "knobs of its own")


def test_a_second_time_it_changes_nothing(host: Host) -> None:
    pid = host.one.shows("MainPID")
    assert host.changed(**STEERS) == 0
    assert host.one.shows("MainPID") == pid


def steers_by(pages: int) -> dict[str, Any]:
    return {**STEERS, "ksmtuned_py_settings": {"policy": {"name": "fixed"}, "fixed": {"pages_to_scan": pages}}}


def test_check_mode_shows_another_setting_and_leaves_it(host: Host) -> None:
    shown, pid = host.shown(), host.one.shows("MainPID")
    run = host.play("--check", "--diff", **steers_by(777))
    assert run.count("changed") == 2  # the file, and the reload
    assert '+"fixed"."pages_to_scan" = 777' in run.said
    assert (host.shown(), host.one.shows("MainPID")) == (shown, pid)


def test_another_setting_is_in_force_at_once(host: Host) -> None:
    pid = host.one.shows("MainPID")
    assert host.changed(**steers_by(777)) == 2
    wait_for(lambda: host.one.knobs()["pages_to_scan"] == "777", SECONDS, "the new setting")
    assert host.one.shows("MainPID") == pid


def test_a_setting_that_the_daemon_refuses_is_not_written(host: Host) -> None:
    shown = host.shown()
    said = host.refused(**{**STEERS, "ksmtuned_py_settings": {"policy": {"name": "fixt"}}})
    assert 'policy.name = \\"fixt\\": wanted one of adaptive' in said
    assert host.shown() == shown
    assert host.one.shows("ActiveState") == "active"


ENTERS, LEAVES = (f"adaptive.need.short_{way}_percent = {{}}\n" for way in ("enter", "leave"))


def test_files_that_are_no_good_together_are_not_written(host: Host) -> None:
    shown = host.shown()
    files = {"60-enter.toml": ENTERS.format(18), "61-leave.toml": LEAVES.format(17)}
    before = host.one.shell(f"ls {DROP_INS}")
    assert "short_leave_percent" in host.refused(**steers_by(888), ksmtuned_py_drop_ins=files)
    assert (host.shown(), host.one.shell(f"ls {DROP_INS}")) == (shown, before)
    assert host.one.shell("find /tmp /root/.ansible/tmp -name '*.toml'") == ""


def test_what_comes_after_a_run_that_failed_is_in_force(host: Host) -> None:
    host.refused(**steers_by(666), ksmtuned_py_drop_ins={"60-site.toml": "policy.name = 'fixt'"})
    assert host.changed(**steers_by(666)) == 2
    wait_for(lambda: host.one.knobs()["pages_to_scan"] == "666", SECONDS, "the new setting")
    host.changed(**steers_by(777))


def test_files_that_are_good_only_together_are_taken(host: Host) -> None:
    files = {"60-enter.toml": ENTERS.format(22), "61-leave.toml": LEAVES.format(25)}
    assert host.changed(**steers_by(777), ksmtuned_py_drop_ins=files) == 2
    assert "short_enter_percent = 22" in host.shown()
    host.changed(**steers_by(777), ksmtuned_py_drop_ins=dict.fromkeys(files, ""))


def test_no_text_ends_its_string(host: Host) -> None:
    rule = {"name": HOSTILE, "group": HOSTILE}
    hostile = {**steers_by(777), "ksmtuned_py_rules": [rule]}
    host.changed(**hostile)
    assert 'name = "fixed"' in host.shown()
    assert host.shown().count(json.dumps(HOSTILE)) == 2
    assert host.changed(**hostile) == 0
    said = host.refused(**{**STEERS, "ksmtuned_py_settings": {"policy": {'name = "mom"\nx': 1}}})
    assert "wanted a key that exists" in said


def test_drop_ins_come_and_go(host: Host) -> None:
    name = "60-site.toml"
    assert host.changed(**steers_by(777), ksmtuned_py_drop_ins={name: "fixed.pages_to_scan = 888\n"}) > 0
    wait_for(lambda: host.one.knobs()["pages_to_scan"] == "888", SECONDS, "the drop-in")
    assert host.changed(**steers_by(777), ksmtuned_py_drop_ins={name: ""}) > 0
    wait_for(lambda: host.one.knobs()["pages_to_scan"] == "777", SECONDS, "the setting below it")
    assert name not in host.one.shell(f"ls {DROP_INS}")


def test_it_is_installed_from_a_repository(host: Host, built: Path) -> None:
    command = ["dpkg-scanpackages", "--multiversion", "."]
    index = subprocess.run(command, cwd=built, capture_output=True, text=True, check=True).stdout
    (built / "Packages").write_text(index)
    built.chmod(0o755)  # apt reads it as a user of its own
    host.one.shell("dpkg --purge ksmtuned-py")
    host.one.shell(f"echo 'deb [trusted=yes] file:{PACKAGES} ./' > /etc/apt/sources.list.d/local.list")
    host.one.apt_get("update")
    settings = {**steers_by(555), "ksmtuned_py_deb": "", "ksmtuned_py_version": __version__}
    assert host.changed(**settings) > 0
    wait_for(lambda: host.one.knobs()["pages_to_scan"] == "555", SECONDS, "knobs of its own")
    assert host.changed(**settings) == 0
