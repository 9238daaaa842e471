"""`python -m tests.browser.pictures` (root, KSM): renews the pictures of the page in docs/pictures, in three minutes.

A real daemon steers the real KSM meanwhile. Guests with memory to merge come and go, and write to some of it.
"""

import io
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from PIL import Image

from ksmtuned_py.cli.workload import Mix, Workload
from ksmtuned_py.units import MIB
from tests.support.chromium import chromium, tab
from tests.support.daemon import Daemon, Sections, free_port, merged
from tests.support.ksmlock import locked_ksm
from tests.support.process import adopt_orphans

PICTURES = Path(__file__).parent.parent.parent / "docs" / "pictures"
MOST_BYTES = 200_000
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
    adopt_orphans()
    with locked_ksm(), day() as address, chromium() as browser:
        for name, (scheme, width, height) in SIZES.items():
            size = {"width": width, "height": height}
            with tab(browser, address, color_scheme=scheme, viewport=size, device_scale_factor=1) as opened:
                opened.page.wait_for_selector("figure canvas")
                opened.page.wait_for_timeout(1000)
                keep(PICTURES / f"{name}.png", opened.page.screenshot())


@contextmanager
def day() -> Iterator[str]:
    """A short day of a host, at whose end the daemon's page can be seen at the address."""
    with tempfile.TemporaryDirectory() as directory, ExitStack() as stack:
        port = free_port()
        sections = merged(SETTINGS, {"metrics": {"address": f"127.0.0.1:{port}"}})
        stack.enter_context(Daemon(Path(directory), sections))
        guests = []
        for name in GUESTS:
            guests.append(stack.enter_context(Workload(name, MIX)).wait_ready())
            time.sleep(12)
        guests[2].stop()
        for guest in guests[:2] * 3:
            guest.spoil(1500)
            time.sleep(6)
        yield f"http://127.0.0.1:{port}/"


def keep(file: Path, png: bytes) -> None:
    """Writes a picture with fewer colours, which nobody sees, and in a quarter of the bytes."""
    Image.open(io.BytesIO(png)).convert("RGB").quantize(160, dither=Image.Dither.NONE).save(file, optimize=True)
    size = file.stat().st_size
    assert size < MOST_BYTES, f"{file} has {size} bytes"
    print(f"{file.relative_to(PICTURES.parent.parent)}: {size} bytes")


if __name__ == "__main__":
    main()
