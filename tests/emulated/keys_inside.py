"""Remaps guests whose memory has protection keys on an emulated processor, because not every real one has keys."""

import json
import sys
from contextlib import ExitStack
from pathlib import Path

from ksmtuned_py.backends.scan import ScanBackend
from tests.scan.inside import MIB, guest, sharing, unharmed
from tests.scan.writers import Writer, stores
from tests.support.process import wait_for

PATIENCE_SECONDS = 120.0
LEAST_PAGES = 300
PASSES = 3


def main() -> None:
    """Scan one guest that has a key and one that gets it after it was merged, and print one line of JSON."""
    with ExitStack() as stack:
        early, late = (stack.enter_context(keyed(name)) for name in ("keyed", "keyed=later"))
        with sharing([early, late], least_pages=LEAST_PAGES) as backend:
            assert stores(late)
            found = keys_and_refusal(backend, early, late)
        found["wrong_bytes"] = sum(unharmed(one)["wrong"] for one in (early, late))
    print(json.dumps(found))


def keyed(word: str) -> Writer:
    """Start a guest that gives half of its memory a key. The half is as large as what may be remapped."""
    return Writer(word, command=(sys.executable, "-m", "tests.scan.lively", str(2 * MIB), word))


def keys_and_refusal(backend: ScanBackend, early: Writer, late: Writer) -> dict[str, object]:
    """Give the second guest a key while it shares pages, let some passes go by, and tell what became of both."""
    begin, size, key = map(int, late.ask("key").split())
    wait_passes(backend)
    return {
        "key": key,
        "keys": sorted(keys_of(late, begin, size)),
        "refused": backend.refused.get(guest(early).key, ""),
        "restarts": backend.restarts,
    }


def wait_passes(backend: ScanBackend) -> None:
    """Wait for some whole passes."""
    begun = backend.counters().full_scans
    wait_for(lambda: backend.counters().full_scans >= begun + PASSES, PATIENCE_SECONDS, "passes", every_seconds=0.5)


def keys_of(one: Writer, begin: int, size: int) -> set[int]:
    """The protection keys of that memory."""
    found, start, end = set(), 0, 0
    for line in Path(f"/proc/{one.pid}/smaps").read_text().splitlines():
        name, *words = line.split()
        if name == "ProtectionKey:" and start < begin + size and end > begin:
            found.add(int(words[0]))
        elif not name.endswith(":"):
            start, end = (int(word, 16) for word in name.split("-"))
    return found


if __name__ == "__main__":
    main()
