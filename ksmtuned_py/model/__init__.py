"""The nouns of the house: what was seen, what is wanted, what was written. Frozen, pure, with units in the names."""

from ksmtuned_py.model.acts import Decision, Mode, Outcome, Verdict, Write, WriteResult, WriteStatus
from ksmtuned_py.model.host import Clock, ForeignWrite, Guest, GuestKsm, Memory, Pressure, Snapshot, Stall, Vmstat
from ksmtuned_py.model.ksm import (
    COUNTER_NAMES,
    KNOB_NAMES,
    KSM_DIRECTORY,
    MUTEX_KNOBS,
    RMAP_ITEM_BYTES,
    AdvisorMode,
    Counters,
    KnobName,
    Knobs,
    KnobValue,
)

__all__ = [
    "COUNTER_NAMES",
    "KNOB_NAMES",
    "KSM_DIRECTORY",
    "MUTEX_KNOBS",
    "RMAP_ITEM_BYTES",
    "AdvisorMode",
    "Clock",
    "Counters",
    "Decision",
    "ForeignWrite",
    "Guest",
    "GuestKsm",
    "KnobName",
    "KnobValue",
    "Knobs",
    "Memory",
    "Mode",
    "Outcome",
    "Pressure",
    "Snapshot",
    "Stall",
    "Verdict",
    "Vmstat",
    "Write",
    "WriteResult",
    "WriteStatus",
]
