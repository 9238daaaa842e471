"""Checks what in the host's memory makes merging a risk, or of no use. Pure."""

from collections.abc import Callable, Iterator

from ksmtuned_py.doctor.finding import Facts, Finding
from ksmtuned_py.doctor.hostchecks import CONFIG
from ksmtuned_py.doctor.mends import ZRAM, boot_option
from ksmtuned_py.model import Snapshot
from ksmtuned_py.model.room import could_find_bytes
from ksmtuned_py.units import human_bytes

NEARLY_FULL = 0.9


def swap_off(_: Facts, now: Snapshot) -> Iterator[Finding]:
    """Find that there is no swap, which could take the copies of merged pages."""
    if now.saved_bytes and not now.memory.swap_total_bytes:
        yield Finding(
            code="swap_off",
            sentence="there is no swap: when guests write to merged pages, only free memory pays for the copies",
            evidence=f"SwapTotal is 0, {human_bytes(now.saved_bytes)} are merged",
            mend=f"add a swap device; zram is enough (packaging/zram.md): {ZRAM}",
        )


def swap_full(_: Facts, now: Snapshot) -> Iterator[Finding]:
    """Find that swap is full. Pages in swap do not merge, and no more can go there."""
    total = now.memory.swap_total_bytes
    used = total - now.memory.swap_free_bytes
    if total and used / total > NEARLY_FULL:
        yield Finding(
            code="swap_full",
            sentence="swap is nearly full: what is in it cannot merge, and there is no room for copies",
            evidence=f"{used / total:.0%} of swap is used, {human_bytes(used)} of {human_bytes(total)}".replace(
                "%", " %"
            ),
            mend="more memory, or fewer guests; merging cannot reach what is in swap, more swap only gives time",
        )


def pressure_off(facts: Facts, now: Snapshot) -> Iterator[Finding]:
    """Find that PSI is off, so that the daemon cannot hear of memory pressure at once."""
    if now.pressure is None:
        yield Finding(
            code="psi_off",
            sentence="the kernel does not tell of memory pressure: need is seen by available memory alone",
            evidence="/proc/pressure/memory cannot be read",
            mend=f"{boot_option(facts.system, 'psi=1')} (a kernel with CONFIG_PSI=y)",
        )


def debt(_: Facts, now: Snapshot) -> Iterator[Finding]:
    """Find that more is merged than could be given back."""
    found = could_find_bytes(now.memory)
    if now.saved_bytes > found:
        yield Finding(
            code="debt",
            sentence="the host could not bear that all merged pages are written to",
            evidence=f"{human_bytes(now.saved_bytes)} merged, {human_bytes(found)} to be found (available and swap)",
            mend=f"add swap, move guests away, or set adaptive.guards.max_debt_percent in {CONFIG}",
        )


def groups_share(_: Facts, now: Snapshot) -> Iterator[Finding]:
    """Find groups that share memory with each other. In a kernel, all that merges may share with all else."""
    groups = sorted({guest.group for guest in now.guests if guest.ksm and guest.ksm.merging_pages})
    if len(groups) > 1:
        yield Finding(
            code="groups_share",
            sentence="guests of several groups merge, and may share pages with each other",
            evidence=f"merged pages in the groups {', '.join(group or '(none)' for group in groups)}",
            mend=f'guests.isolation = "groups" in {CONFIG}; merged counts fall at the end of the next pass only',
        )


def cgroup_full(facts: Facts, _: Snapshot) -> Iterator[Finding]:
    """Find full cgroups. Their guests are short of memory, whatever the host has."""
    for limit in facts.limits:
        if limit.used_bytes > NEARLY_FULL * limit.limit_bytes:
            yield Finding(
                code="cgroup_full",
                sentence="a memory cgroup of guests is nearly full: they are short, whatever the host has",
                evidence=f"{limit.cgroup}: {human_bytes(limit.used_bytes)} without page cache, {limit.file} is "
                f"{human_bytes(limit.limit_bytes)}",
                mend="raise it (systemctl set-property UNIT MemoryHigh= MemoryMax=), or let fewer guests into it",
            )


def sensors(_: Facts, now: Snapshot) -> Iterator[Finding]:
    """Find sensors that could not be read."""
    for problem in now.problems:
        yield Finding(
            code="problem",
            sentence="something could not be read, or cannot be true",
            evidence=problem,
            mend="see there",
        )


MEMORY_CHECKS: tuple[Callable[[Facts, Snapshot], Iterator[Finding]], ...] = (
    swap_off,
    swap_full,
    pressure_off,
    debt,
    groups_share,
    cgroup_full,
    sensors,
)
