"""Runs ksmd in its own time: batches, sleeps and passes; pages that are alike pass in one step."""

from collections.abc import Callable
from typing import TypeAlias

from ksmtuned_py.ksmdmodel.advisor import ModelAdvisor
from ksmtuned_py.ksmdmodel.contents import Trees
from ksmtuned_py.ksmdmodel.costs import JIFFY_NS, Costs
from ksmtuned_py.ksmdmodel.cursor import Cursor
from ksmtuned_py.ksmdmodel.guestmemory import Group, GuestMemory
from ksmtuned_py.ksmdmodel.pages import NOT_COUNTED, Found, PagePlace, scanned
from ksmtuned_py.ksmdmodel.settings import Settings
from ksmtuned_py.model import Run

FINE_TIMER_JIFFIES = 63
"""Longer sleeps than this end on a coarser grid (kernel/time/timer.c)."""
WITHOUT_END = 1 << 62
Act: TypeAlias = Callable[[], object]


class Ksmd:
    """The scanner. Its time is never before that of a finished page; while it sleeps, its time is when it wakes."""

    def __init__(self, settings: Settings, costs: Costs) -> None:
        self.settings = settings
        self.trees = Trees()
        self.cursor = Cursor()
        self.advisor = ModelAdvisor()
        self.cpu_ns = 0
        self.full_scans = 0
        self.pages_scanned = 0
        self.pages_skipped = 0
        self.after_batch: list[Act] = []
        """Acts that wait for the mutex, which ksmd holds for one whole batch."""
        self._costs = costs
        self._prices = costs.prices(0, 0)
        self._time_ns = 0
        self._asleep = True
        self._batch_left = 0

    @property
    def busy_ns(self) -> int:
        """About how many nanoseconds the batch under way still takes."""
        return 0 if self._asleep else self._batch_left * self._prices[Found.UNSHARED]

    def add(self, guest: GuestMemory) -> None:
        """Adds a process whose memory becomes mergeable."""
        self.cursor.add(guest, at_end=self.settings.run == Run.UNMERGE)

    def wake(self, now_ns: int) -> None:
        """Ends a sleep when somebody has changed sleep_millisecs."""
        if self._asleep:
            self._time_ns = min(self._time_ns, now_ns)

    def stop(self) -> None:
        """Ends the batch when run is no longer 1."""
        self._asleep = True

    def forget_all(self) -> None:
        """Gives every page back (run=2), which counts as so many breaks; the passes count from 0 again."""
        self.cursor.rewind()
        for guest in self.cursor.guests:
            self.trees.cow_breaks += guest.counts[PagePlace.STABLE]
            for group in guest.groups:
                group.forget_all()
        self.trees.forget_all()
        self.full_scans = 0

    def run_until(self, until_ns: int) -> None:
        """Scans up to a time; a page counts when it is finished."""
        while self._let_in() and self._awake(until_ns):
            if self.cursor.between_passes:
                self._begin_pass()
            group = self.cursor.step()
            if group is None:
                self._end_pass()
            elif not self._scan(group, until_ns):
                return

    def _awake(self, until_ns: int) -> bool:
        if self.settings.run != Run.MERGE or not self.cursor.guests:
            self._asleep = True
            self._time_ns = max(self._time_ns, until_ns)
            return False
        while self._asleep and self._time_ns <= until_ns:
            self._begin_batch(until_ns)
        return self._time_ns <= until_ns

    def _begin_batch(self, until_ns: int) -> None:
        if not self.settings.pages_to_scan:
            self._whole_batches(WITHOUT_END, 0, until_ns)
        self._asleep = False
        self._spend(self._costs.wake_ns)
        self._batch_left = self.settings.pages_to_scan
        if not self._batch_left:
            self._sleep()

    def _sleep(self) -> None:
        self._asleep = True
        self._time_ns = self._waking_ns(self._time_ns)

    def _let_in(self) -> bool:
        """Lets those who wait for the mutex have it between two batches."""
        while self._asleep and self.after_batch:
            self.after_batch.pop(0)()
        return True

    def _begin_pass(self) -> None:
        self.trees.begin_pass()
        self.advisor.began_ns = self._time_ns

    def _end_pass(self) -> None:
        self.full_scans += 1
        if self.settings.advisor_mode == "scan-time":
            self.settings.pages_to_scan = self.advisor.pages_to_scan(self._time_ns, self.cpu_ns, self.settings)
        self._sleep()

    def _scan(self, group: Group, until_ns: int) -> bool:
        """Scans as many alike pages as there is time for; False when there is none for a single one."""
        page = self.cursor.page
        if page == 0:
            self._enter(group)
        end, state = group.pages.at(page)
        found, seen = scanned(state, bool(self.settings.smart_scan))
        if found is Found.READY:
            end, found = group.outlook(page, end, use_zero_pages=bool(self.settings.use_zero_pages))
        cost = self._prices[found] + round(self._costs.split_ns * group.splits_per_page(page, found))
        counted = found not in NOT_COUNTED
        pages = (self._in_batches if counted else self._on_the_way)(end - page, cost, until_ns)
        if not pages:
            return False
        group.visit(page, page + pages, found, seen)
        self.cursor.page += pages
        self.pages_scanned += pages * counted
        self.pages_skipped += pages * (found is Found.SKIPPED)
        return True

    def _enter(self, group: Group) -> None:
        """Begins a group. The prices of its middle hold for all of it, because the trees grow within it, too."""
        group.write_until(self._time_ns)
        unstable = self.trees.unstable + group.spec.pages // 2
        self._prices = self._costs.prices(unstable.bit_length(), self.trees.total.shared.bit_length())

    def _on_the_way(self, pages: int, cost_ns: int, until_ns: int) -> int:
        pages = min(pages, max(0, until_ns - self._time_ns) // cost_ns)
        self._spend(pages * cost_ns)
        return pages

    def _in_batches(self, pages: int, cost_ns: int, until_ns: int) -> int:
        done = 0
        while done < pages and self._awake(until_ns):
            now = min(pages - done, self._batch_left, max(0, until_ns - self._time_ns) // cost_ns)
            if not now:
                break
            self._spend(now * cost_ns)
            done, self._batch_left = done + now, self._batch_left - now
            if not self._batch_left:
                self._sleep()
                if self.after_batch:
                    break
                done += self._alike(pages - done, cost_ns, until_ns)
        return done

    def _alike(self, pages: int, cost_ns: int, until_ns: int) -> int:
        """Returns the pages of the batches that hold nothing but these pages and that pass in one step."""
        batch = self.settings.pages_to_scan
        return batch * self._whole_batches(pages // batch, batch * cost_ns, until_ns) if batch else 0

    def _whole_batches(self, most: int, busy_ns: int, until_ns: int) -> int:
        """Lets batches that are all alike pass in one step; returns how many passed."""
        sleep_jiffies = _jiffies(self.settings.sleep_millisecs)
        if sleep_jiffies > FINE_TIMER_JIFFIES or (sleep_jiffies and self._time_ns % JIFFY_NS):
            return 0  # batches between such sleeps are not alike
        busy_ns += self._costs.wake_ns
        period = self._waking_ns(self._time_ns + busy_ns) - self._time_ns
        batches = max(0, min(most, (until_ns - self._time_ns) // period))
        self._time_ns += batches * period
        self.cpu_ns += batches * busy_ns
        return batches

    def _waking_ns(self, now_ns: int) -> int:
        """Returns when a sleep that begins now ends: at a tick, and never early."""
        jiffies = _jiffies(self.settings.sleep_millisecs)
        if not jiffies:
            return now_ns
        grid = 1
        while jiffies > FINE_TIMER_JIFFIES * grid:
            grid *= 8
        expires = now_ns // JIFFY_NS + jiffies
        return (expires // grid + 1) * grid * JIFFY_NS

    def _spend(self, nanoseconds: int) -> None:
        self._time_ns += nanoseconds
        self.cpu_ns += nanoseconds


def _jiffies(milliseconds: int) -> int:
    return -(-milliseconds * 1_000_000 // JIFFY_NS)
