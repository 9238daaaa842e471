"""`python -m tests.browser.pictures` (root, KSM): renews the pictures of the page in docs/pictures, in three minutes.

A real daemon steers the real KSM meanwhile. Guests with memory to merge come and go, and write to some of it.
With `--minutes 75` the charts are full, and it is known how many more guests fit. `--grafana` draws the dashboard of
the same run, too.
"""

import argparse
import io
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from PIL import Image

from bench.dashboards import Source, draw, scraping
from ksmtuned_py.cli.workload import Mix, Workload
from ksmtuned_py.units import MIB
from tests.support.chromium import chromium, tab
from tests.support.daemon import Daemon, Sections, free_port, merged
from tests.support.ksmlock import locked_ksm
from tests.support.process import adopt_orphans

PICTURES = Path(__file__).parent.parent.parent / "docs" / "pictures"
MOST_BYTES = 200_000
HOST = "kvm1"
SIZES = {
    "page-light": ("light", 1280, 1080),
    "page-dark": ("dark", 1280, 1080),
    "page-phone": ("light", 360, 780),
}
GUESTS = ("web-1", "web-2", "web-3", "db-1", "db-2", "mail", "build-1", "build-2")
MIX = Mix(
    equal_bytes=96 * MIB, zero_bytes=24 * MIB, unique_bytes=24 * MIB, changing_bytes=4 * MIB, changes_per_second=50
)
SETTINGS: Sections = {
    "adaptive": {"profile": "eager"},
    "daemon": {"tick_seconds": 1, "idle_tick_seconds": 2, "backend": "kernel"},
}


def main() -> None:
    """Lets guests live for a while, and takes the pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=3.0, help="how long guests come and go (%(default)g)")
    parser.add_argument("--grafana", action="store_true", help="draw the host's dashboard, too")
    args = parser.parse_args()
    adopt_orphans()
    port = free_port()
    with ExitStack() as stack:
        stack.enter_context(locked_ksm())
        prometheus = stack.enter_context(scraping(f"127.0.0.1:{port}", HOST)) if args.grafana else None
        stack.enter_context(day(port, 60 * args.minutes))
        take(f"http://127.0.0.1:{port}/")
        if prometheus:
            drawn = io.BytesIO()
            draw("host", Source(prometheus.url, HOST, 60 * args.minutes), drawn)
            keep(PICTURES / "grafana-host.png", drawn.getvalue())


def take(address: str) -> None:
    """Takes the pictures of the page."""
    with chromium() as browser:
        for name, (scheme, width, height) in SIZES.items():
            size = {"width": width, "height": height}
            with tab(browser, address, color_scheme=scheme, viewport=size, device_scale_factor=1) as opened:
                opened.page.wait_for_selector("figure canvas")
                opened.page.wait_for_timeout(1000)
                keep(PICTURES / f"{name}.png", opened.page.screenshot())


@contextmanager
def day(port: int, seconds: float) -> Iterator[None]:
    """A short day of a host, at whose end the daemon serves the page at that port."""
    with tempfile.TemporaryDirectory() as directory, ExitStack() as stack:
        sections = merged(SETTINGS, {"metrics": {"address": f"127.0.0.1:{port}"}})
        stack.enter_context(Daemon(Path(directory), sections))
        ends = time.monotonic() + seconds
        guests = deque(born(stack, name) for name in GUESTS)
        while True:
            for guest in (guests[-1], guests[-2]) * 3:
                guest.spoil(1500)
                time.sleep(6)
            if time.monotonic() >= ends:
                break
            oldest = guests.popleft()
            oldest.stop()
            time.sleep(min(120, max(0.0, ends - time.monotonic())))
            guests.append(born(stack, oldest.name))
        yield


def born(stack: ExitStack, name: str) -> Workload:
    """A guest, some time after its start."""
    guest = stack.enter_context(Workload(name, MIX)).wait_ready()
    time.sleep(12)
    return guest


def keep(file: Path, png: bytes) -> None:
    """Writes a picture with fewer colours, which nobody sees, and in a quarter of the bytes."""
    Image.open(io.BytesIO(png)).convert("RGB").quantize(160, dither=Image.Dither.NONE).save(file, optimize=True)
    size = file.stat().st_size
    assert size < MOST_BYTES, f"{file} has {size} bytes"
    print(f"{file.relative_to(PICTURES.parent.parent)}: {size} bytes")


if __name__ == "__main__":
    main()
