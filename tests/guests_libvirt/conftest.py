"""Gives each test a libvirtd of its own, with directories that all of them share."""

from collections.abc import Iterator

import pytest

from tests.support.libvirtd import Libvirtd, libvirt_place


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Libvirtd]:
    """A libvirtd that can be started. What libvirt finds out about QEMU (4 s) is kept from test to test."""
    with libvirt_place(tmp_path_factory.mktemp("libvirt")) as found:
        yield found


@pytest.fixture
def libvirtd(place: Libvirtd) -> Iterator[Libvirtd]:
    """A running libvirtd, which is ended with all its domains."""
    place.start()
    try:
        yield place
    finally:
        place.end()
