"""Made-up processes in a made-up /proc, shaped like the kernel's."""

import shutil
from collections.abc import Sequence
from pathlib import Path

KSM_STAT_6_1 = "ksm_rmap_items {rmap}\n"
KSM_STAT_6_4 = "ksm_rmap_items {rmap}\nksm_merging_pages {merging}\nksm_process_profit {profit}\n"
KSM_STAT_6_18 = (
    "ksm_rmap_items {rmap}\nksm_zero_pages {zero}\nksm_merging_pages {merging}\nksm_process_profit {profit}\n"
    "ksm_merge_any: {merge_any}\nksm_mergeable: {mergeable}\n"
)


def ksm_stat(shape: str = KSM_STAT_6_18, **values: object) -> str:
    """Returns a ksm_stat of that shape; what is not given is 0 or no."""
    default = dict.fromkeys(("rmap", "zero", "merging", "profit"), 0) | dict.fromkeys(("merge_any", "mergeable"), "no")
    return shape.format(**(default | values))


def add_process(
    root: Path,
    pid: int,
    words: Sequence[str],
    *,
    comm: str = "",
    start_ticks: int = 1000,
    account: str | None = "",
    resident_pages: int = 25,
) -> Path:
    """Adds a process below root/proc, in place of any with its PID; with account None this kernel has no ksm_stat."""
    directory = root / "proc" / str(pid)
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    comm = (comm or (Path(words[0]).name if words else ""))[:15]
    (root / "proc" / "stat").write_text("cpu  0 0 0 0\nbtime 1700000000\n")
    (directory / "comm").write_text(comm + "\n")
    (directory / "stat").write_text(f"{pid} ({comm}) S 1" + " 0" * 17 + f" {start_ticks}" + " 0" * 30 + "\n")
    (directory / "statm").write_text(f"{resident_pages and 100} {resident_pages} 0 0 0 0 0\n")
    (directory / "cmdline").write_text("".join(word + "\0" for word in words))
    if account is not None:
        (directory / "ksm_stat").write_text(account or ksm_stat())
    return directory


def remove_process(root: Path, pid: int) -> None:
    """Removes a process that has ended."""
    shutil.rmtree(root / "proc" / str(pid))
