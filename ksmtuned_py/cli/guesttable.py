"""The guests' table: its columns as data, with what they show and what they are sorted by. Pure."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from ksmtuned_py.model import RMAP_ITEM_BYTES, Guest, GuestKsm, Snapshot
from ksmtuned_py.model.room import limit_lack, merged_bytes
from ksmtuned_py.units import human_bytes, human_percent, human_seconds

Value = str | int | None
"""What a column is sorted by; None = not known."""


@dataclass(frozen=True, slots=True)
class GuestColumn:
    """One column. It reads a guest's value, given the bytes of a page."""

    header: str
    value: Callable[[Guest, int], Value]
    words: Callable[[int], str] = human_bytes
    """How a number is shown."""
    help: str = ""

    @property
    def is_text(self) -> bool:
        """Whether it stands at the left, and is sorted from A on."""
        return self.header in TEXTS

    def cell(self, guest: Guest, page_bytes: int) -> str:
        """What it shows of a guest."""
        value = self.value(guest, page_bytes)
        if isinstance(value, str):
            return value
        return "?" if value is None else self.words(value)


TEXTS = frozenset({"GUEST", "GROUP", "MERGING"})


def _account(header: str, count: Callable[[GuestKsm, int], int], text: str) -> GuestColumn:
    """A column of the kernel's account for a guest, which may be missing."""
    return GuestColumn(header, lambda guest, page: count(guest.ksm, page) if guest.ksm else None, help=text)


COLUMNS = (
    GuestColumn("GUEST", lambda guest, _: guest.name, help="its name"),
    GuestColumn("PID", lambda guest, _: guest.pid, str, "its process"),
    GuestColumn("MEMORY", lambda guest, _: guest.rss_bytes, help="its resident memory"),
    GuestColumn("HUGE", lambda guest, _: guest.huge_bytes, help="what of it is in huge pages"),
    _account("TRACKED", lambda ksm, page: ksm.rmap_items * page, "what ksmd has scanned of it"),
    _account("MERGED", lambda ksm, page: ksm.merging_pages * page, "what is merged with other memory"),
    _account("ZERO", lambda ksm, page: ksm.zero_pages * page, "what is merged with the page of zeros"),
    _account("RECORDS", lambda ksm, _: ksm.rmap_items * RMAP_ITEM_BYTES, "the kernel's records of what it tracks"),
    _account("PROFIT", lambda ksm, _: ksm.profit_bytes, "merged and zero pages less the records"),
    GuestColumn("GROUP", lambda guest, _: guest.group, help="with whom it may share, by the rules"),
    GuestColumn("MERGING", lambda guest, _: merging(guest), help="whether it may merge, and if not, why"),
)
BY_HEADER = {column.header: column for column in COLUMNS}


def merging(guest: Guest) -> str:
    """Whether a guest may merge, in a word, or why it may not."""
    if guest.switched_off:
        return f"switched off: {guest.merge_reason}"
    if guest.obstacles:
        return ", ".join(guest.obstacles)
    if guest.merge is False and (guest.ksm is None or guest.ksm.mergeable is not False):
        return f"not switched off yet: {guest.merge_reason}"
    if guest.refused:
        return guest.refused
    answers = {True: "yes", False: "no", None: "?"}
    return answers[guest.ksm.mergeable if guest.ksm else None]


def ranked(guests: Iterable[Guest], header: str, page_bytes: int, *, reverse: bool = False) -> list[Guest]:
    """The guests by one column: numbers from the largest on, texts from A on, and last those of whom it knows nothing.

    In reverse they are the other way round, but for the last.
    """
    column = BY_HEADER[header]
    values = [(column.value(guest, page_bytes), guest) for guest in guests]
    known = [(value, guest) for value, guest in values if value is not None]
    known.sort(key=lambda pair: pair[0], reverse=reverse == column.is_text)
    return [guest for _, guest in known] + [guest for value, guest in values if value is None]


def sums(now: Snapshot) -> str:
    """The sentence below the table."""
    merged = sum(merged_bytes(guest, now.page_bytes) for guest in now.guests)
    return (
        f"{len(now.guests)} guests: {human_bytes(merged)} merged in all; the host saves "
        f"{human_bytes(now.saved_bytes)}, for the first owner of each shared page saves nothing by it"
    )


def short_of_room(now: Snapshot) -> list[Guest]:
    """The guests whose cgroups would not let them take back all that they have merged."""
    return [guest for guest in now.guests if limit_lack(merged_bytes(guest, now.page_bytes), guest.room_bytes)]


OBSTACLES = {
    "nosharepages": "its own configuration keeps it out (nosharepages)",
    "encrypted": "its memory is encrypted or hidden from the host, and never merges",
    "hugepages": "its memory is in static huge pages, which never merge",
    "shared": "it shares its memory with another process, and only private memory merges",
    "vfio": "a passed-through device pins its memory, and pinned pages never merge",
    "nvme": "an NVMe disk that QEMU drives by itself pins its memory, and pinned pages never merge",
    "vdpa": "a vDPA device pins its memory, and pinned pages never merge",
}
"""What Guest.obstacles means."""


def why_merging(guest: Guest, page_bytes: int) -> Iterator[str]:
    """Sentences on why a guest may merge, or may not, and what came of it."""
    merged = merged_bytes(guest, page_bytes)
    yield from (OBSTACLES.get(word, word) for word in guest.obstacles)
    if guest.switched_off or guest.merge is False:
        yield f"{'it is switched off' if guest.switched_off else 'it is to be kept out'}: {guest.merge_reason}"
    elif guest.merge:
        yield f"it may merge: {guest.merge_reason}"
    if guest.refused:
        yield f"the scan backend leaves it alone: {guest.refused}"
    if guest.ksm is None:
        yield "what it has merged is not known"
    elif guest.ksm.mergeable is False:
        yield "its process has not asked for merging"
    elif merged:
        yield f"{human_percent(merged / max(1, guest.rss_bytes))} of its memory is merged"
    elif guest.ksm.rmap_items:
        yield "its pages were scanned, and none has an equal yet"
    else:
        yield "ksmd has not scanned it yet"
    if guest.losing_passes:
        yield f"for {guest.losing_passes} passes in a row it has cost more memory than it saved"
    if lack := limit_lack(merged, guest.room_bytes):
        yield f"if it wrote to all that is merged: {lack}"


def account(guest: Guest, page_bytes: int) -> Iterator[tuple[str, str]]:
    """All that is known of a guest, as rows: the words of the table first, then what has no column."""
    for column in COLUMNS:
        if cell := column.cell(guest, page_bytes):
            yield column.header.lower(), cell
    for name, value in _others(guest):
        if value:
            yield name, value


def _others(guest: Guest) -> Iterator[tuple[str, str]]:
    yield "room", "" if guest.room_bytes is None else f"its cgroups let it take {human_bytes(guest.room_bytes)} more"
    if guest.slice is not None:
        left, limit = human_bytes(guest.slice.available_bytes), human_bytes(guest.slice.limit_bytes)
        yield "slice", f"{guest.slice.cgroup}: {left} of {limit} left, for all guests in it"
    yield "kind", guest.kind
    yield "evidence", ", ".join(guest.evidence)
    yield "other names", ", ".join(guest.aliases)
    yield "UUID", guest.uuid
    yield "tag", guest.tag
    yield "namespace", guest.namespace
    yield "cgroup", guest.cgroup
    age = guest.libvirt_age_seconds
    yield "libvirt", "" if age is None else f"told of it {human_seconds(age)} before"
    yield "not known", ", ".join(guest.unknown)
