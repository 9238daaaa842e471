"""The memfd of merged pages: what nobody needs any more is used again, so that it does not grow for ever."""

import hashlib
import mmap
import os
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ksmtuned_py.door import Door
from ksmtuned_py.scanner.pages import prints
from ksmtuned_py.scanner.remap.share.freepages import FreePages
from ksmtuned_py.scanner.remap.share.references import References, references
from ksmtuned_py.scanner.remap.share.store import PAGE, STORE_BYTES, Store
from ksmtuned_py.scanner.remap.share.stores import Stores
from tests.scan.conftest import result, worked

PAGES = 24
looks = st.lists(st.tuples(st.sets(st.integers(0, PAGES - 1)), st.lists(st.integers(1, 6), max_size=4)), max_size=8)


@pytest.fixture
def store() -> Iterator[Store]:
    with closing(Store("ksmtuned-py-pages-test", 0)) as made:
        yield made


def contents(name: int, pages: int) -> memoryview:
    return memoryview(np.random.default_rng(name).bytes(pages * PAGE))


def add(store: Store, content: memoryview) -> None:
    store.add(content, prints(content))
    store.index()


def look(store: Store, *mappings: tuple[int, int], written: bool = False) -> None:
    """Returns a look at processes that have mapped these pages, from the first to before the second number."""
    found = References.none(store.end)
    for begin, end in mappings:
        found.covered[begin:end] = True
        found.readers[begin:end] += not written
    list(store.free_unused(found))


@given(looks)
def test_only_what_was_free_in_two_looks_is_given_out_and_only_once(looks: list[tuple[set[int], list[int]]]) -> None:
    free_pages, given, before = FreePages(), set[int](), set(range(PAGES))
    for mapped, wanted in looks:
        taken = mapped | given
        end = free_pages.take_in(np.isin(np.arange(PAGES), list(taken)))
        free = set(range(PAGES)) - taken - before
        assert set(range(end, PAGES)) <= free
        given = set()
        for pages in wanted:
            if (begin := free_pages.take(pages)) is not None:
                new = set(range(begin, begin + pages))
                assert new <= {page for page in free if page < end} - given
                given |= new
        before = taken | set(range(end, PAGES))  # whoever puts something there begins anew


def test_pages_are_used_again_when_nobody_has_them_mapped(store: Store) -> None:
    for name in range(20):
        add(store, contents(name, 100))
        content = contents(name, 100)
        at = int(store.offsets(prints(content))[0])
        assert store.read(at, 100) == content
        for _ in range(4):  # two to be sure that nobody reads them, two that nobody has them mapped
            look(store)
    assert store.end == 0
    assert not len(store.known)


def test_what_is_added_while_pages_are_freed_is_not_given_out_again(store: Store) -> None:
    """Another guest may have its turn after each step."""
    add(store, contents(1, 3))
    add(store, contents(2, 3))
    for _ in range(3):  # the second one frees, the third one finds the pages free
        look(store, (3, 6))
    add(store, contents(3, 1))
    found = References.none(store.end)
    found.readers[3:6], found.covered[3:6] = 1, True
    for step, _ in enumerate(store.free_unused(found)):
        store.add(contents(10 + step, 1), prints(contents(10 + step, 1)))
        store.add(contents(20 + step, 3), prints(contents(20 + step, 3)))
    store.index()
    for number in range(5):
        add(store, contents(30 + number, 1))
    for name, pages in ((2, 3), (3, 1), *((10 + one, 1) for one in range(step + 1)), (20, 3), (34, 1)):
        (place,) = set((store.offsets(prints(contents(name, pages))) - np.arange(pages)).tolist())
        assert store.read(place, pages) == contents(name, pages)


