"""The arithmetic of KubeVirt's virt-handler: integers in KiB, and one comparison in 32-bit floats. Pure."""

import struct
from dataclasses import dataclass, replace

from ksmtuned_py.config import Config
from ksmtuned_py.config.peers import Kubevirt
from ksmtuned_py.model import Run, Snapshot
from ksmtuned_py.policy.peers.periodic import REFERENCE_KIB, Periodic, Rate
from ksmtuned_py.units import KIB

SLEEP_MIN_PART = 10
"""It never sleeps for less than this part of its base sleep."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KubevirtState(Periodic):
    """Nothing but times: what KubeVirt set last it reads back from the kernel."""

    def after(self, now: Snapshot, config: Config) -> "KubevirtState":
        """The state after one more snapshot: unchanged until it is time. The first adjustment is at the start."""
        settings = config.kubevirt
        if self.due_seconds is not None and not self.is_due(now):
            return self
        rate = adjust(
            now.knobs.pages_to_scan or 0,
            running=now.knobs.run == Run.MERGE,
            total_kib=now.memory.total_bytes // KIB,
            available_kib=now.memory.available_bytes // KIB,
            settings=settings,
        )
        return replace(self, rate=rate).due_after(now, settings.monitor_interval_seconds)


def adjust(pages_to_scan: int, *, running: bool, total_kib: int, available_kib: int, settings: Kubevirt) -> Rate:
    """One run of its calculation."""
    used_kib = max(1, total_kib - available_kib)  # it would divide by zero
    sleep = max(settings.sleep_msec // SLEEP_MIN_PART, settings.sleep_msec * REFERENCE_KIB // used_kib)
    sentence = f"{available_kib} KiB of {total_kib} KiB available, where {settings.free_percent:g} % are the threshold"
    rate = Rate(run=Run.STOP, pages_to_scan=pages_to_scan, sleep_millisecs=sleep, sentence=sentence)
    if _float32(available_kib) > _float32(_float32(total_kib) * _float32(settings.free_percent / 100)):
        pages = pages_to_scan + settings.pages_decay
        if not running or pages < settings.pages_min:
            return rate
        return replace(rate, run=Run.MERGE, pages_to_scan=pages)
    pages = min(pages_to_scan + settings.pages_boost, settings.pages_max) if running else settings.pages_init
    return replace(rate, run=Run.MERGE, pages_to_scan=pages)


def _float32(number: float) -> float:
    """A product of two of these is exact in 64 bits, so rounding it once more is what 32-bit hardware does."""
    rounded: float = struct.unpack("f", struct.pack("f", number))[0]
    return rounded
