"""The package for distributions whose own libraries are new enough: built and installed on a bare Debian 13.

What it does there, from its installation to its purge, is in test_deb.
"""

from collections.abc import Iterator

import pytest

from ksmtuned_py import __version__
from tests.packages.conftest import Installed, system, tracked_source

pytestmark = pytest.mark.packages_long

NEEDED = "build-essential debhelper python3-build python3-setuptools python3-wheel"
BUILD = "cp -r /opt/packages /tmp/source && cd /tmp/source && packaging/build.sh deb --flavour system --out /tmp/built"


@pytest.fixture(scope="module")
def trixie(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    """A bare Debian 13, with this source at hand."""
    source = tracked_source(tmp_path_factory.mktemp("source"))
    with system("trixie", source) as one:
        yield one


def test_it_is_built_there_and_installed_with_the_distributions_libraries(trixie: Installed) -> None:
    trixie.apt_get("install", "--no-install-recommends", *NEEDED.split())
    trixie.shell(BUILD)
    said = trixie.apt_get("install", "--no-install-recommends", f"/tmp/built/ksmtuned-py_{__version__}_all.deb")
    assert "To switch it on" in said
    assert trixie.shows("ActiveState") == "active", trixie.journal()
    assert trixie.shows("StatusText") == "off: 0 B saved, only watching"
    assert trixie.container.run("find", "/usr/lib/ksmtuned-py").endswith("No such file or directory\n")
