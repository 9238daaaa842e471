"""Models a whole host: guests, their memory, ksmd with its files, and a time that is told to pass."""

from collections.abc import Iterable
from functools import partial
from typing import Literal, TypeAlias

from ksmtuned_py.ksmdmodel.advisor import ModelAdvisor
from ksmtuned_py.ksmdmodel.costs import Costs
from ksmtuned_py.ksmdmodel.guestmemory import NANOSECONDS, Group, GuestMemory, PageGroup
from ksmtuned_py.ksmdmodel.hugeranges import HUGE_PAGES, HugeRanges
from ksmtuned_py.ksmdmodel.khugepaged import Khugepaged
from ksmtuned_py.ksmdmodel.ksmd import Ksmd
from ksmtuned_py.ksmdmodel.pages import PagePlace
from ksmtuned_py.ksmdmodel.savings import mergeable_pages
from ksmtuned_py.ksmdmodel.settings import LINUX_6_12, Features, Settings
from ksmtuned_py.model import (
    MUTEX_KNOBS,
    RMAP_ITEM_BYTES,
    Counters,
    Guest,
    GuestKsm,
    Knobs,
    Memory,
    Run,
    Vmstat,
    Write,
    WriteResult,
    WriteStatus,
)
from ksmtuned_py.units import GIB, KIB

PATIENCE_SECONDS = 0.1
"""A write that waits longer than this for ksmd's mutex is PENDING."""
TICKS_PER_SECOND = 100
FIRST_PID = 1000
Paging: TypeAlias = Literal["small", "rows", "mixed"]
"""A guest's memory is in small pages, or in huge ones: a row of them for each kind of content, or all kinds in each."""


