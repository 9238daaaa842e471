"""The link follows a real libvirtd that is killed, stopped and started again, and libvirt's test driver."""

import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing

import pytest

from ksmtuned_py.guests.domains import View
from ksmtuned_py.hypervisor.link import LibvirtLink, LibvirtRefused, memory_backends, set_merging
from ksmtuned_py.units import MIB
from tests.support.libvirtd import MEMORY_MIB, Libvirtd
from tests.support.process import wait_for

libvirt = pytest.importorskip("libvirt")


def seen(link: LibvirtLink, look: Callable[[View], object], what: str, seconds: float = 15.0) -> View:
    """Wait for the first view for which `look` is true, and return it."""
    wait_for(lambda: look(link.view), seconds, what)
    return link.view


def names(view: View) -> set[str]:
    """The names of the domains in a view."""
    return {domain.name for domain in view.domains.values()}


def test_the_test_driver_has_one_domain() -> None:
    with closing(LibvirtLink("test:///default")) as link:
        assert names(seen(link, lambda view: view.domains, "domain")) == {"test"}
        assert link.view.problem is None


def test_what_nobody_thought_of_is_told_and_tried_again() -> None:
    """libvirt-python raises a ValueError for this URI."""
    with closing(LibvirtLink("test:///\0")) as link:
        assert "ValueError" in str(seen(link, lambda view: view.problem, "problem").problem)
        assert any(thread.name == "libvirt" for thread in threading.enumerate())


def test_a_start_wakes_whoever_waits_and_a_stop_forgets(libvirtd: Libvirtd) -> None:
    with closing(LibvirtLink(libvirtd.uri)) as link:
        seen(link, lambda view: view.at_seconds is not None, "first list")
        domain = libvirtd.create("web", tag="gold", backing="<nosharepages/>")
        assert select.select([link], [], [], 10.0)[0] == [link]
        assert link.drain()
        found = seen(link, lambda view: domain.uuid in view.domains, "domain").domains[domain.uuid]
        link.drain()  # a start may wake twice: as it is told, and as it is known
        assert (found.name, found.tag, found.obstacles) == ("web", "gold", ("nosharepages",))
        libvirtd.destroy("web")
        seen(link, lambda view: not view.domains, "end of the domain")
        assert not link.drain()


def test_new_metadata_of_a_running_domain_is_seen(libvirtd: Libvirtd) -> None:
    domain = libvirtd.create("web", tag="gold")
    with closing(LibvirtLink(libvirtd.uri)) as link:
        seen(link, lambda view: view.domains, "domain")
        libvirtd.tag("web", "silver")
        seen(link, lambda view: view.domains[domain.uuid].tag == "silver", "new tag")


def test_a_killed_libvirtd_leaves_the_last_view_and_is_found_again(libvirtd: Libvirtd) -> None:
    libvirtd.create("web")
    with closing(LibvirtLink(libvirtd.uri)) as link:
        seen(link, lambda view: view.domains, "domain")
        libvirtd.kill()
        broken = seen(link, lambda view: view.problem, "problem")
        assert names(broken) == {"web"}
        libvirtd.start()
        again = seen(link, lambda view: not view.problem, "end of the problem")
        assert names(again) == {"web"}
        assert again.at_seconds is not None
        assert broken.at_seconds is not None
        assert again.at_seconds > broken.at_seconds
        libvirtd.create("db")
        seen(link, lambda view: names(view) == {"web", "db"}, "second domain")


def test_a_libvirtd_that_hangs_is_given_up_and_found_again(libvirtd: Libvirtd) -> None:
    libvirtd.create("web")
    with closing(LibvirtLink(libvirtd.uri)) as link:
        seen(link, lambda view: view.domains, "domain")
        os.kill(libvirtd.pid, signal.SIGSTOP)
        try:
            assert names(seen(link, lambda view: view.problem, "problem", seconds=30.0)) == {"web"}
        finally:
            os.kill(libvirtd.pid, signal.SIGCONT)
        seen(link, lambda view: not view.problem, "end of the problem")


def test_no_such_libvirtd_is_a_problem_and_closing_does_not_wait() -> None:
    with closing(LibvirtLink("qemu+unix:///system?socket=/nonexistent")) as link:
        assert "connecting to" in str(seen(link, lambda view: view.problem, "problem").problem)
        assert link.view.at_seconds is None


def test_the_library_is_not_loaded_where_there_is_no_libvirt() -> None:
    if os.path.exists("/run/libvirt/libvirt-sock-ro"):  # noqa: PTH110 - a libvirtd of this machine's own
        pytest.skip("this machine has a libvirtd")
    code = (
        "import sys, time; from ksmtuned_py.hypervisor.link import LibvirtLink; link = LibvirtLink(); "
        "time.sleep(0.3); link.close(); sys.exit('libvirt' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_qemu_takes_its_memory_out_of_merging_and_in_again(libvirtd: Libvirtd) -> None:
    domain = libvirtd.create("web")
    (backend,) = memory_backends(libvirtd.uri, domain.uuid)
    assert (backend.size_bytes, backend.merge, backend.shared) == (MEMORY_MIB * MIB, True, False)
    assert domain.ram()[1]
    for merge in (False, False, True):
        assert [each.merge for each in set_merging(libvirtd.uri, domain.uuid, merge)] == [merge]
        assert domain.ram()[1] == merge


def test_a_domain_that_is_gone_is_an_error_of_the_house(libvirtd: Libvirtd) -> None:
    with pytest.raises(LibvirtRefused, match="asking the monitor"):
        memory_backends(libvirtd.uri, "00000000-0000-0000-0000-000000000001")


def test_many_restarts_leave_nothing_open(libvirtd: Libvirtd) -> None:
    libvirtd.create("web")
    with closing(LibvirtLink(libvirtd.uri)) as link:
        seen(link, lambda view: view.domains, "domain")
        before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - a count
        for _ in range(3):
            libvirtd.kill()
            seen(link, lambda view: view.problem, "problem")
            libvirtd.start()
            seen(link, lambda view: not view.problem, "end of the problem", seconds=40.0)
        time.sleep(0.1)
        assert len(os.listdir("/proc/self/fd")) <= before + 1  # noqa: PTH208 - a count
