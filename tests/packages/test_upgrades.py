"""From any version to any other, and away: what was configured and paused stays, and what breaks off is mended.

The tests are one story, in their order, on a system whose knobs are files of its own.
"""

from pathlib import Path

import pytest

from ksmtuned_py import __version__
from tests.packages.conftest import CONFIG, DPKG, PACKAGES, Installed
from tests.packages.repack import other_manager, repacked
from tests.support.process import wait_for
from tests.support.unit import SECONDS

pytestmark = pytest.mark.packages_long

OLD_CONF = "KSM_THRES_COEF=41\nKSM_SLEEP_MSEC=100\nKSM_PS_METRIC=pss\n"
REFUSES = "#!/bin/sh\necho I cannot be installed\nexit 1\n"


@pytest.fixture(scope="module")
def before(made_up: Installed) -> set[str]:
    """The files of the bare system."""
    return made_up.files()


@pytest.fixture(scope="module")
def service(made_up: Installed, packages: Path, before: set[str]) -> Installed:
    """The version before, installed and switched on, with a drop-in."""
    older = repacked(next(packages.glob("*_*_*.deb")), "0.0.9", older_configuration)
    install(made_up, older)
    made_up.shell(f"rm {CONFIG}/config.d/10-observe.toml")
    made_up.shell(f"printf 'policy.name = \"fixed\"\\nfixed.pages_to_scan = 777\\n' > {CONFIG}/config.d/60-mine.toml")
    made_up.shell("systemctl reload ksmtuned-py")
    steers(made_up)
    return made_up


def older_configuration(tree: Path) -> None:
    """The sample configuration was another one then."""
    sample = tree / "etc/ksmtuned-py/config.toml"
    sample.write_text("# the older sample\n" + sample.read_text())


def install(on: Installed, package: Path, *options: str) -> str:
    """Installs a package without a network, and returns what is said."""
    return on.shell(f"{DPKG} {' '.join(options)} --install {PACKAGES}/{package.name}")


def steers(service: Installed) -> None:
    """Waits until the knobs are those of the drop-in."""
    wait_for(lambda: service.knobs()["pages_to_scan"] == "777", SECONDS, "knobs of its own")


def version(on: Installed) -> str:
    """The version that is installed, and whether it is well."""
    return on.shell("dpkg-query --show --showformat '${Version} ${db:Status-Status}' ksmtuned-py")


def test_an_upgrade_keeps_configuration_and_pause(service: Installed, newest: Path) -> None:
    service.shell(f"echo '# mine' >> {CONFIG}/config.toml; ksmtuned-py pause --for 1h --reason backup")
    pid = service.shows("MainPID")
    said = install(service, newest)
    assert version(service) == f"{__version__} installed"
    assert "To switch it on" not in said
    assert service.shell(f"tail -n 1 {CONFIG}/config.toml") == "# mine\n"
    assert service.shell(f"ls {CONFIG}/config.d") == "60-mine.toml\nREADME\n"
    assert service.shows("MainPID") not in ("0", pid)
    assert "backup" in service.shell("ksmtuned-py status")
    assert service.knobs() == service.found
    service.shell("ksmtuned-py resume")
    steers(service)


def test_a_downgrade_works_like_an_upgrade(service: Installed, packages: Path) -> None:
    pid = service.shows("MainPID")
    assert "downgrading" in install(service, packages / "ksmtuned-py_0.0.9.deb")
    assert version(service) == "0.0.9 installed"
    assert service.shell(f"tail -n 1 {CONFIG}/config.toml") == "# mine\n"
    assert service.shows("MainPID") not in ("0", pid)
    steers(service)


def test_one_that_was_stopped_is_not_started_by_an_upgrade(service: Installed, newest: Path) -> None:
    service.shell("systemctl stop ksmtuned-py")
    install(service, newest)
    assert service.shows("ActiveState") == "inactive"
    service.shell("systemctl start ksmtuned-py")
    steers(service)


def test_what_broke_off_between_unpacking_and_configuring_is_finished(service: Installed, packages: Path) -> None:
    pid = service.shows("MainPID")
    service.shell(f"{DPKG} --unpack {PACKAGES}/ksmtuned-py_0.0.9.deb")
    assert version(service) == "0.0.9 unpacked"
    assert service.shows("MainPID") == pid
    service.shell(f"{DPKG} --configure -a")
    assert version(service) == "0.0.9 installed"
    assert service.shows("MainPID") not in ("0", pid)
    steers(service)


