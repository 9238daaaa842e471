"""The model of ksmd, which keeps pages as runs, agrees with one that keeps each page by itself."""

from dataclasses import dataclass, field
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from ksmtuned_py.ksmdmodel.guestmemory import PageGroup, equal, unique, zero
from ksmtuned_py.ksmdmodel.modelhost import ModelHost
from ksmtuned_py.ksmdmodel.runs import Runs
from ksmtuned_py.model import Counters
from tests.support.model import ONE_BATCH, tell


@dataclass(eq=False)
class Page:
    """One page and its rmap item, with the words of mm/ksm.c."""

    content: object
    has_item: bool = False
    checksum: object = None
    age: int = 0
    remaining_skips: int = 0
    unshared: bool = False
    frame: "Frame | None" = None
    on_zero_page: bool = False


@dataclass(eq=False)
class Frame:
    """A merged page."""

    pages: list[Page] = field(default_factory=list)


@dataclass
class Oracle:
    """A model of ksmd that does one page at a time, and only whole passes."""

    max_page_sharing: int
    guests: list[list[Page]] = field(default_factory=list)
    ended: list[list[Page]] = field(default_factory=list)
    stable: dict[object, list[Frame]] = field(default_factory=dict)
    unstable: dict[object, Page] = field(default_factory=dict)
    smart_scan: bool = True
    use_zero_pages: bool = False
    skipped: int = 0
    scanned: int = 0
    full_scans: int = 0

    def full_scan(self) -> None:
        self.unstable = {}
        for page in (page for guest in self.ended for page in guest):
            self.leave_trees(page)
        self.ended = []
        for page in (page for guest in self.guests for page in guest):
            self.look_at(page)
        self.full_scans += 1

    def look_at(self, page: Page) -> None:
        if page.on_zero_page:
            page.has_item = False
            return
        page.has_item = True
        if not page.frame and self.smart_scan and self.skips(page):
            return
        self.scanned += 1
        if not page.frame:
            self.compare_and_merge(page)

    def skips(self, page: Page) -> bool:
        age = page.age
        page.age = min(255, age + 1)
        if age < 3:
            return False
        if page.remaining_skips == 0:
            page.remaining_skips = {3: 1, 4: 2, 5: 2, 6: 4, 7: 4, 8: 4}.get(age, 8)
            return False
        page.remaining_skips -= 1
        self.skipped += 1
        self.leave_trees(page)
        return True

    def compare_and_merge(self, page: Page) -> None:
        self.leave_trees(page)
        if page.checksum != page.content:
            page.checksum = page.content
            return
        if self.use_zero_pages and page.content == ("zero", 0):
            page.on_zero_page = True
            return
        frames = self.stable.setdefault(page.content, [])
        for frame in frames:
            if frame.pages and len(frame.pages) < self.max_page_sharing:
                self.enter(frame, page)
                return
        partner = self.unstable.pop(page.content, None)
        if partner is None:
            self.unstable[page.content] = page
            page.unshared = True
            return
        frames.append(Frame())
        partner.unshared = False
        self.enter(frames[-1], partner)
        self.enter(frames[-1], page)

    def enter(self, frame: Frame, page: Page) -> None:
        frame.pages.append(page)
        page.frame = frame

    def leave_trees(self, page: Page) -> None:
        page.unshared = False
        if page.frame:
            page.frame.pages.remove(page)
            page.frame = None

    def counters(self) -> Counters:
        pages = [page for guest in self.guests + self.ended for page in guest]
        frames = {id(page.frame): page.frame for page in pages if page.frame}.values()
        items = sum(page.has_item for page in pages)
        merged = sum(page.frame is not None for page in pages)
        unshared = sum(page.unshared for page in pages)
        zeroed = sum(page.on_zero_page for page in pages)
        chains = [sum(bool(frame.pages) for frame in of_content) for of_content in self.stable.values()]
        return Counters(
            pages_shared=len(frames),
            pages_sharing=merged - len(frames),
            pages_unshared=unshared,
            pages_volatile=items - merged - unshared,
            full_scans=self.full_scans,
            pages_scanned=self.scanned,
            pages_skipped=self.skipped,
            ksm_zero_pages=zeroed,
            general_profit=(merged - len(frames) + zeroed) * 4096 - items * 64,
            stable_node_chains=sum(frames > 1 for frames in chains),
            stable_node_dups=sum(frames for frames in chains if frames > 1),
        )