class ModelHost:
    """The machine. Nothing happens in it except by `advance`."""

    def __init__(
        self,
        *,
        total_bytes: int = 64 * GIB,
        used_bytes: int = GIB,
        cpus: int = 4,
        page_bytes: int = 4 * KIB,
        features: Features = LINUX_6_12,
        costs: Costs | None = None,
    ) -> None:
        self.cpus = cpus
        self.page_bytes = page_bytes
        self._total_bytes = total_bytes
        self.used_bytes = used_bytes
        """Memory that others than guests use."""
        self._features = features
        self._settings = Settings(smart_scan=int("smart_scan" in features.knobs))
        self._ksmd = Ksmd(self._settings, costs or Costs())
        self._khugepaged = Khugepaged()
        self._guests: dict[str, GuestMemory] = {}
        self._huge: dict[str, HugeRanges] = {}
        self._splits_of_ended = 0
        self._now_ns = 0
        self._last_pid = FIRST_PID

    @property
    def now_seconds(self) -> float:
        """Seconds since the host was made."""
        return self._now_ns / NANOSECONDS

    def advance(self, seconds: float) -> None:
        """Lets time pass."""
        until_ns = self._now_ns + round(seconds * NANOSECONDS)
        while self._huge and self._khugepaged.next_ns <= until_ns:
            self._pass_until(self._khugepaged.next_ns)
            self._khugepaged.wake(tuple(self._huge.values()))
        self._pass_until(until_ns)

    def _pass_until(self, until_ns: int) -> None:
        self._now_ns = max(self._now_ns, until_ns)
        self._ksmd.run_until(self._now_ns)

    def add_guest(self, name: str, groups: Iterable[PageGroup], *, pages: Paging = "small") -> Guest:
        """Adds a guest with all its memory in use; raises KeyError when there is one of that name."""
        if name in self._guests:
            raise KeyError(name)
        self._last_pid += 1
        ticks = self._now_ns * TICKS_PER_SECOND // NANOSECONDS
        guest = GuestMemory(name, self._last_pid, ticks)
        trees = self._ksmd.trees
        guest.groups = [Group(guest, spec, trees, self._now_ns) for spec in groups if spec.pages]
        self._guests[name] = guest
        if pages != "small":
            guest.huge = self._huge[name] = HugeRanges(guest, mixed=pages == "mixed")
        self._ksmd.add(guest)
        return self._account(guest)

    def remove_guest(self, name: str) -> None:
        """Ends a guest; raises KeyError when there is none of that name."""
        guest = self._guests.pop(name)
        guest.end()
        if huge := self._huge.pop(name, None):
            self._splits_of_ended += huge.splits
        self._ksmd.cursor.end(guest)

    def guests(self) -> tuple[Guest, ...]:
        """Returns the guests with ksmd's account of each."""
        return tuple(self._account(guest) for guest in self._guests.values())

    def memory(self) -> Memory:
        """Returns what /proc/meminfo would say: guests use all but what is merged now, and ksmd uses its items."""
        populated = sum(guest.pages for guest in self._guests.values())
        zeroed = sum(self._zeroed(guest) for guest in self._guests.values()) + self.freed_pages()
        broken = self._unseen_breaks()
        pages = populated - zeroed - max(0, self._ksmd.trees.total.saved - broken)
        taken = self.used_bytes + pages * self.page_bytes + self._rmap_items() * RMAP_ITEM_BYTES
        available = max(0, self._total_bytes - taken)
        return Memory(
            total_bytes=self._total_bytes,
            available_bytes=available,
            free_bytes=available,
            anon_huge_bytes=sum(huge.whole for huge in self._huge.values()) * HUGE_PAGES * self.page_bytes,
        )

    def freed_pages(self) -> int:
        """Returns how many zero pages splits of huge pages freed, which ksmd's counters do not show."""
        return sum(guest.counts[PagePlace.FREED] for guest in self._guests.values())

    def huge_pages(self, name: str) -> HugeRanges | None:
        """Returns a guest's huge pages; None where its memory is in small ones."""
        return self._huge.get(name)

    def vmstat(self) -> Vmstat:
        """Returns what /proc/vmstat would say; nothing is ever swapped here."""
        splits = self._splits_of_ended + sum(huge.splits for huge in self._huge.values())
        return Vmstat(
            cow_ksm=self._ksmd.trees.cow_breaks + self._unseen_breaks(),
            pswpin=0,
            pswpout=0,
            oom_kill=0,
            thp_split_page=splits if self._huge else None,
            thp_collapse_alloc=self._khugepaged.collapses if self._huge else None,
        )

    def knobs(self) -> Knobs:
        """Returns the settable files."""
        return self._settings.knobs(self._features)

    def counters(self) -> Counters:
        """Returns the read-only files."""
        ksmd, total = self._ksmd, self._ksmd.trees.total
        items, sharing = self._rmap_items(), total.items - total.shared
        unshared = sum(guest.counts[PagePlace.UNSTABLE] for guest in ksmd.cursor.guests)
        zeroed = sum(self._zeroed(guest) for guest in ksmd.cursor.guests)
        values = {
            "pages_shared": total.shared,
            "pages_sharing": sharing,
            "pages_unshared": unshared,
            "pages_volatile": items - total.items - unshared,
            "full_scans": ksmd.full_scans,
            "pages_scanned": ksmd.pages_scanned,
            "pages_skipped": ksmd.pages_skipped,
            "ksm_zero_pages": zeroed,
            "general_profit": (sharing + zeroed) * self.page_bytes - items * RMAP_ITEM_BYTES,
            "stable_node_chains": total.chains,
            "stable_node_dups": total.dups,
        }
        return Counters(**{name: values[name] for name in self._features.counters})

    def scanner_cpu_seconds(self) -> float:
        """CPU time of ksmd, in seconds."""
        return self._ksmd.cpu_ns / NANOSECONDS

    def mergeable_pages(self) -> int:
        """Returns how many pages (pages_sharing + ksm_zero_pages) merging all that is equal now would save."""
        specs = [group.spec for guest in self._guests.values() for group in guest.groups]
        zero_page = bool(self._settings.use_zero_pages)
        return mergeable_pages(specs, self._settings.max_page_sharing, use_zero_pages=zero_page)

    def write(self, write: Write) -> WriteResult:
        """Sets one knob, as the kernel would; during a long batch three of them wait for its end."""
        if write.knob not in self._features.knobs:
            return WriteResult(write=write, status=WriteStatus.REFUSED, detail="ENOENT: this kernel has no such file")
        if write.knob in MUTEX_KNOBS and self._ksmd.busy_ns > PATIENCE_SECONDS * NANOSECONDS:
            self._ksmd.after_batch.append(partial(self._set, write))
            return WriteResult(write=write, status=WriteStatus.PENDING, detail="ksmd holds its mutex for a long batch")
        refusal = self._set(write)
        status = WriteStatus.REFUSED if refusal else WriteStatus.OK
        return WriteResult(write=write, status=status, detail=refusal or "")

    def _set(self, write: Write) -> str | None:
        knob, value, merged = write.knob, write.new, self._ksmd.trees.total.shared > 0
        refusal = self._settings.refusal(knob, value, merged=merged)
        if refusal or getattr(self._settings, knob) == value:
            return refusal
        setattr(self._settings, knob, value)
        match knob:
            case "run":
                return self._run(Run(int(value)))
            case "sleep_millisecs":
                self._ksmd.wake(self._now_ns)
            case "max_page_sharing":
                self._ksmd.trees.max_page_sharing = int(value)
            case "advisor_mode":
                self._change_advisor()
        return None

    def _run(self, value: Run) -> str | None:
        if value != Run.MERGE:
            self._ksmd.stop()
        if value != Run.UNMERGE:
            return None
        if self._ksmd.trees.total.saved * self.page_bytes > self.memory().available_bytes:
            self._settings.run = Run.STOP
            return "ENOMEM: the host has no room for what would be unmerged"
        self._ksmd.forget_all()
        return None

    def _change_advisor(self) -> None:
        if self._settings.advisor_mode == "none":
            self._settings.pages_to_scan = Settings().pages_to_scan
        else:
            self._settings.pages_to_scan = self._settings.advisor_min_pages_to_scan
            self._ksmd.advisor = ModelAdvisor()

    def _rmap_items(self) -> int:
        return sum(guest.rmap_items for guest in self._ksmd.cursor.guests)

    def _zeroed(self, guest: GuestMemory) -> int:
        return guest.counts[PagePlace.ZEROED] + guest.counts[PagePlace.ZERO] - guest.unseen_breaks(self._now_ns)[1]

    def _unseen_breaks(self) -> int:
        return sum(guest.unseen_breaks(self._now_ns)[0] for guest in self._guests.values())

    def _account(self, guest: GuestMemory) -> Guest:
        items = guest.rmap_items
        merging = guest.counts[PagePlace.STABLE] + guest.counts[PagePlace.BROKEN]
        zeroed = self._zeroed(guest)
        huge = self._huge.get(guest.name)
        freed = guest.counts[PagePlace.FREED]
        profit = (merging + zeroed) * self.page_bytes - items * RMAP_ITEM_BYTES
        return Guest(
            pid=guest.pid,
            start_ticks=guest.start_ticks,
            name=guest.name,
            kind="qemu",
            virtual_bytes=guest.pages * self.page_bytes,
            rss_bytes=(guest.pages - zeroed - freed) * self.page_bytes,
            huge_bytes=huge.whole * HUGE_PAGES * self.page_bytes if huge else None,
            ksm=GuestKsm(
                rmap_items=items, merging_pages=merging, zero_pages=zeroed, profit_bytes=profit, mergeable=True
            ),
        )
