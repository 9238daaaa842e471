"""`python -m bench.fleet`: how long `ksmtuned-py fleet` takes for many hosts, with a real Prometheus that scrapes them.

One exporter stands for all hosts. Each of them serves the page of a real daemon, with figures of its own in it, some of
which are odd.
"""

import argparse
import json
import random
import re
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.request import urlopen

import psutil

from bench.dashboards import Source, draw
from ksmtuned_py.units import GIB, human_bytes
from tests.support.daemon import Daemon, free_port, verb
from tests.support.process import wait_for
from tests.support.prometheus import Prometheus

RULES = Path(__file__).parent.parent / "packaging/prometheus/ksmtuned-py.rules.yml"
DOWN, DEBT, LOSS, OLD, OTHER, BUSY, FOREIGN = 2, 3, 5, 7, 11, 13, 17
"""The numbers of the hosts that are odd, in each hundred."""
CAPACITY = ("ksmtuned_capacity_guests 0", "ksmtuned_capacity_exceeded_chance_ratio 0")
"""What a real daemon tells after an hour."""
TURNS = 5
SHOWN_LINES = 12


class Fleet:
    """The pages of many hosts."""

    def __init__(self, page: str) -> None:
        """`page` is a real daemon's."""
        self.lines = [*(line for line in page.splitlines() if line), *CAPACITY]
        self.began = time.monotonic()

    def page(self, number: int) -> str | None:
        """Returns the page of a host now; None from one that is down."""
        kind = number % 100
        if kind == DOWN:
            return None
        figures = self._figures(number, kind)
        lines = (
            f"{name} {figures[name]}" if (name := line.rpartition(" ")[0]) in figures else line for line in self.lines
        )
        text = "\n".join(lines) + "\n"
        if kind == OLD:
            text = re.sub('version="[^"]*', 'version="0.0.9', text, count=1)
        return re.sub('hash="[^"]*', 'hash="0ddba115ca1e', text) if kind == OTHER else text

    def _figures(self, number: int, kind: int) -> Mapping[str, float]:
        chance, seconds = random.Random(number), time.monotonic() - self.began
        memory = 256 * GIB
        saved = memory * chance.gauss(0.12, 0.02) * min(1.0, 0.7 + seconds / 600)
        room = memory * chance.gauss(0.3, 0.03)
        busy = 0.6 if kind == BUSY else chance.gauss(0.02, 0.004)
        return {
            "ksmtuned_saved_bytes": saved,
            "ksmtuned_debt_bytes": saved,
            "ksmtuned_debt_room_bytes": saved / 1.2 if kind == DEBT else room,
            "ksmtuned_debt_exceeded": float(kind == DEBT),
            "ksmtuned_profit_bytes": -0.3 * GIB if kind == LOSS else saved * 0.97,
            "ksmtuned_memory_base_bytes": memory,
            "ksmtuned_last_tick_timestamp_seconds": time.time(),
            "ksmtuned_guests": 20 + number % 30,
            "ksmtuned_scanner_cpu_seconds_total": busy * seconds,
            "ksmtuned_huge_pages_split_total": round(chance.gauss(0.05, 0.01) * seconds),
            'ksmtuned_foreign_writes_total{knob="run"}': (seconds // 60) if kind == FOREIGN else 0.0,
            "ksmtuned_cow_ksm_pages_per_minute": chance.expovariate(1 / 200),
            "ksmtuned_capacity_guests": 0 if kind == DEBT else chance.randint(2, 12),
            "ksmtuned_capacity_exceeded_chance_ratio": 0.21 if kind == DEBT else chance.expovariate(1 / 0.001),
        }


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    fleet: Fleet

    def do_GET(self) -> None:
        page = self.fleet.page(int(self.path.strip("/")))
        body = (page or "").encode()
        self.send_response(503 if page is None else 200)
        self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Keeps quiet."""


@contextmanager
def exporter(fleet: Fleet) -> Iterator[int]:
    """Serves the fleet, and yields the port."""
    handler = type("Handler", (_Handler,), {"fleet": fleet})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def real_page(directory: Path) -> str:
    """Returns the page of a real daemon on a model, some seconds after its start."""
    address = f"127.0.0.1:{free_port()}"

    def page() -> str:
        try:
            with urlopen(f"http://{address}/metrics", timeout=10) as answer:
                text: str = answer.read().decode()
        except OSError:  # it does not listen yet
            return ""
        return text if "ksmtuned_saved_bytes" in text else ""

    with Daemon(directory, {"metrics": {"address": address}}, "--backend", "model"):
        return wait_for(page, 20, "page of a daemon", every_seconds=0.2)


def configuration(hosts: int, port: int, interval: str) -> dict[str, Any]:
    """Returns a configuration of Prometheus in which each host is a path of the exporter."""
    targets = [
        {"targets": [f"127.0.0.1:{port}"], "labels": {"__metrics_path__": f"/{number}", "instance": f"kvm{number:04}"}}
        for number in range(1, hosts + 1)
    ]
    times = {"scrape_interval": interval, "scrape_timeout": interval, "evaluation_interval": interval}
    jobs = [{"job_name": "ksmtuned-py", "static_configs": targets}]
    return {"global": times, "rule_files": [str(RULES)], "scrape_configs": jobs}


def measure(prometheus: Prometheus) -> None:
    """Prints how long the verb takes, and what Prometheus holds."""
    taken = []
    for _ in range(TURNS):
        began = time.monotonic()
        done = verb("fleet", "--prometheus", prometheus.url, "--json")
        taken.append(time.monotonic() - began)
    found = json.loads(done.stdout)
    head = prometheus.ask("status/tsdb")["headStats"]
    print(f"hosts: {found['sums']['hosts']}, odd: {found['sums']['odd']}, series: {head['numSeries']}")
    print(f"prometheus: {human_bytes(psutil.Process(prometheus.pid).memory_info().rss)} resident")
    print(f"fleet: {statistics.median(taken):.2f} s, at worst {max(taken):.2f} s, of {TURNS}")
    print("\n".join(verb("fleet", "--prometheus", prometheus.url).stdout.splitlines()[:SHOWN_LINES]))


def main() -> None:
    """Lets Prometheus scrape for a while, then measures, and draws if that is wanted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hosts", type=int, default=1000)
    parser.add_argument("--interval", default="15s", help="between two scrapes")
    parser.add_argument("--seconds", type=float, default=90.0, help="how long Prometheus scrapes first")
    parser.add_argument("--picture", type=Path, help="of the fleet's dashboard then")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        place = Path(scratch)
        port = stack.enter_context(exporter(Fleet(real_page(place / "daemon"))))
        config = configuration(args.hosts, port, args.interval)
        prometheus = stack.enter_context(Prometheus(place / "prometheus", config))
        prometheus.wait_ready()
        time.sleep(args.seconds)
        wait_for(lambda: prometheus.query("count(ksmtuned_build_info)"), 60, "scrapes", every_seconds=1)
        measure(prometheus)
        if args.picture:
            draw("fleet", Source(prometheus.url, "", args.seconds), args.picture)


if __name__ == "__main__":
    main()
