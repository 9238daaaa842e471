"""A new admin does what docs/install.md says of a service from source, on a bare Debian 12, to its very words.

The tests are one story, in their order.
"""

from collections.abc import Iterator

import pytest

from tests.packages.conftest import (
    CONFIG,
    WHEELS,
    Installed,
    commands_of_page,
    locked_wheels,
    system_with,
    tracked_source,
)
from tests.packages.test_upgrades import steers
from tests.support.trees import make_fake_tree

pytestmark = pytest.mark.packages_long

CHECKOUT = "/srv/checkout"
PINNED = f"printf 'policy.name = \"fixed\"\\nfixed.pages_to_scan = 777\\n' > {CONFIG}/config.d/60-mine.toml"


def does(on: Installed, lines: str) -> str:
    """What these lines say in the checkout; they have to end well."""
    done = on.container.ended(
        "env", "PIP_NO_INDEX=1", f"PIP_FIND_LINKS={WHEELS}", "sh", "-ec", f"cd {CHECKOUT}\n{lines}"
    )
    assert done.returncode == 0, f"{lines}\n{done.stdout}"
    return done.stdout


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    """A bare Debian 12 with a checkout, with knobs that only look like knobs, and with what the page asks for."""
    source = tracked_source(tmp_path_factory.mktemp("source"))
    knobs = make_fake_tree(tmp_path_factory.mktemp("knobs")) / "sys/kernel/mm/ksm"
    wheels = locked_wheels(tmp_path_factory.mktemp("wheels"), "3.11", "setuptools", "wheel")
    with system_with(knobs, "bookworm", source, [(wheels, WHEELS)]) as one:
        one.apt_get("install", "--no-install-recommends", "python3-venv")
        one.shell(f"cp -r /opt/packages {CHECKOUT}")
        yield one


@pytest.fixture(scope="module")
def before(host: Installed) -> set[str]:
    """The files before, but for the checkout's."""
    return outside(host)


def outside(host: Installed) -> set[str]:
    """The files of the system, but for the checkout's."""
    return {name for name in host.files() if not name.startswith(CHECKOUT)}


def test_it_starts_watching(host: Installed, before: set[str]) -> None:
    does(host, commands_of_page("From source, as a service")[0])
    assert host.shows("ActiveState") == "active", host.journal()
    assert host.shows("StatusText") == "off: 0 B saved, only watching"
    assert host.shows("UnitFileState") == "enabled"


def test_it_is_switched_on(host: Installed) -> None:
    (switch,) = (block for block in commands_of_page("Look, then switch on") if block.startswith("rm "))
    does(host, f"{PINNED}\n{switch}")
    steers(host)


def test_its_socket_can_be_masked(host: Installed) -> None:
    does(host, "systemctl mask --now ksmtuned-py.socket")
    assert host.shell("systemctl show --property=LoadState ksmtuned-py.socket") == "LoadState=masked\n"
    does(host, "systemctl unmask ksmtuned-py.socket")
    assert host.shell("systemctl show --property=LoadState ksmtuned-py.socket") == "LoadState=loaded\n"


def test_a_reload_with_a_mistake_fails(host: Installed) -> None:
    bad = f"{CONFIG}/config.d/70-bad.toml"
    done = host.container.ended("sh", "-c", f"echo 'policy.name = \"fixt\"' > {bad}; systemctl reload ksmtuned-py")
    assert done.returncode == 1
    assert f"{bad}:1: policy.name" in host.journal()
    host.shell(f"rm {bad}; systemctl reload ksmtuned-py")


def test_it_is_removed_and_no_file_stays(host: Installed, before: set[str]) -> None:
    does(host, commands_of_page("From source, as a service")[1])
    assert host.knobs() == host.found
    assert outside(host) - before == {"/usr/local/lib/systemd", "/usr/local/lib/systemd/system"}
    assert host.container.run("systemctl", "status", "ksmtuned-py").startswith("Unit ksmtuned-py.service could not")


def test_it_takes_over_from_ksmtuned_and_gives_back(host: Installed) -> None:
    install, remove, come, go_back = commands_of_page("From source, as a service")
    host.apt_get("install", "--no-install-recommends", "ksmtuned")
    host.shell("sed -i 's/.*KSM_THRES_COEF=.*/KSM_THRES_COEF=33/' /etc/ksmtuned.conf")
    does(host, f"{install}\n{come}")
    assert (is_active(host, "ksmtuned"), is_active(host, "ksmtuned-py")) == ("inactive", "active")
    assert "short_enter_percent = 33" in host.shell("ksmtuned-py check --show")
    does(host, f"{remove}\n{go_back}")
    assert (is_active(host, "ksmtuned"), is_active(host, "ksmtuned-py")) == ("active", "inactive")


def is_active(host: Installed, unit: str) -> str:
    """What systemd says of a unit."""
    return host.container.run("systemctl", "is-active", unit).strip()
