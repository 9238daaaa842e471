"""Runs the daemon on an emulated machine's kernel whose ksmd has split all huge pages of two guests."""

import json
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.emulated.huge_inside import GUEST_MIB, PATIENCE_SECONDS, TWICE, merge_all, number
from tests.support.daemon import QUIET, Daemon, merged
from tests.support.hugeguest import guests_in_huge_pages
from tests.support.process import wait_for

SECTIONS = merged(
    QUIET,
    {"adaptive": {"huge_pages_back": True}, "daemon": {"idle_tick_seconds": 2}},
    {"adaptive.need": {"wary_enter_percent": 10, "wary_leave_percent": 12}},
    {"adaptive.need": {"short_enter_percent": 6, "short_leave_percent": 7}},
)
"""A small machine has plenty sooner."""


def main() -> None:
    """Run it until the guests have their huge pages back, and print one line of JSON."""
    with guests_in_huge_pages(2, GUEST_MIB, TWICE) as guests:
        found: dict[str, object] = {"whole": [guest.huge_bytes() for guest in guests]}
        before = [guest.contents() for guest in guests]
        merge_all()
        found["split"] = [guest.huge_bytes() for guest in guests]
        with TemporaryDirectory() as scratch, Daemon(Path(scratch), SECTIONS) as daemon:
            wait(daemon, lambda: told(daemon).get("given", 0) > 0, "what was given back")
            wait(daemon, lambda: "huge pages are back" in daemon.output(), "its word")
            wait(daemon, lambda: daemon.status()["decision"]["rule"] == "plenty", "plenty")
            found["told"] = told(daemon)
            found["run"] = number("run")
            found["exit_code"] = daemon.end(seconds=PATIENCE_SECONDS)
        found["back"] = [guest.huge_bytes() for guest in guests]
        found["unchanged"] = [guest.contents() for guest in guests] == before
    print(json.dumps(found))


def wait(daemon: Daemon, look: Callable[[], object], what: str) -> None:
    """Look until it sees something true, and not often, because that takes time in here."""
    wait_for(look, PATIENCE_SECONDS, what, every_seconds=0.5, said=daemon.output)


def told(daemon: Daemon) -> dict[str, Any]:
    """What it tells of huge pages that it gave back."""
    found: dict[str, Any] = daemon.status().get("totals", {}).get("huge_back", {})
    return found


if __name__ == "__main__":
    main()
