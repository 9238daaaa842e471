"""What the scan worker is told of the configuration, and that it does not load what has checked it."""

import subprocess
import sys
from dataclasses import asdict

from ksmtuned_py.backends.scanlink import for_scanner
from ksmtuned_py.config import Scan


def test_it_is_told_what_the_configuration_says() -> None:
    settings = Scan(reclaim="remap", stop_window_ms=7.5, worker_memory_mib=128)
    assert asdict(for_scanner(settings)).items() <= settings.model_dump().items()


def test_it_loads_nothing_of_the_configuration() -> None:
    code = (
        "import sys; import ksmtuned_py.scanner.worker, ksmtuned_py.scanner.remap.share.remapper;"
        "print({'pydantic', 'ksmtuned_py.config'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "set()\n"