def test_many_pages_are_freed_in_small_steps_and_what_was_begun_is_ended_later(store: Store) -> None:
    pages = 300_000
    add(store, contents(1, 3))
    before, left_out = used_pages(store), np.uint64(1 << 63)
    found = np.arange(pages).astype(np.uint64) + left_out
    store.end = pages + 3
    store._adding.append((found, np.arange(3, pages + 3).astype(np.uint32)))  # of which hardly any takes memory
    os.pwrite(store.descriptor, contents(2, 1), pages * PAGE)
    os.pwrite(store.descriptor, contents(2, 1), 10 * PAGE)
    look(store, (0, 3))
    half_done = References.none(store.end)
    half_done.readers[:3], half_done.covered[:3] = 1, True
    steps = store.free_unused(half_done)
    next(steps)
    next(steps)
    steps.close()
    assert (used_pages(store), len(store.known)) == (before + 1, 3)
    works = []
    for _ in range(2):
        half_done = References.none(store.end)
        half_done.readers[:3], half_done.covered[:3] = 1, True
        works += list(store.free_unused(half_done))
    assert (used_pages(store), store.end) == (before, 3)
    assert store.read(0, 3) == contents(1, 3)
    assert max(works) <= 65536


def test_a_hole_is_filled_but_not_one_that_a_guest_has_mapped(store: Store) -> None:
    for name in range(3):
        add(store, contents(name, 50))
    for _ in range(4):
        look(store, (0, 50), (100, 150))
    add(store, contents(3, 30))
    assert store.offsets(prints(contents(3, 30))).tolist() == list(range(50, 80))
    add(store, contents(4, 30))
    assert store.end == 180
    for _ in range(4):
        look(store, (0, 50), (100, 150), (150, 180))
    for _ in range(4):
        look(store, (0, store.end), written=True)
    assert not len(store.known)
    add(store, contents(5, 10))
    assert store.offsets(prints(contents(5, 10))).tolist() == list(range(180, 190))


def test_a_full_store_takes_no_more(store: Store) -> None:
    store.end = STORE_BYTES // PAGE - 5
    add(store, contents(1, 10))
    assert not len(store.known)
    add(store, contents(1, 5))
    assert store.read(store.end - 5, 5) == contents(1, 5)
    assert used_pages(store) == 5


@pytest.mark.parametrize(("began_ticks", "certain"), [(99, True), (100, False)])
def test_who_cannot_be_looked_at_matters_unless_it_had_begun_before(
    tmp_path: Path, began_ticks: int, certain: bool
) -> None:
    process = tmp_path / "proc" / "7"
    process.mkdir(parents=True)
    (process / "maps").write_text("what no kernel writes, of /memfd:ksmtuned-py-pages\n")
    (process / "stat").write_text(f"7 (a) b) S {' '.join(['0'] * 18)} {began_ticks} 0 0\n")
    assert result(references(Door(str(tmp_path)), {5: 1}, 100))[5].certain is certain


def test_who_ends_while_it_is_looked_at_counts_as_a_reader_of_all(tmp_path: Path) -> None:
    process = tmp_path / "proc" / "7"
    process.mkdir(parents=True)
    memfd = "/memfd:ksmtuned-py-pages-e3b0c442-1 (deleted)"
    (process / "maps").write_text(f"7f0000000000-7f0000002000 rw-p 00000000 00:01 5 {memfd}\n")
    found = result(references(Door(str(tmp_path)), {5: 2}, 0))[5]
    assert (found.readers.tolist(), found.certain) == ([1, 1], True)


def test_a_store_that_is_taken_over_reaches_as_far_as_it_is_mapped(root: None) -> None:
    before = result(Stores(Door()).of("taken over", None))
    key = before.key
    add(before, contents(1, 3))
    with mmap.mmap(before.descriptor, PAGE, flags=mmap.MAP_PRIVATE, offset=10 * PAGE):  # what was there was freed
        before.close()
        with closing(result(Stores(Door()).of("taken over", None))) as after:
            assert (after.key, after.since_ticks, after.end) == (key, before.since_ticks, 11)
            assert after.read(0, 3) == contents(1, 3)
            assert len(after.known) == 3


def test_a_large_store_is_taken_over_in_small_steps(root: None) -> None:
    before = result(Stores(Door()).of("large", None))
    key = before.key
    for name in range(40):
        add(before, contents(name, 1000))
    with mmap.mmap(before.descriptor, PAGE, flags=mmap.MAP_PRIVATE):
        before.close()
        stores = Stores(Door())
        steps = list(stores.take_over())
        assert max(steps) <= 4096
        assert sum(steps) >= 40_000
        after = stores.by_inode()[key[1]]
        assert len(after.known) == 40_000
        after.close()


