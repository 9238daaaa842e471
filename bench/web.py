"""`python -m bench.web`: what serving takes of the daemon, and whether clients delay its ticks.

On a made-up tree with many guests, so that nothing but the daemon itself works. It needs no rights.
"""

import argparse
import multiprocessing
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import psutil

from ksmtuned_py.units import MIB
from tests.support.daemon import Daemon, free_port
from tests.support.trees import FakeGuest, make_fake_tree

TICK_SECONDS, NEVER_SECONDS = 0.5, 600.0
REQUESTS = 20
SETTLED_SECONDS = 0.2
"""After an answer its connection is still taken down."""
PAGE = ("/", "/api/v1/status", "/api/v1/history?seconds=3600&points=360")
POLL_SECONDS = 2.0
"""Between two looks of a page that is open."""
DRIP_SECONDS = 1.0
"""Between two bytes of a slow client. One that sends none is closed after ten times as long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What was seen while clients did something."""

    name: str
    cpu_share: float
    """Of one core."""
    resident_bytes: int
    descriptors: int
    ticks: int
    """Those of which the one before was seen, too."""
    latest_seconds: float
    """By how much the latest tick began too late."""


class Served:
    """A daemon on a made-up tree."""

    def __init__(self, daemon: Daemon, port: int) -> None:
        self.daemon = daemon
        self.port = port
        self.process = psutil.Process(daemon.pid)

    def cpu_seconds(self) -> float:
        """The CPU time of the daemon's threads so far, to the nanosecond."""
        threads = Path(f"/proc/{self.daemon.pid}/task").iterdir()
        return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads) / 1e9


def get(port: int, path: str, **headers: str) -> int:
    """Ask for something, and return how long the answer was."""
    client = HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        client.request("GET", path, headers=headers)
        return len(client.getresponse().read())
    finally:
        client.close()


@contextmanager
def serving(guests: int, tick_seconds: float) -> Iterator[Served]:
    """A daemon with so many guests, each with metrics of its own, in a with block."""
    with tempfile.TemporaryDirectory(prefix="web-") as name:
        place, port = Path(name), free_port()
        (place / "state").mkdir(mode=0o755)
        found = [FakeGuest(pid=2000 + number, name=f"guest-{number}") for number in range(guests)]
        root = make_fake_tree(place / "root", guests=found, run=1)
        sections: dict[str, dict[str, object]] = {
            "daemon": {"tick_seconds": tick_seconds, "idle_tick_seconds": tick_seconds},
            "guests": {"max_guest_series": guests},
            "metrics": {"address": f"127.0.0.1:{port}"},
        }
        environment = {"STATE_DIRECTORY": str(place / "state")}
        with Daemon(place / "daemon", sections, root=root, environment=environment) as daemon:
            daemon.wait_status(lambda status: len(status["snapshot"]["guests"]) == guests, "all guests")
            yield Served(daemon, port)


def costs_ms(served: Served, path: str, **headers: str) -> Iterator[tuple[str, float, int]]:
    """The CPU milliseconds of the first answer of a daemon that does not tick meanwhile, those of others, the length.

    What is kept until the next tick is made for the first.
    """
    name = f"{path}{', packed' * bool(headers)}"
    for which, requests in (("the first after a tick", 1), ("until the next tick", REQUESTS)):
        before = served.cpu_seconds()
        lengths = [get(served.port, path, **headers) for _ in range(requests)]
        time.sleep(SETTLED_SECONDS)
        yield f"{name}, {which}", (served.cpu_seconds() - before) / requests * 1000, lengths[0]


