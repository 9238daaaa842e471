"""What the scanner has to know of the configuration."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanSettings:
    """Keys of the section `scan`, already checked: to load what checks them takes a third of a worker's start."""

    reclaim: str
    zero_pages_to_disk: bool
    split_huge_below_percent: float
    remap_least_mib: int
    stop_window_ms: float
    mappings_percent: float
    worker_memory_mib: int
