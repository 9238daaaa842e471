"""Makes the sentences that several surfaces share."""

from ksmtuned_py.model import ForeignWrite, Snapshot, WriteResult, WriteStatus
from ksmtuned_py.publish.totals import Totals
from ksmtuned_py.report import Report
from ksmtuned_py.units import MIB, human_bytes, human_percent

FAILED = frozenset({WriteStatus.REFUSED, WriteStatus.LOST})


def status_line(report: Report, totals: Totals) -> str:
    """The daemon in one line, as 'cruise: 3.2 GiB saved, ksmd 0.3 % of a core, 2.1 CPU-s per GiB'."""
    snapshot = report.snapshot
    parts = [f"{report.decision.mode}: {human_bytes(snapshot.saved_bytes)} saved"]
    if totals.scanner_share is not None:
        parts.append(f"{scanner_name(snapshot)} {human_percent(totals.scanner_share)} of a core")
    price = totals.cpu_seconds_per_saved_gib(snapshot)
    if price is not None and snapshot.saved_bytes >= MIB:  # for less the price is a huge number without a meaning
        parts.append(f"{price:.3g} CPU-s per GiB")
    if report.dry:
        parts.append("only watching")
    return ", ".join(parts)


def scanner_name(snapshot: Snapshot) -> str:
    """The name of the scanner: the kernel's thread, or our worker."""
    return "ksmd" if snapshot.backend == "kernel" else "scanner"


def write_sentence(result: WriteResult) -> str:
    """A write as words, as 'pages_to_scan 100 -> 500', with how it ended when that was not well."""
    write = result.write
    change = f"{write.knob} {write.old} -> {write.new}"
    if result.status is WriteStatus.OK:
        return change
    return f"{change}: {result.status}" + (f" ({result.detail})" if result.detail else "")


def foreign_sentence(write: ForeignWrite, snapshot: Snapshot) -> str:
    """The sentence on a knob that changed, with those who may have done it."""
    who = f" (running: {', '.join(snapshot.suspects)})" if snapshot.suspects else ""
    return f"somebody else changed {write.knob} from our {write.ours} to {write.seen}{who}"
