"""A domain with nosharepages is started with mem-merge=off, and stays out of merging whatever a rule says.

That is what KubeVirt's annotation is to become in the libvirt of a pod, which the host's libvirt does not know of.
"""

import json
from pathlib import Path

import pytest

from tests.guests_libvirt.test_daemon import guest, put_rules, rule, sections, wait_merged
from tests.support.daemon import Daemon, verb
from tests.support.ksmlock import RealKsm
from tests.support.libvirtd import Libvirtd

pytest.importorskip("libvirt")

NAME = "opted-out"
MERGES = rule(merge="yes")
XML = "<domain type='qemu'><name>a</name><memory>65536</memory>{}<os><type arch='x86_64'>hvm</type></os></domain>"


def machine(arguments: list[str]) -> str:
    """What is said of the machine on QEMU's command line."""
    return arguments[arguments.index("-machine") + 1]


@pytest.mark.parametrize("off", [True, False])
def test_libvirt_makes_mem_merge_of_nosharepages(off: bool, libvirtd: Libvirtd) -> None:
    xml = libvirtd.directory / "native.xml"
    xml.write_text(XML.format("<memoryBacking><nosharepages/></memoryBacking>" if off else ""))
    native = libvirtd.virsh("domxml-to-native", "qemu-argv", "--xml", str(xml))
    assert ("mem-merge=off" in machine(native.split()).split(",")) is off


def test_it_is_seen_without_the_libvirt_that_started_it(libvirtd: Libvirtd, tmp_path: Path) -> None:
    domain = libvirtd.create(NAME, backing="<nosharepages/>")
    assert "mem-merge=off" in machine(Path(f"/proc/{domain.pid}/cmdline").read_text().split("\0")).split(",")
    assert not domain.ram()[1]
    config = tmp_path / "cli.toml"
    config.write_text(f'guests.libvirt_uri = ""\n{MERGES}')
    done = verb("guests", "--json", "--config", config, "--runtime-dir", tmp_path / "none")
    (told,) = [each for each in json.loads(done.stdout) if each["name"] == NAME]
    assert (told["obstacles"], told["libvirt_age_seconds"]) == (["nosharepages"], None)
    assert told["mergeable"] in (False, None)  # which only newer kernels tell


@pytest.mark.kernel
@pytest.mark.qemu
def test_no_rule_lets_it_merge(libvirtd: Libvirtd, real_ksm: RealKsm, tmp_path: Path) -> None:
    base = sections(libvirtd)
    with Daemon(tmp_path, base) as daemon:
        daemon.wait_ticks()
        put_rules(daemon, base, MERGES)
        out, *others = [libvirtd.create(NAME, backing="<nosharepages/>"), *map(libvirtd.create, ("web", "db"))]
        wait_merged(others)
        found = guest(daemon.wait_status(lambda status: guest(status, NAME).get("merge"), "word of the rule"), NAME)
        assert (found["obstacles"], found["switched_off"]) == (["nosharepages"], False)
        assert (out.ram()[1], out.merging_pages()) == (False, 0)
        assert real_ksm.number("run") == 1
        assert daemon.end() == 0
