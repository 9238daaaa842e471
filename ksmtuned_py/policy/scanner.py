"""What the scanner really does: CPU per page, slack of its sleep, and what each pass cost and gained. Pure."""

from dataclasses import dataclass, replace

from ksmtuned_py.model import Run, Snapshot
from ksmtuned_py.policy.batch import DEFAULT_COST_SECONDS, DEFAULT_OVERSLEEP_SECONDS
from ksmtuned_py.units import GIB, KIB

PAGE_BYTES = 4 * KIB
"""The size of page that the costs here are for; larger pages cost more."""
PAGES_TO_JUDGE = 2000
"""Fewer pages than this in an interval tell little about the cost of one."""
BATCHES_TO_JUDGE = 5
COST_MIN_SECONDS = 0.05e-6
COST_MAX_SECONDS = 50e-6
"""The least and the most for a page of 4 KiB; larger ones take longer."""
OVERSLEEP_MAX_SECONDS = 0.02
MEMORY_OF_THE_PAST = 0.5
"""Weight of what was known before against one new measurement."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScannerSpeed:
    """The scanner's measured speed."""

    cost_seconds: float = DEFAULT_COST_SECONDS
    """CPU per page."""
    oversleep_seconds: float = DEFAULT_OVERSLEEP_SECONDS
    """Sleep between batches beyond sleep_millisecs."""
    share: float | None = None
    """Its share of one core over the last interval; None when nobody can say."""
    few_pages: int = 0
    few_cpu_seconds: float = 0.0
    """Not judged yet: where pages are dear, an interval has few, and they must not stay dear for that."""

    @classmethod
    def begin(cls, now: Snapshot) -> "ScannerSpeed":
        """The speed before anything is measured: pages cost what they usually do, by their size."""
        return cls(cost_seconds=usual_cost_seconds(now))

    def after(self, before: Snapshot, now: Snapshot, last: "Pass | None" = None) -> "ScannerSpeed":
        """The speed after the interval between two snapshots, in which the last pass may have ended."""
        wall = now.clock.monotonic_seconds - before.clock.monotonic_seconds
        if wall <= 0 or before.scanner_cpu_seconds is None or now.scanner_cpu_seconds is None:
            return replace(self, share=None)
        cpu = max(0.0, now.scanner_cpu_seconds - before.scanner_cpu_seconds)
        idle = max(0.0, wall - cpu - _waited_seconds(before, now))
        measured = replace(self, share=cpu / wall)
        if now.counters.pages_scanned is None:
            return measured._with_uncounted(before, now, last, cpu, idle)
        pages = max(0, now.counters.pages_scanned - (before.counters.pages_scanned or 0))
        all_pages, all_cpu_seconds = self.few_pages + pages, self.few_cpu_seconds + cpu
        if all_pages < PAGES_TO_JUDGE or all_cpu_seconds <= 0:
            return replace(measured, few_pages=all_pages, few_cpu_seconds=all_cpu_seconds)
        measured = replace(measured, few_pages=0, few_cpu_seconds=0.0)
        costed = measured._with_cost(all_cpu_seconds / all_pages, COST_MIN_SECONDS, now)
        return costed._with_oversleep(before, now, pages, idle)

    def _with_cost(self, cost_seconds: float, least: float, now: Snapshot) -> "ScannerSpeed":
        cost = min(max(cost_seconds, least), cost_max_seconds(now))
        return replace(self, cost_seconds=_blend(self.cost_seconds, cost))

    def _with_uncounted(
        self, before: Snapshot, now: Snapshot, last: "Pass | None", cpu: float, idle_seconds: float
    ) -> "ScannerSpeed":
        """The speed where the kernel counts no pages (before Linux 6.6): as many as the knobs left time for.

        Both a sleep that is longer than thought and one that is not cancel out, as the next batch is made for the
        same sleep. But time in which the scanner waits for a core looks like sleep, too, and would make pages cheap
        and batches long. So none is taken to cost less than on average in the last pass, of which both are known.
        """
        pages = _uncounted_pages(before, now, idle_seconds, self.oversleep_seconds)
        if pages < PAGES_TO_JUDGE or cpu <= 0:
            return self
        least = last.page_cost_seconds if last else 0.0
        return self._with_cost(cpu / pages, least or usual_cost_seconds(now), now)

    def _with_oversleep(self, before: Snapshot, now: Snapshot, pages: int, idle_seconds: float) -> "ScannerSpeed":
        batch, sleep_ms = now.knobs.pages_to_scan, now.knobs.sleep_millisecs  # written at the interval's very start
        if not batch or sleep_ms is None or not before.knobs.run == now.knobs.run == Run.MERGE:
            return self
        few = pages < max(PAGES_TO_JUDGE, batch * BATCHES_TO_JUDGE)
        if now.counters.full_scans != before.counters.full_scans or few:
            return self  # the last batch of a pass is a short one
        slack = idle_seconds * batch / pages - sleep_ms / 1000
        return replace(
            self, oversleep_seconds=_blend(self.oversleep_seconds, min(max(slack, 0), OVERSLEEP_MAX_SECONDS))
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Pass:
    """What one pass (or a few, when they were shorter than a tick) cost and gained."""

    passes: int
    seconds: float
    cpu_seconds: float | None
    gained_bytes: int
    """Net of what copy-on-write took back; may be negative."""
    freed_bytes: int = 0
    """The part of it that the splitting of huge pages gave back, which is in no counter."""
    new_pages: int = 0
    """More than were tracked before: seen for the first time."""
    pages: int = 0
    """Scanned; skipped ones do not count. Where the kernel does not count them: all that it keeps track of."""
    skipped_pages: int = 0
    """The pages that smart_scan skipped."""

    @property
    def each_cpu_seconds(self) -> float | None:
        """The CPU time of one pass; None when nobody can say."""
        return None if self.cpu_seconds is None else self.cpu_seconds / self.passes

    @property
    def each_skipped_pages(self) -> int:
        """The pages that were skipped in one pass."""
        return self.skipped_pages // self.passes

    @property
    def page_cost_seconds(self) -> float:
        """CPU for each page, on average; 0 when nobody can say."""
        return (self.cpu_seconds or 0.0) / self.pages if self.pages else 0.0

    @property
    def cpu_seconds_per_gib(self) -> float | None:
        """What a gained GiB cost: infinite when nothing was gained; None when the CPU time is unknown."""
        if self.cpu_seconds is None:
            return None
        return self.cpu_seconds / (self.gained_bytes / GIB) if self.gained_bytes > 0 else float("inf")


@dataclass(frozen=True, slots=True, kw_only=True)
class Passes:
    """Passes counted since the daemon started: run=2 resets the kernel's counter, but never this one."""

    done: int = 0
    since: Snapshot | None = None
    """When the pass under way began."""
    freed_since_bytes: int = 0
    """What the splitting of huge pages had given back by then."""
    last: Pass | None = None
    losing: int = 0
    """Passes in a row at whose end merging had cost more memory than it saved."""
    losing_since_seconds: float = 0.0
    """When the first of them ended."""

    def after(self, now: Snapshot, before: Snapshot | None, freed_bytes: int = 0) -> "Passes":
        """The passes after one more snapshot; `freed_bytes` is what splits of huge pages gave back so far."""
        if before is None or self.since is None:
            return replace(self, since=now, freed_since_bytes=freed_bytes)
        finished = now.counters.full_scans - before.counters.full_scans
        if finished < 0:  # run=2 reset it
            finished = now.counters.full_scans
        if finished == 0:
            return self
        freed = freed_bytes - self.freed_since_bytes
        return Passes(
            done=self.done + finished,
            since=now,
            freed_since_bytes=freed_bytes,
            last=_pass(self.since, now, finished, freed),
            losing=self.losing + finished if now.profit_bytes + freed < 0 else 0,
            losing_since_seconds=self.losing_since_seconds if self.losing else now.clock.monotonic_seconds,
        )


def usual_cost_seconds(now: Snapshot) -> float:
    """What a page costs until it is measured."""
    return DEFAULT_COST_SECONDS * _size(now)


def cost_max_seconds(now: Snapshot) -> float:
    """The highest cost that a page is taken to have."""
    return COST_MAX_SECONDS * _size(now)


def _pass(since: Snapshot, now: Snapshot, passes: int, freed_bytes: int) -> Pass:
    cpu = None
    if since.scanner_cpu_seconds is not None and now.scanner_cpu_seconds is not None:
        cpu = max(0.0, now.scanner_cpu_seconds - since.scanner_cpu_seconds)
    return Pass(
        passes=passes,
        seconds=now.clock.monotonic_seconds - since.clock.monotonic_seconds,
        cpu_seconds=cpu,
        gained_bytes=now.saved_bytes - since.saved_bytes + freed_bytes,
        freed_bytes=freed_bytes,
        new_pages=max(0, now.counters.candidate_pages - since.counters.candidate_pages),
        pages=passes * now.counters.candidate_pages
        if now.counters.pages_scanned is None
        else max(0, now.counters.pages_scanned - (since.counters.pages_scanned or 0)),
        skipped_pages=max(0, (now.counters.pages_skipped or 0) - (since.counters.pages_skipped or 0)),
    )


def _waited_seconds(before: Snapshot, now: Snapshot) -> float:
    """How long the scanner waited for a CPU: it neither ran nor slept."""
    if before.scanner_waited_seconds is None or now.scanner_waited_seconds is None:
        return 0.0
    return max(0.0, now.scanner_waited_seconds - before.scanner_waited_seconds)


def _uncounted_pages(before: Snapshot, now: Snapshot, idle_seconds: float, oversleep_seconds: float) -> float:
    """About how many pages were scanned, by the batches that there was time for; 0 when nobody can say."""
    batch, sleep_ms = now.knobs.pages_to_scan, now.knobs.sleep_millisecs
    if not batch or sleep_ms is None or not before.knobs.run == now.knobs.run == Run.MERGE:
        return 0
    passes = max(0, now.counters.full_scans - before.counters.full_scans)
    batches = idle_seconds / (sleep_ms / 1000 + oversleep_seconds)
    # The last batch of a pass is a short one, and no pass scans more than there is.
    return min((batches - passes / 2) * batch, (passes + 1) * now.counters.candidate_pages)


def _size(now: Snapshot) -> float:
    return now.page_bytes / PAGE_BYTES


def _blend(past: float, measured: float) -> float:
    return past * MEMORY_OF_THE_PAST + measured * (1 - MEMORY_OF_THE_PAST)
