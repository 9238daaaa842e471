"""`ksmtuned-py guests`: shows what each guest saves and costs, and whether it may merge."""

from argparse import Namespace
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ksmtuned_py.cli.columns import aligned
from ksmtuned_py.cli.guesttable import COLUMNS, TEXTS, ranked, sums
from ksmtuned_py.cli.options import add_config, add_root, add_runtime_dir, add_verb
from ksmtuned_py.cli.seen import lateness, seen
from ksmtuned_py.cli.terminal import err, out, print_json
from ksmtuned_py.errors import KsmtunedError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ksmtuned_py.cli.options import Subparsers
    from ksmtuned_py.model import Guest, Snapshot


@dataclass(eq=False)
class UnknownGuest(KsmtunedError):
    """The name given fits no guest, or more than one."""

    name: str
    how_many: str
    template = "{name}: {how_many} that name, UUID or PID"
    hint_template = "ksmtuned-py guests lists them with their PIDs"


def add(subparsers: "Subparsers") -> None:
    """Adds the verb."""
    parser = add_verb(
        subparsers,
        "guests",
        run,
        "what each guest saves and costs",
        "Sorted by profit: merged and zero pages less the kernel's records of 64 bytes for each page tracked. "
        "A page shared by two guests counts as merged in both, so the guests' sum exceeds what the host saves.",
    )
    add_config(parser)
    add_root(parser)
    add_runtime_dir(parser)
    parser.add_argument("--json", action="store_true", help="an array, one object for each guest")


def run(args: Namespace) -> int:
    """Prints the guests as the daemon saw them last, or without a daemon as they are now."""
    found, alive = seen(args)
    now = found.snapshot
    if alive and (late := lateness(found)):
        err().print(late, style="red")
    guests = ranked(now.guests, "PROFIT", now.page_bytes)
    if args.json:
        print_json([as_object(guest, now.page_bytes) for guest in guests])
        return 0
    _print_table(guests, now.page_bytes)
    _print_sums(now)
    return 0


def find_guest(guests: "Iterable[Guest]", word: str) -> "Guest":
    """The one guest with this word as one of its names, its UUID or its PID; raises UnknownGuest."""
    from ksmtuned_py.guests.names import goes_by

    found = [guest for guest in guests if goes_by(guest, word)]
    if len(found) != 1:
        raise UnknownGuest(word, "several guests have" if found else "no guest has")
    return found[0]


def as_object(guest: "Guest", page_bytes: int) -> dict[str, Any]:
    """A guest as JSON for programs. The kernel's pages become bytes, and null stands for unknown."""
    from ksmtuned_py.model import RMAP_ITEM_BYTES, GuestKsm

    ksm = guest.ksm or GuestKsm()
    merged = (ksm.merging_pages + ksm.zero_pages) * page_bytes
    account = {
        "candidate_bytes": ksm.rmap_items * page_bytes,
        "merged_bytes": ksm.merging_pages * page_bytes,
        "zero_bytes": ksm.zero_pages * page_bytes,
        "bookkeeping_bytes": ksm.rmap_items * RMAP_ITEM_BYTES,
        "profit_bytes": ksm.profit_bytes,
        "debt_bytes": merged,
        "mergeable": ksm.mergeable,
        "shared_ratio": merged / guest.rss_bytes if guest.rss_bytes else None,
    }
    return {
        "name": guest.name,
        "aliases": list(guest.aliases),
        "uuid": guest.uuid,
        "pid": guest.pid,
        "kind": guest.kind,
        "evidence": list(guest.evidence),
        "cgroup": guest.cgroup,
        "group": guest.group,
        "tag": guest.tag,
        "resident_bytes": guest.rss_bytes,
        "huge_bytes": guest.huge_bytes,
        **(account if guest.ksm else dict.fromkeys(account)),
        "room_bytes": guest.room_bytes,
        "obstacles": list(guest.obstacles),
        "refused": guest.refused or "",
        "libvirt_age_seconds": guest.libvirt_age_seconds,
        "unknown": list(guest.unknown),
        "wanted_merge": guest.merge,
        "wanted_reason": guest.merge_reason,
        "switched_off": guest.switched_off,
        "losing_passes": guest.losing_passes,
    }


def _print_table(guests: "list[Guest]", page_bytes: int) -> None:
    rows = [[column.header for column in COLUMNS], *([c.cell(guest, page_bytes) for c in COLUMNS] for guest in guests)]
    for number, line in enumerate(aligned(rows, TEXTS)):
        out().print(line, style=None if number else "bold")


def _print_sums(now: "Snapshot") -> None:
    from ksmtuned_py.units import human_seconds

    out().print(f"\n{sums(now)}")
    ages = [guest.libvirt_age_seconds for guest in now.guests if guest.libvirt_age_seconds is not None]
    if ages:
        out().print(f"libvirt told of {len(ages)} of them {human_seconds(max(ages))} before that")
    for problem in now.problems:
        err().print(problem, style="yellow")
