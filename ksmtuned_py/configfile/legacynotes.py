"""Names the settings of an old configuration that ours does not have, and what comes nearest to them."""

from ksmtuned_py.configfile.legacy import INERT, LegacyFile
from ksmtuned_py.units import KIB, human_bytes

_RATE = "the rate is a share of a core and no count of pages: boost_percent and cruise_percent of the profile"
_ADAPTIVE = {
    "KSM_MONITOR_INTERVAL": "it looks each second while something happens (daemon.tick_seconds), and at once when "
    "a guest comes or tasks stall on memory",
    "KSM_SLEEP_MSEC": _RATE,
    "KSM_NPAGES_BOOST": _RATE,
    "KSM_NPAGES_DECAY": "the rate falls with what a pass gains: price_cpu_seconds_per_gib of the profile",
    "KSM_NPAGES_MIN": _RATE,
    "KSM_NPAGES_MAX": _RATE,
    "KSM_PS_METRIC": "what guests take is not summed up: available memory says it all",
}
"""The keys of the adaptive policy that replace settings of the script."""


def notes(legacy: LegacyFile, total_bytes: int | None, *, adaptive: bool) -> list[str]:
    """A line for each setting that is not taken over. `total_bytes` is the host's memory, if it is known."""
    found = {**INERT, **(_ADAPTIVE if adaptive else {})}
    if not legacy.const_counts(total_bytes):
        found["KSM_THRES_CONST"] = _const_note(legacy, total_bytes)
        if adaptive and not legacy.settings.thres_coef_percent:
            found["KSM_THRES_COEF"] = "with it, memory never was short; here it is by [adaptive.need]"
    return [
        f"line {each.line}: {name}={_printable(each.value)}: {found[name]}"
        for name, each in legacy.assignments.items()
        if name in found
    ]


def _const_note(legacy: LegacyFile, total_bytes: int | None) -> str:
    coef = f"KSM_THRES_COEF ({legacy.settings.thres_coef_percent:g} %)"
    if total_bytes is None:
        return f"it is KiB, not MB, and counts only where it is more than {coef} of the host's memory"
    limit = human_bytes(total_bytes * legacy.settings.thres_coef_percent / 100)
    const = human_bytes(legacy.settings.thres_const_kib * KIB)
    return f"it is KiB, not MB: {const} is less than {coef} of this host's memory, {limit}, which counts"


def _printable(value: str) -> str:
    """The value without surrogates, which stand for bytes that are no UTF-8, and which no terminal takes."""
    return value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
