"""`python -m bench.page`: how soon the daemon's page is there with 500 guests, what it takes over the wire, and later.

The daemon is on a made-up host, the browser is a real Chromium on the same machine.
"""

import tempfile
from pathlib import Path
from statistics import median
from typing import Any

import psutil

from ksmtuned_py.units import KIB, MIB
from tests.support.chromium import chromium, tab
from tests.support.pagestage import Stage

TURNS = 7
WATCHED_MS = 30_000
FIGURES = """() => {
    const paint = performance.getEntriesByName("first-contentful-paint")[0].startTime;
    const [data, page] = [[], performance.getEntriesByType("navigation")];
    for (const entry of performance.getEntriesByType("resource")) {
        (entry.name.includes("/api/") ? data : page).push(entry);
    }
    const sum = (entries) => entries.reduce((bytes, entry) => bytes + entry.transferSize, 0);
    return { paint, table: window.tableAt, page: sum(page), data: sum(data) };
}"""
WATCH = """
window.longest = 0;
new PerformanceObserver((list) => {
    for (const entry of list.getEntries()) window.longest = Math.max(window.longest, entry.duration);
}).observe({ type: "longtask", buffered: true });
new MutationObserver(() => {
    if (!window.tableAt && document.querySelector("#guests tbody tr")) window.tableAt = performance.now();
}).observe(document, { childList: true, subtree: true });
"""


def opened_once(stage: Stage) -> dict[str, float]:
    """The figures of one look at the page, with an empty cache."""
    with tab(stage.browser) as opened:
        opened.page.add_init_script(WATCH)
        opened.page.goto(stage.address)
        opened.page.wait_for_selector("#guests tbody tr", state="attached")
        opened.page.wait_for_load_state("networkidle")
        found: dict[str, Any] = opened.page.evaluate(FIGURES)
        return found


def longest_task_ms(stage: Stage) -> float:
    """The longest time for which the page did not heed its user while it was looked at, in milliseconds; 0 below 50."""
    with tab(stage.browser) as opened:
        opened.page.add_init_script(WATCH)
        opened.page.goto(stage.address)
        opened.page.wait_for_selector("#guests tbody tr", state="attached")
        opened.page.evaluate("window.longest = 0")
        opened.page.wait_for_timeout(WATCHED_MS)
        longest: float = opened.page.evaluate("window.longest")
        return longest


def main() -> None:
    """Measures, and prints a table."""
    with tempfile.TemporaryDirectory() as directory, chromium() as browser:
        stage = Stage(Path(directory), browser)
        with stage.start() as daemon:
            turns = [opened_once(stage) for _ in range(TURNS)]
            longest = longest_task_ms(stage)
            resident = psutil.Process(daemon.pid).memory_info().rss
    for name, key, size, unit in (
        ("first paint", "paint", 1, "ms"),
        ("500 guests in the table", "table", 1, "ms"),
        ("the page, over the wire", "page", KIB, "KiB"),
        ("its first data", "data", KIB, "KiB"),
    ):
        values = sorted(turn[key] / size for turn in turns)
        print(f"| {name} | {median(values):.0f} {unit} ({values[0]:.0f} to {values[-1]:.0f}) |")
    print(f"| longest task of an update | {longest:.0f} ms (0: below 50) |")
    print(f"| the daemon, resident | {resident / MIB:.1f} MiB |")


if __name__ == "__main__":
    main()
