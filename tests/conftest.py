"""Checks that every test leaves the machine as it found it: no process, no thread, no changed knob."""

import os
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from hypothesis import settings

from tests.support.ksmlock import RealKsm, knobs_at_rest, locked_ksm, need_real_ksm
from tests.support.process import adopt_orphans, children, leftovers
from tests.support.workers import apart, group, interpreter_apart, may_run

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # each program with numpy would begin a thread for each processor
adopt_orphans()
settings.register_profile("any machine", deadline=None)  # no test judges how long a step takes
settings.load_profile("any machine")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes(specs: Sequence[Any]) -> None:
    """Keep the processes of all workers but the first apart."""
    for spec in specs[1:] if apart() else ():
        spec.python = interpreter_apart()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """Give each group of tests to one worker. xdist's own marks do not do it, as pytest 9.2 loses them silently."""
    from xdist.scheduler import LoadScopeScheduling

    class Groups(LoadScopeScheduling):  # type: ignore[misc] # it ships no types
        assigned_work: dict[Any, Any]

        def _split_scope(self, nodeid: str) -> str:
            return group(nodeid)

        def schedule(self) -> None:
            first_one_first = sorted(self.assigned_work, key=sees_all, reverse=True)  # it gets the largest group
            self.assigned_work = {node: self.assigned_work[node] for node in first_one_first}
            super().schedule()

        def _assign_work_unit(self, node: Any) -> None:
            alone = len(self.nodes) == 1
            fitting = (name for name in self.workqueue if alone or may_run(name, sees_all=sees_all(node)))
            if (name := next(fitting, None)) is None:
                node.shutdown()
                return
            self.workqueue.move_to_end(name, last=False)
            super()._assign_work_unit(node)

    def sees_all(node: Any) -> bool:
        return node.gateway.spec.python is None

    return Groups(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put files whose tests have a swap last. They and tests that look at remapped guests wait for each other."""
    late = {item.path for item in items if "zram_swap" in getattr(item, "fixturenames", ())}
    items.sort(key=lambda item: item.path in late)


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """Fails a test that leaves a child process, a thread or a changed knob."""
    processes, threads, knobs = children(), set(threading.enumerate()), knobs_at_rest()
    yield
    found = leftovers(processes, threads)
    assert not found, f"left running: {found}"
    now = knobs_at_rest()  # None when somebody else has the lock, and works on them
    assert now == knobs or None in (now, knobs), f"knobs changed: {knobs} -> {now}"


@pytest.fixture
def real_ksm() -> Iterator[RealKsm]:
    """The real KSM under the machine-wide lock. Afterwards all is unmerged, and every knob is as before."""
    need_real_ksm()
    with locked_ksm() as ksm:
        yield ksm
