"""Brings the knobs to given values, and repeats writes until they are taken or the time is over."""

import time
from collections.abc import Callable
from dataclasses import replace

from ksmtuned_py.host import Host
from ksmtuned_py.model import KnobName, Knobs, KnobValue, Run, Write, WriteResult, WriteStatus
from ksmtuned_py.plan import STRUCTURAL, plan

RETRIED_SECONDS = 10.0
RETRY_SECONDS = 0.05


def set_knobs(host: Host, wanted: Knobs, seconds: float = RETRIED_SECONDS) -> list[str]:
    """Bring the knobs to these values, and return sentences on what did not take.

    Structural knobs take only while nothing is merged.
    """
    deadline, left = time.monotonic() + seconds, []
    if structural_writes(host.backend.knobs(), wanted):
        left += _until_taken(host, lambda: plan(host.backend.knobs(), Knobs(run=Run.STOP)), deadline)
        left += _until_taken(host, lambda: structural_writes(host.backend.knobs(), wanted), deadline)
    left += _until_taken(host, lambda: plan(host.backend.knobs(), wanted), deadline)
    return left + _confirm_run(host, wanted, deadline)


def structural_writes(now: Knobs, wanted: Knobs) -> tuple[Write, ...]:
    """The writes of structural knobs, which need everything unmerged first."""
    pairs: list[tuple[KnobName, KnobValue | None, KnobValue | None]] = [
        (name, now.get(name), wanted.get(name)) for name in sorted(STRUCTURAL)
    ]
    return tuple(
        Write(knob=name, old=old, new=new)
        for name, old, new in pairs
        if old is not None and new is not None and old != new
    )


def without(knobs: Knobs, names: frozenset[KnobName]) -> Knobs:
    """The knobs without those of these names."""
    return replace(knobs, **dict.fromkeys(names))


def _confirm_run(host: Host, wanted: Knobs, deadline: float) -> list[str]:
    """Write run once more, and return a sentence when it did not take.

    An earlier write may still wait for ksmd's mutex, and would take effect after us. run=2 is never repeated, because
    it gives memory back, and whoever did that has already waited for it.
    """
    if wanted.run in (None, Run.UNMERGE):
        return []
    again = Write(knob="run", old=wanted.run, new=wanted.run)
    while (result := _alone(host, again)).status is WriteStatus.PENDING:
        if time.monotonic() > deadline:
            return [_sentence(result)]
        time.sleep(RETRY_SECONDS)
    return []


def _until_taken(host: Host, left: Callable[[], tuple[Write, ...]], deadline: float) -> list[str]:
    """Repeat the writes that are left until the deadline (monotonic), and return sentences on those that failed.

    A process that exits can keep pages merged for a while (EBUSY).
    """
    while writes := left():
        results = [_alone(host, write) for write in writes]
        failed = [result for result in results if result.status is not WriteStatus.OK]
        if host.dry:
            return []
        if failed and time.monotonic() > deadline:
            return [_sentence(result) for result in failed]
        if failed:
            time.sleep(RETRY_SECONDS)
    return []


def _alone(host: Host, write: Write) -> WriteResult:
    """Do one write on its own, so that its failure does not stop the writes after it."""
    return host.apply((write,)).results[0]


def _sentence(result: WriteResult) -> str:
    return f"{result.write.knob}={result.write.new} ({result.detail})"