def pages_of(groups: list[PageGroup]) -> list[Page]:
    """The pages of a guest, one by one."""
    return [
        Page((group.content, number % (group.distinct or group.pages)) if group.content else object())
        for group in groups
        for number in range(group.pages)
    ]


def full_scan(host: ModelHost) -> None:
    """Do one pass in one batch, with a long sleep after it."""
    before = host.counters().full_scans
    while host.counters().full_scans == before:
        host.advance(0.01)


group = st.one_of(
    st.builds(equal, st.sampled_from(["os", "app"]), st.integers(1, 12)),
    st.builds(lambda pages, distinct: equal("self", pages, distinct=distinct), st.integers(1, 20), st.integers(1, 6)),
    st.builds(zero, st.integers(1, 12)),
    st.builds(unique, st.integers(1, 12)),
)
guest = st.lists(group, min_size=1, max_size=4)


@settings(deadline=None, max_examples=150)
@given(st.data(), st.integers(2, 7), st.booleans())
def test_counts_like_a_model_of_single_pages(data: st.DataObject, limit: int, guests_end: bool) -> None:
    # The model counts frames with holes as if closed up, so guests end only where a content has one frame.
    limit = 256 if guests_end else limit
    host, oracle = ModelHost(), Oracle(limit)
    tell(host, max_page_sharing=limit, pages_to_scan=ONE_BATCH, sleep_millisecs=1000, run=1)
    alive: list[tuple[str, list[Page]]] = []
    for scan in range(data.draw(st.integers(3, 16))):
        if scan == 0 or data.draw(st.integers(0, 3)) == 0:
            groups = data.draw(guest)
            host.add_guest(f"guest-{scan}", groups)
            alive.append((f"guest-{scan}", pages_of(groups)))
            oracle.guests.append(alive[-1][1])
        elif guests_end and len(alive) > 1 and data.draw(st.integers(0, 5)) == 0:
            name, pages = alive.pop(data.draw(st.integers(0, len(alive) - 1)))
            host.remove_guest(name)
            oracle.guests.remove(pages)
            for page in pages:
                page.on_zero_page = False
            oracle.ended.append(pages)
        smart_scan, zero_page = data.draw(st.booleans()), data.draw(st.integers(0, 4)) == 0
        tell(host, smart_scan=int(smart_scan), use_zero_pages=int(zero_page))
        oracle.smart_scan, oracle.use_zero_pages = smart_scan, zero_page
        full_scan(host)
        oracle.full_scan()
        assert host.counters() == oracle.counters()


@given(st.integers(1, 30), st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30), st.integers(0, 3)), max_size=20))
def test_runs_are_a_list(length: int, puts: list[tuple[int, int, int]]) -> None:
    runs, plain = Runs(length, 0), [0] * length
    for begin, end, value in puts:
        begin, end = min(begin, length), min(end, length)
        runs.put(begin, end, value)
        plain[begin:end] = [value] * max(0, end - begin)
        pieces = runs.between(0, length)
        assert [value for first, last, value in pieces for _ in range(first, last)] == plain
        assert all(one[2] != other[2] for one, other in pairwise(pieces)), "equal neighbours"
        assert [runs.at(index)[1] for index in range(length)] == plain
        assert len(runs) == len(pieces)


@given(st.integers(1, 9), st.integers(1, 9))
def test_runs_grow(length: int, more: int) -> None:
    runs = Runs(length, "old")
    runs.grow(length + more, "new")
    runs.grow(length, "never")
    assert runs.between(0, length + more) == [(0, length, "old"), (length, length + more, "new")]