def watch(served: Served, name: str, seconds: float) -> Load:
    """Watch the daemon for so many seconds."""
    before, ends = served.cpu_seconds(), time.monotonic() + seconds
    seen: dict[int, tuple[float, float]] = {}
    descriptors = resident = 0
    while time.monotonic() < ends:
        with suppress(ValueError, KeyError):
            status = served.daemon.status()
            began = status["snapshot"]["clock"]["monotonic_seconds"]
            seen[status["totals"]["ticks"]] = began, began + status["decision"]["next_tick_seconds"]
        descriptors = max(descriptors, served.process.num_fds())
        resident = max(resident, served.process.memory_info().rss)
        time.sleep(0.02)
    late = [seen[tick + 1][0] - due for tick, (_, due) in seen.items() if tick + 1 in seen]
    return Load(
        name=name,
        cpu_share=(served.cpu_seconds() - before) / seconds,
        resident_bytes=resident,
        descriptors=descriptors,
        ticks=len(late),
        latest_seconds=max(late, default=0.0),
    )


@contextmanager
def at_work(number: int, work: Callable[[int], None], port: int) -> Iterator[None]:
    """Have so many clients at work in a with block, in a process of their own: they must not slow down who watches."""
    crowd = multiprocessing.get_context("fork").Process(target=_crowd, args=(number, work, port), daemon=True)
    crowd.start()
    try:
        yield
    finally:
        crowd.terminate()
        crowd.join(30)


def _crowd(number: int, work: Callable[[int], None], port: int) -> None:
    threads = [threading.Thread(target=work, args=(port,), daemon=True) for _ in range(number)]
    for thread in threads:
        thread.start()
    threading.Event().wait()


def slow(port: int) -> None:
    """A client that sends its request byte by byte, and comes back whenever it is closed."""
    while True:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5) as client:
            client.settimeout(DRIP_SECONDS)
            for byte in b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 1000:
                client.sendall(bytes([byte]))
                time.sleep(DRIP_SECONDS)


def scraper(port: int) -> None:
    """A client that scrapes as fast as it is answered."""
    while True:
        with suppress(OSError, HTTPException):
            get(port, "/metrics")


def reader(port: int) -> None:
    """A page that is open in a browser."""
    for path in PAGE:
        get(port, path, **{"Accept-Encoding": "gzip"})
    while True:
        time.sleep(POLL_SECONDS)
        get(port, "/api/v1/status", **{"Accept-Encoding": "gzip"})


def as_markdown(costs: Sequence[tuple[str, float, int]], loads: Sequence[Load]) -> str:
    """The two tables."""
    lines = ["| answer | CPU ms | KiB |", "|---|---:|---:|"]
    lines += [f"| {name} | {cost:.1f} | {length / 1024:.1f} |" for name, cost, length in costs]
    lines += ["", "| clients | CPU of a core % | RSS MiB | descriptors | ticks | latest ms |", "|---|" + "---:|" * 5]
    for load in loads:
        figures = f"{load.cpu_share * 100:.1f} | {load.resident_bytes / MIB:.1f} | {load.descriptors}"
        lines.append(f"| {load.name} | {figures} | {load.ticks} | {load.latest_seconds * 1000:.0f} |")
    return "\n".join(lines)


def main() -> None:
    """Measure all of it, and print the tables."""
    parser = argparse.ArgumentParser("python -m bench.web", description="what serving takes of the daemon")
    parser.add_argument("--guests", type=int, default=500, metavar="N", help="(%(default)s)")
    parser.add_argument("--clients", type=int, default=500, metavar="N", help="slow ones (%(default)s)")
    parser.add_argument("--seconds", type=float, default=30, metavar="S", help="of each load (%(default)s)")
    args = parser.parse_args()
    gzip = {"Accept-Encoding": "gzip"}
    with serving(args.guests, NEVER_SECONDS) as served:
        paths = [(path, gzip) for path in ("/metrics", *PAGE[1:])]
        costs = [cost for path, more in paths for cost in costs_ms(served, path, **more)]
    with serving(args.guests, TICK_SECONDS) as served:
        loads = [watch(served, "none", args.seconds)]
        for name, number, work in (
            ("one page", 1, reader),
            (f"{args.clients} slow ones", args.clients, slow),
            ("50 that scrape at once", 50, scraper),
        ):
            with at_work(number, work, served.port):
                loads.append(watch(served, name, args.seconds))
    print(as_markdown(costs, loads))


if __name__ == "__main__":
    main()