@pytest.mark.parametrize("seconds", [0.3, 0.7, 1.1, 1.6])
def test_what_was_killed_at_any_time_is_repaired(service: Installed, newest: Path, seconds: float) -> None:
    service.container.ended("sh", "-c", f"setsid timeout -s KILL {seconds} {DPKG} --install {PACKAGES}/{newest.name}")
    service.container.ended("sh", "-c", f"{DPKG} --configure -a")
    if version(service) != f"{__version__} installed":  # it was not yet unpacked
        install(service, newest)
    assert version(service) == f"{__version__} installed"
    assert service.shell("dpkg --audit") == ""
    steers(service)
    install(service, newest.parent / "ksmtuned-py_0.0.9.deb")


def test_one_that_cannot_take_our_place_leaves_us_at_work(service: Installed, packages: Path) -> None:
    broken = other_manager(packages, "ksm-control-daemon", OLD_CONF, REFUSES)
    done = service.container.ended("sh", "-c", f"{DPKG} --auto-deconfigure --install {PACKAGES}/{broken.name}")
    assert done.returncode != 0
    assert version(service) == "0.0.9 installed", done.stdout
    steers(service)
    assert service.shows("ActiveState") == "active"


def test_removed_while_paused_and_installed_again(service: Installed, newest: Path) -> None:
    service.shell("ksmtuned-py pause --for 1h --reason backup")
    service.shell(f"{DPKG} --remove ksmtuned-py")
    assert service.knobs() == service.found
    assert service.shell(f"ls {CONFIG}/config.d") == "60-mine.toml\nREADME\n"
    install(service, newest)
    assert service.shows("ActiveState") == "active", service.journal()
    assert "backup" in service.shell("ksmtuned-py status")  # the hour is not over
    service.shell("ksmtuned-py resume")
    steers(service)


def test_a_knob_that_a_failed_stop_owes_comes_back_with_the_removal(service: Installed) -> None:
    service.shell("mkdir -p /run/systemd/system/ksmtuned-py.service.d")
    service.shell(
        "printf '[Service]\\nExecStopPost=\\nRestart=no\\n' > /run/systemd/system/ksmtuned-py.service.d/no.conf"
    )
    service.shell("systemctl daemon-reload && systemctl kill --signal=KILL ksmtuned-py")
    wait_for(lambda: service.shows("ActiveState") == "failed", SECONDS, "a dead service")
    assert service.knobs() != service.found
    service.shell("rm -r /run/systemd/system/ksmtuned-py.service.d; systemctl daemon-reload")
    said = service.shell(f"{DPKG} --remove ksmtuned-py")
    assert service.knobs() == service.found, said


def test_a_purge_leaves_nothing(service: Installed, newest: Path, before: set[str]) -> None:
    install(service, newest)
    steers(service)
    service.shell(f"{DPKG} --purge ksmtuned-py")
    assert service.knobs() == service.found
    assert service.files() - before == set()
    assert service.container.run("find", "/run", "-name", "*ksmtuned*") == ""


def test_it_takes_over_from_proxmox_and_gives_back(made_up: Installed, newest: Path, before: set[str]) -> None:
    theirs = other_manager(newest.parent, "ksm-control-daemon", OLD_CONF)
    install(made_up, theirs)
    assert made_up.container.run("systemctl", "is-active", "ksmtuned") == "active\n"
    said = made_up.apt_get("install", "--no-install-recommends", f"{PACKAGES}/{newest.name}")
    assert "ksm-control-daemon" in said
    assert f"the settings of /etc/ksmtuned.conf are in {CONFIG}/config.d/20-imported.toml" in said
    imported = made_up.shell(f"cat {CONFIG}/config.d/20-imported.toml")
    assert "short_enter_percent = 41" in imported
    assert "KSM_PS_METRIC" in imported  # what does not come along is told
    assert made_up.container.run("systemctl", "is-active", "ksmtuned") != "active\n"
    assert made_up.shows("ActiveState") == "active", made_up.journal()
    said = made_up.apt_get("install", f"{PACKAGES}/{theirs.name}")
    assert "Removing ksmtuned-py" in said
    assert made_up.container.run("systemctl", "is-active", "ksmtuned") == "active\n"
    assert made_up.knobs() == made_up.found
    said = made_up.apt_get("install", "--no-install-recommends", f"{PACKAGES}/{newest.name}")
    assert "20-imported.toml is from before, and stays" in said
    assert made_up.shows("ActiveState") == "active", made_up.journal()
    made_up.apt_get("purge", "ksmtuned-py", "ksm-control-daemon")
    assert made_up.files() - before == set()
