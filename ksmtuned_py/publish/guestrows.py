"""The metrics that have a series for each guest."""

from collections.abc import Callable, Iterator

from ksmtuned_py.model import Guest, GuestKsm, Snapshot
from ksmtuned_py.publish.rows import Row, Sample, gauge

GUEST_LABELS = ("guest", "uuid", "pid")
LOSING_HELP = "Passes in a row in which its bookkeeping takes more memory than merging saves"
OTHER = ("other", "", "")
REFUSED = gauge(
    "guests_refused",
    "Guests that the scan backend leaves alone, or a part of them: ksmtuned-py guests has the reasons",
    lambda told: sum(bool(guest.refused) for guest in told.snapshot.guests),
)


def guest_rows(max_series: int) -> tuple[Row, ...]:
    """Rows with one series for each guest, `max_series` at most. All other guests are summed as guest="other"."""

    def row(name: str, help_text: str, value: Callable[[Snapshot, Guest], float | None]) -> Row:
        return Row(name, help_text, "gauge", GUEST_LABELS, lambda told: _by_guest(told.snapshot, max_series, value))

    def account(name: str, help_text: str, value: Callable[[Snapshot, GuestKsm], float]) -> Row:
        return row(name, help_text, lambda snapshot, guest: value(snapshot, guest.ksm) if guest.ksm else None)

    return (
        gauge("guests", "Processes whose memory may merge", lambda told: len(told.snapshot.guests)),
        REFUSED,
        row("guest_resident_bytes", "Resident memory", lambda _, guest: guest.rss_bytes),
        row("guest_huge_bytes", "Private memory in huge pages", lambda _, guest: guest.huge_bytes),
        account(
            "guest_saved_bytes",
            "Merged memory; the sum over guests exceeds saved_bytes, for the first owner of a page counts it too",
            lambda snapshot, ksm: (ksm.merging_pages + ksm.zero_pages) * snapshot.page_bytes,
        ),
        account("guest_zero_bytes", "Pages of zeros of it", lambda snapshot, ksm: ksm.zero_pages * snapshot.page_bytes),
        account(
            "guest_candidate_bytes",
            "Memory that is scanned",
            lambda snapshot, ksm: ksm.rmap_items * snapshot.page_bytes,
        ),
        account("guest_profit_bytes", "Merged memory less bookkeeping", lambda _, ksm: ksm.profit_bytes),
        account("guest_rmap_items", "Pages the kernel keeps a record of", lambda _, ksm: ksm.rmap_items),
        row("guest_mergeable", "1 when some of its memory is offered to ksmd", lambda _, guest: _mergeable(guest)),
        row("guest_switched_off", "1 while a rule keeps its memory out", lambda _, guest: guest.switched_off),
        row("guest_losing_passes", LOSING_HELP, lambda _, guest: guest.losing_passes),
        row("guest_room_bytes", "What its cgroup lets it take on top", lambda _, guest: guest.room_bytes),
        row(
            "guest_debt_exceeded",
            "1 when writing to all its merged pages would take it over its cgroup's memory.max",
            _debt_exceeded,
        ),
    )


def _mergeable(guest: Guest) -> float | None:
    return guest.ksm.mergeable if guest.ksm else None


def _debt_exceeded(snapshot: Snapshot, guest: Guest) -> float | None:
    if guest.ksm is None or guest.room_bytes is None:
        return None
    return (guest.ksm.merging_pages + guest.ksm.zero_pages) * snapshot.page_bytes > guest.room_bytes


def _by_guest(
    snapshot: Snapshot, max_series: int, value: Callable[[Snapshot, Guest], float | None]
) -> Iterator[Sample]:
    # The oldest guests keep their series. Ranks by size would change at every scrape, and the series with them.
    guests = sorted(snapshot.guests, key=lambda guest: (guest.start_ticks, guest.pid))
    for guest in guests[:max_series]:
        yield (guest.name, guest.uuid, str(guest.pid)), value(snapshot, guest)
    others = [number for guest in guests[max_series:] if (number := value(snapshot, guest)) is not None]
    yield OTHER, sum(others) if others else None
