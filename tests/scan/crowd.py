"""Many guests of different kinds that one worker scans: what each is there for is tried at the same time."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager

import psutil

from ksmtuned_py.backends.scan import ScanBackend
from ksmtuned_py.door import Door
from tests.scan.conftest import Load, guest, scanning, wait_passes, wait_true
from tests.scan.test_remap import REMAP
from tests.scan.writers import Writer, stores, writers

MIB = 4
"""The memory of a guest of a crowd."""
SMALL = REMAP.model_copy(update={"remap_least_mib": MIB})
"""The settings under which such guests are merged."""
IDLE_SECONDS = 0.05
"""So long a guest of a crowd rests after every second write, because dozens have two processors."""
MANY_TIMES = 40
"""How often a guest has done each thing, beside being merged, before it is judged."""
PAUSE_MILLISECS = 200
"""The worker's pause after each batch, about a pass: without one it takes a processor as long as the crowd lives."""
Start = Callable[[str], AbstractContextManager[Load]]


class Inside(Writer):
    """A guest that another program has begun: it is that program's child."""

    @property
    def pid(self) -> int:
        return psutil.Process(self.process.pid).children()[0].pid


def program(module: str, *words: str, before: Sequence[str] = (), idle_seconds: float = IDLE_SECONDS) -> Start:
    """Returns what starts one of the tests' guests under a name; `before` is the program that begins it."""
    command = (*before, sys.executable, "-m", f"tests.scan.{module}", str(MIB), *words)
    kind = Inside if before else Writer
    return lambda name: kind(name, command=command, idle_seconds=idle_seconds)


class Crowd:
    """The guests by their names, two plain ones among them, and the backend."""

    def __init__(self, backend: ScanBackend, guests: Mapping[str, Load], plain: list[Writer]) -> None:
        self.backend, self.guests, self.plain = backend, guests, plain

    def __getitem__(self, name: str) -> Writer:
        one = self.guests[name]
        assert isinstance(one, Writer)
        return one

    def reason(self, name: str) -> str:
        """Returns why a guest is left alone in whole or in part; '' when it is not."""
        self.backend.counters()
        return self.backend.refused.get(guest(self.guests[name]).key, "")

    def wait_reason(self, name: str, words: str) -> None:
        """Waits until a guest is left alone for that reason."""
        wait_true(lambda: words in self.reason(name), f"{words!r} for {name}")

    def wait_merged(self, name: str) -> None:
        """Waits until a guest has merged pages."""
        wait_true(lambda: bool(stores(self[name])), f"shared pages of {name}")

    def are_well(self) -> None:
        """Checks that the plain ones share pages and have all their bytes, and that the worker lives."""
        one, other = self.plain
        wait_true(lambda: bool(stores(one) & stores(other)), "pages shared by the plain ones")
        wait_passes(self.backend, 2)
        assert [each.check()["wrong"] for each in self.plain] == [0, 0]
        assert self.backend.restarts == 0


@contextmanager
def crowd(
    door: Door, kinds: Mapping[str, Start], prepare: Callable[[Mapping[str, Load]], object] = lambda _: None
) -> Iterator[Crowd]:
    """Starts guests, has them prepared before anybody looks at them, and yields them after some passes."""
    with ExitStack() as stack:
        plain = stack.enter_context(writers(2, MIB, IDLE_SECONDS))
        guests = {name: stack.enter_context(start(name)) for name, start in kinds.items()}
        prepare(guests)
        backend = stack.enter_context(
            scanning(door, SMALL, [*guests.values(), *plain], sleep_millisecs=PAUSE_MILLISECS)
        )
        wait_passes(backend, 4)
        yield Crowd(backend, guests, plain)


def seen(one: Writer) -> tuple[dict[str, int], str]:
    """Returns how often the guest did each thing, and what was wrong with any of it."""
    *done, wrong = one.ask("seen").split()
    counts = dict(word.split("=") for word in done if "=" in word)
    return {name: int(count) for name, count in counts.items()}, wrong.removeprefix("wrong=")


def goes_on(one: Writer, names: Sequence[str], times: int = MANY_TIMES) -> None:
    """Waits until the guest has done each thing so many times more, with nothing wrong."""
    begun = seen(one)[0]

    def has() -> bool:
        now, wrong = seen(one)
        assert wrong == "none"
        return all(now.get(name, 0) >= begun.get(name, 0) + times for name in names)

    wait_true(has, f"{', '.join(names)}, {times} times")
    assert one.check()["wrong"] == 0
