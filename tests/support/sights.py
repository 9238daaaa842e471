"""What a live screen has to show, made by hand."""

from dataclasses import replace
from typing import Any

from ksmtuned_py.cli.live.past import Past
from ksmtuned_py.cli.live.sight import Sight
from ksmtuned_py.model import Guest, GuestKsm, Snapshot
from ksmtuned_py.publish.statusfile import status_of
from ksmtuned_py.publish.totals import Totals
from ksmtuned_py.units import MIB
from tests.support.reports import FULL, report


def guest(name: str, number: int = 1, profit_bytes: int | None = None, **fields: Any) -> Guest:
    """Returns a guest; its figures follow from its number."""
    pages = number * 256
    profit = pages * 4096 if profit_bytes is None else profit_bytes
    account = GuestKsm(rmap_items=2 * pages, merging_pages=pages, zero_pages=0, profit_bytes=profit, mergeable=True)
    fields = {"rss_bytes": number * 4 * MIB, "ksm": account, **fields}
    return Guest(pid=1000 + number, start_ticks=number, name=name, kind="qemu", **fields)


MANY = tuple(guest(f"guest-{number:03}", number) for number in range(1, 501))


def sight(snapshot: Snapshot = FULL, *, looks: int = 12, headline: str = "daemon 998, 1 s ago", **fields: Any) -> Sight:
    """Returns what was seen after so many looks; `fields` are the snapshot's."""
    past, totals = Past(), Totals()
    for number in range(looks):
        told = report(snapshot, after_seconds=2.0 * number, **fields)
        past, totals = past.after(told.snapshot), totals.after(told)
    status = replace(status_of(told, totals), written_unix_seconds=0.0, pid=998)
    return Sight(status=status, host="host", headline=headline, headline_style="green", past=past)
