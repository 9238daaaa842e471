"""A libvirtd for the tests here: its directories once for all of them, itself anew for each."""

from collections.abc import Iterator

import pytest

from tests.support.libvirtd import Libvirtd, libvirt_place


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Libvirtd]:
    """Where it can be started; what libvirt finds out about QEMU (4 s) is kept from test to test."""
    with libvirt_place(tmp_path_factory.mktemp("libvirt")) as found:
        yield found


@pytest.fixture
def libvirtd(place: Libvirtd) -> Iterator[Libvirtd]:
    """A running one; ended with all its domains."""
    place.start()
    try:
        yield place
    finally:
        place.end()
