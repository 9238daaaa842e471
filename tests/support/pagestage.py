"""A daemon with 500 guests on a made-up host, for whoever looks at its page in a browser."""

from pathlib import Path

from playwright.sync_api import Browser

from ksmtuned_py.units import GIB, KIB
from tests.support.daemon import Daemon, Sections, free_port
from tests.support.trees import FakeGuest, make_fake_tree, meminfo, put

HOSTILE = ("<img src=x onerror=alert(1)>", "<script>alert(2)</script>", "=1+1 ${7*7} {{7*7}}", "&lt;b&gt;" + "x" * 200)
PAGES_PER_GIB = GIB // 4096
MEMORY = meminfo(
    total_bytes=64 * GIB,
    available_bytes=20 * GIB,
    AnonHugePages=6 * GIB // KIB,
    SwapTotal=8 * GIB // KIB,
    SwapFree=8 * GIB // KIB,
)


def fake_guests() -> list[FakeGuest]:
    """500 guests: four with names that would be more than text to a careless page, and guest-004 to guest-499."""
    names = [*HOSTILE, *(f"guest-{number:03d}" for number in range(len(HOSTILE), 500))]
    return [
        FakeGuest(
            pid=2000 + number,
            name=name,
            uuid=f"00000000-0000-4000-8000-{number:012d}",
            rmap_items=200_000,
            merging_pages=100 * number,
            zero_pages=number % 7 * 1000,
        )
        for number, name in enumerate(names)
    ]


class Stage:
    """A daemon on a host that is made up. It can be ended, and started again at the same address."""

    def __init__(self, directory: Path, browser: Browser) -> None:
        self.root = make_fake_tree(
            directory / "root",
            guests=fake_guests(),
            run=1,
            files={"proc/meminfo": MEMORY, "proc/pressure/memory": "nonsense\n"},
        )
        self.save(8)
        port = free_port()
        self.address = f"http://127.0.0.1:{port}/"
        self.browser = browser
        self._directory = directory
        self._sections: Sections = {
            "daemon": {"tick_seconds": 0.5, "idle_tick_seconds": 0.5},
            "metrics": {"address": f"127.0.0.1:{port}"},
        }
        self._starts = 0

    def save(self, gib: float) -> None:
        """Changes what the host saves."""
        put(self.root, "sys/kernel/mm/ksm/pages_sharing", f"{round(gib * PAGES_PER_GIB)}\n")

    def start(self) -> Daemon:
        """Starts a daemon."""
        self._starts += 1
        daemon = Daemon(self._directory / f"daemon-{self._starts}", self._sections, root=self.root)
        daemon.wait_status(lambda status: status["pid"] == daemon.pid, "first tick")
        return daemon
