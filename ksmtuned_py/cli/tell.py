"""Says a status in rows and lines, for each verb that shows one."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ksmtuned_py.cli.guesttable import short_of_room
from ksmtuned_py.cli.seen import lateness
from ksmtuned_py.model.room import could_find_bytes
from ksmtuned_py.units import human_bytes, human_chance, human_part, human_percent, human_seconds

if TYPE_CHECKING:
    from ksmtuned_py.model import Pause, Snapshot
    from ksmtuned_py.policy.capacity import Outlook
    from ksmtuned_py.publish.statusfile import Status


def first_line(found: "Status", alive: bool) -> tuple[str, str]:
    """The line on who says this, and its style."""
    if not alive:
        return "no daemon runs; this is what one would see and do now", "yellow"
    if late := lateness(found):
        return late, "red"
    return f"daemon {found.pid}, {human_seconds(found.age_seconds)} ago: {found.line}", "green"


def status_rows(found: "Status") -> Iterator[tuple[str, str]]:
    """The rows of a status, each with its name."""
    from ksmtuned_py.publish.words import scanner_name

    now, decision = found.snapshot, found.decision
    memory = now.memory
    yield decision.mode, decision.reason
    if now.pause is not None:
        yield "paused", pause_sentence(now.pause)
    yield "saved", f"{human_bytes(now.saved_bytes)}, net of bookkeeping {human_bytes(now.profit_bytes)}"
    yield "debt", debt_sentence(now)
    if found.totals.capacity is not None:
        yield "fits", fits_sentence(found.totals.capacity)
    if found.totals.scanner_share is not None:
        yield scanner_name(now), f"{human_percent(found.totals.scanner_share)} of a core lately"
    yield (
        "memory",
        (
            f"{human_part(memory.headroom_bytes, memory.base_bytes)} available, "
            f"{human_part(memory.swap_free_bytes, memory.swap_total_bytes)} swap free"
        ),
    )
    if memory.anon_huge_bytes or found.totals.huge_cost.split:
        yield "huge pages", huge_pages(found)
    if now.vmstat.cow_ksm is not None:
        yield "copies", f"{now.vmstat.cow_ksm:,} merged pages were written to since boot"
    if now.pressure:
        stalls = now.pressure.some.avg10_percent, now.pressure.full.avg10_percent
        yield "stalled", f"some tasks {stalls[0]:g} %, all tasks {stalls[1]:g} % of the last 10 s"
    if now.cpu_pressure:
        yield "CPUs taken", f"some tasks waited for one {now.cpu_pressure.some.avg10_percent:g} % of the last 10 s"
    yield "guests", f"{len(now.guests)}"
    yield "knobs", ", ".join(f"{name}={value}" for name, value in now.knobs.items()) or "none"
    for problem in now.problems:
        yield "problem", problem


def debt_sentence(now: "Snapshot") -> str:
    """What has to be found if all that is merged is written to, and whether that could be."""
    debt, found = now.saved_bytes, could_find_bytes(now.memory)
    sentence = f"{human_bytes(debt)}, and the host could find {human_bytes(found)}"
    if debt > found:
        sentence = f"{human_bytes(debt)}, but the host could find only {human_bytes(found)}"
    if short := short_of_room(now):
        more = f" and {len(short) - 1} more have" if len(short) > 1 else " has"
        sentence += f"; {short[0].name}{more} no room for theirs below a limit"
    return sentence


def fits_sentence(outlook: "Outlook") -> str:
    """How many more guests fit, and the chance that memory runs out without them."""
    count = f"{outlook.guests or 'no'} more guest{'' if outlook.guests == 1 else 's'}"
    return f"{count}; chance that memory runs out in 24 h: {human_chance(outlook.chance_now)}"


def why_lines(found: "Status") -> Iterator[tuple[str, str | None]]:
    """The decision, each rule with its numbers, and what would change it, as lines with their styles."""
    decision = found.decision
    yield "", None
    yield decision.reason, "bold"
    if found.totals.huge_cost.split:
        yield f"huge pages: {huge_pages(found)}", None
    yield "", None
    yield from rule_lines(found)


def rule_lines(found: "Status") -> Iterator[tuple[str, str | None]]:
    """Each rule with its numbers, and what would change the decision."""
    decision = found.decision
    yield f"The rules (the winner is {decision.rule}):", None
    for verdict in decision.verdicts:
        yield f"  {'*' if verdict.fired else '-'} {verdict.rule:<15} {verdict.sentence}", None
    yield "", None
    yield "What would change it:", None
    for sentence in decision.would_change:
        yield f"  {sentence}", None


def pause_sentence(asked: "Pause") -> str:
    """The words for a pause, as 'until Thu 15:04:05: live migration'."""
    return f"until {clock_time(asked.until_unix_seconds, '%a %H:%M:%S')}: {asked.reason}"


def clock_time(unix_seconds: float, form: str) -> str:
    """A time by the local clock; '?' for one that no clock shows, as a file may have it."""
    import time

    try:
        return time.strftime(form, time.localtime(unix_seconds))
    except (ValueError, OverflowError, OSError):
        return "?"


def huge_pages(found: "Status") -> str:
    """The host's huge pages, and what they were split for. `why` has the same figures."""
    cost, kept = found.totals.huge_cost, f"{human_bytes(found.snapshot.memory.anon_huge_bytes)} in use"
    each = "" if cost.split_per_gib is None else f", {cost.split_per_gib:.0f} for each GiB gained"
    back = found.totals.huge_back
    given = f"; {back.given} given back for {human_bytes(back.paid_bytes)} of merged memory" if back.given else ""
    problem = f"; {back.problem}" if back.problem else ""
    made = f", {cost.collapsed} made by khugepaged meanwhile" if cost.collapsed else ""
    return f"{kept}; {cost.split} split while ksmd ran{each}{made}{given}{problem}"
