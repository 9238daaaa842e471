"""The daemon drives the scan backend like ksmd, with the same ticks, the same counters, and a clean end."""

import os
from pathlib import Path

from ksmtuned_py.cli.workload import PAGE_BYTES, Mix, workloads
from ksmtuned_py.units import MIB
from tests.support.daemon import QUIET, Daemon, merged, verb
from tests.support.need import need

ONLY_OURS = {"guests": {"name_patterns": ["scan-me"], "mergeable": False, "libvirt_uri": ""}}
MIX = Mix(equal_bytes=8 * MIB, unique_bytes=8 * MIB)


def test_policies_drive_it_like_ksmd(tmp_path: Path) -> None:
    need(os.geteuid() == 0, "root, to read other processes' memory")
    sections = merged(
        QUIET,
        ONLY_OURS,
        {"daemon": {"idle_tick_seconds": 1}, "scan": {"reclaim": "report"}, "policy": {"name": "fixed"}},
    )
    with (
        workloads([MIX, MIX], prefix="scanned", comm="scan-me") as children,
        Daemon(tmp_path, sections, "--backend", "scan") as daemon,
    ):
        found = daemon.wait_status(lambda status: status["snapshot"]["counters"]["full_scans"] >= 2, "two passes")
        assert found["snapshot"]["backend"] == "scan"
        assert found["decision"]["mode"] == "pinned"
        assert {"scanned-1", "scanned-2"} <= {guest["name"] for guest in found["snapshot"]["guests"]}
        assert found["snapshot"]["counters"]["pages_scanned"] >= 4 * 16 * MIB // PAGE_BYTES
        assert found["snapshot"]["knobs"]["pages_to_scan"] == 1000
        daemon.end()
        assert [child.wrong_pages() for child in children] == [0, 0]
        assert verb("restore", "--runtime-dir", daemon.runtime).stdout == "nothing to put back\n"