def test_what_is_given_up_half_way_can_be_taken_over_later(root: None) -> None:
    before = result(Stores(Door()).of("half", None))
    add(before, contents(1, 3000))
    with mmap.mmap(before.descriptor, PAGE, flags=mmap.MAP_PRIVATE):
        before.close()
        steps = Stores(Door()).take_over()
        while next(steps) != 1024:
            pass
        steps.close()
        with closing(result(Stores(Door()).of("half", None))) as after:
            assert len(after.known) == 3000


def test_what_a_guest_touches_far_beyond_the_end_is_not_kept(store: Store) -> None:
    """A guest can read the whole memfd, and reading a hole fills it: the tables must not grow with that."""
    add(store, contents(1, 3))
    with touched(store, STORE_BYTES // PAGE - 1):
        assert used_pages(store) == 4
        look(store, (0, 3))
        assert (used_pages(store), store.end) == (3, 3)
        assert store.read(0, 3) == contents(1, 3)


def test_a_store_that_was_touched_far_beyond_its_end_is_not_taken_over(root: None) -> None:
    before = result(Stores(Door()).of("touched", None))
    key = before.key
    add(before, contents(1, 3))
    with mmap.mmap(before.descriptor, PAGE, flags=mmap.MAP_PRIVATE):
        with touched(before, STORE_BYTES // PAGE - 1):
            pass
        before.close()
        with closing(result(Stores(Door()).of("touched", None))) as after:
            assert after.key != key
            assert after.end == 0


@contextmanager
def touched(store: Store, page: int) -> Iterator[None]:
    """Reads a page of the memfd as a guest can."""
    with mmap.mmap(store.readable, PAGE, mmap.MAP_SHARED, mmap.PROT_READ, offset=page * PAGE) as memory:
        assert memory[0] == 0
        yield


def used_pages(store: Store) -> int:
    return os.fstat(store.descriptor).st_blocks * 512 // PAGE


def test_a_mapping_of_far_more_than_there_is_costs_nothing(root: None) -> None:
    store = result(Stores(Door()).of("far", None))
    add(store, contents(1, 3))
    with (
        closing(store),
        mmap.mmap(store.readable, STORE_BYTES, mmap.MAP_SHARED, mmap.PROT_READ),
    ):
        works, found = worked(references(Door(), {store.key[1]: store.end}, 0))
        assert found[store.key[1]].readers.tolist() == [1, 1, 1]
        assert sum(works) < STORE_BYTES // PAGE // 64


class Counting(Door):
    """Counts how often every process of the host is asked."""

    walks = 0

    def names(self, relative: str) -> list[str]:
        self.walks += relative == "proc"
        return super().names(relative)


def test_thousands_of_memfds_of_that_name_keep_nobody_up(root: None) -> None:
    """Each memfd is looked at once, and no process is asked because of it."""
    group = hashlib.sha256(b"").hexdigest()[:8]
    with ExitStack() as stack:
        for number in range(500):
            descriptor = os.memfd_create(f"ksmtuned-py-pages-{group}-{number:x}")
            stack.callback(os.close, descriptor)
            os.ftruncate(descriptor, PAGE)
            stack.enter_context(mmap.mmap(descriptor, PAGE, flags=mmap.MAP_PRIVATE))
        looks = Counting()
        with closing(result(Stores(looks).of("", None))) as store:
            assert not store.end
        assert looks.walks <= 2


def test_pages_that_cannot_be_read_any_more_are_left_out_and_the_others_taken_over(tmp_path: Path) -> None:
    with (tmp_path / "broken").open("w+b") as file:
        file.write(contents(1, 3000))
        file.flush()
        with closing(Store("broken", 0, os.dup(file.fileno()))) as store:
            steps = store.take_over()
            next(steps)
            file.truncate(1500 * PAGE)  # as memory that is broken, it ends what is read of it early
            list(steps)
            assert len(store.known) == 1024
            assert store.read(0, 3) == contents(1, 3000)[: 3 * PAGE]
            with pytest.raises(OSError, match="what is shared cannot be read"):
                store.read(1499, 2)
