"""Checks who else steers KSM. Evidence is a finding, and a program that may do it is a note. Pure."""

from collections.abc import Iterator

from ksmtuned_py.doctor.finding import Facts, Finding, Manager
from ksmtuned_py.model import ForeignWrite

ALWAYS = frozenset({"ksmtuned", "kata-ksm-throttler"})
"""Programs that write the knobs whenever they run."""
ENROLLERS = frozenset({"uksmd"})
"""Programs that offer the memory of other processes, and write no knob."""
_OVIRT = "switch KSM off in the settings of its cluster (Optimization), which VDSM and MOM follow"
_HARVESTER = (
    'its Ksmtuned: kubectl patch ksmtuneds.node.harvesterhci.io NODE --type merge -p \'{"spec":{"run":"stop"}}\''
)
OWN_SWITCHES = {
    "momd": _OVIRT,
    "vdsmd": _OVIRT,
    "supervdsmd": _OVIRT,
    "virt-handler": "let its ksmConfiguration select no node: kubectl patch kubevirt -n kubevirt kubevirt --type json "
    '-p \'[{"op":"remove","path":"/spec/configuration/ksmConfiguration"}]\'',
    "node-manager": _HARVESTER,
    "harvester-node-manager": _HARVESTER,
}
"""Mends for managers with a setting of their own. Stopping their unit is no use, because it is started again."""
BY_HAND = "look for who does: virsh node-memory-tune, a line in rc.local, tmpfiles.d or sysfs.conf, a job of cron"


def managers(facts: Facts) -> Iterator[Finding]:
    """Find what else writes the knobs, the surest first."""
    if facts.foreign:
        yield _contested(facts)
    yield from _advisor(facts)
    for unit in facts.units:
        yield Finding(
            code="foreign_service",
            sentence="a service writes KSM's knobs, too",
            evidence=f"{unit} is active, or enabled for the next boot",
            mend=f"systemctl disable --now {unit}",
        )
    for manager in facts.managers:
        if f"{manager.name}.service" not in facts.units:
            yield from _manager(facts, manager)


def _contested(facts: Facts) -> Finding:
    running = [manager for manager in facts.managers if _may_write(facts, manager)]
    names = f"; running: {', '.join(manager.name for manager in running)}" if running else ""
    return Finding(
        code="knobs_contested",
        sentence="somebody else writes KSM's knobs while our daemon holds them",
        evidence=f"{'; '.join(map(_foreign, facts.foreign))}{names}",
        mend="; ".join(dict.fromkeys(stop(manager) for manager in running)) or BY_HAND,
    )


def _may_write(facts: Facts, manager: Manager) -> bool:
    if manager.name == "tuned":
        return bool(facts.system.tuned and facts.system.tuned.writes_in)
    return manager.name not in ENROLLERS


def _foreign(write: ForeignWrite) -> str:
    return f"{write.knob} holds {write.seen} instead of our {write.ours}"


def _advisor(facts: Facts) -> Iterator[Finding]:
    """Find that the kernel's advisor is on. While it is, nobody else can set pages_to_scan."""
    if facts.snapshot and facts.snapshot.knobs.advisor_mode == "scan-time" and facts.policy != "advisor":
        yield Finding(
            code="advisor_on",
            sentence="the kernel's advisor steers pages_to_scan, and knows neither pressure nor yield",
            evidence=f"{facts.ksm_path}/advisor_mode is scan-time",
            mend=f"echo none > {facts.ksm_path}/advisor_mode; the daemon does that while it runs",
        )


def _manager(facts: Facts, manager: Manager) -> Iterator[Finding]:
    running = f"a process {manager.name}" + (f" in {place}" if (place := manager.unit or manager.container) else "")
    if manager.name == "tuned":
        yield from _tuned(facts, running)
    elif manager.name in ENROLLERS:
        yield Finding(
            code="enroller",
            severity="note",
            sentence="a daemon offers the memory of other processes to KSM",
            evidence=running,
            mend="none: it writes no knob, and the processes that it enrols count as guests",
        )
    elif manager.name in ALWAYS:
        sentence = "a program that steers KSM by itself is running"
        yield Finding(code="foreign_writer", sentence=sentence, evidence=running, mend=stop(manager))
    elif not facts.foreign:
        yield Finding(
            code="possible_writer",
            severity="note",
            sentence="a program is running that can be told to steer KSM",
            evidence=f"{running}; whether it does cannot be seen from here",
            mend=stop(manager),
        )


def _tuned(facts: Facts, running: str) -> Iterator[Finding]:
    """Judge a running TuneD by its profile, because most profiles leave KSM alone."""
    tuned = facts.system.tuned
    if tuned and tuned.writes_in:
        yield Finding(
            code="foreign_writer",
            sentence="TuneD's active profile stops KSM",
            evidence=f"{running}; profile {tuned.profile}, by {tuned.writes_in}",
            mend="tuned-adm profile virtual-host, or another that leaves KSM alone; on a real-time host leave KSM off: "
            "systemctl disable --now ksmtuned-py",
        )


def stop(manager: Manager) -> str:
    """The mend that keeps a manager from writing: by its own setting, by its unit, or at its container's source."""
    if own := OWN_SWITCHES.get(manager.name):
        return own
    if manager.container:
        return f"take {manager.name} out of what deploys that container: whoever started it would start it again"
    return f"systemctl disable --now {manager.unit or manager.name}"
