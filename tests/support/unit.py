"""The service's unit in a container: what systemd and the service itself say of it, and the knobs it steers."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ksmtuned_py.cli.options import RUNTIME_DIR
from tests.support.container import Container
from tests.support.process import wait_for

SECONDS = 30.0


@dataclass
class Unit:
    """The unit ksmtuned-py.service of one container."""

    container: Container
    ksm: Path
    """The knobs it steers, as this process sees them."""
    found: dict[str, str] = field(default_factory=dict)
    """The knobs as it finds them."""

    def systemctl(self, *words: str) -> str:
        """Returns what systemctl says; nothing when all is well."""
        return self.container.run("systemctl", *words, "ksmtuned-py")

    def shows(self, name: str) -> str:
        """Returns what systemd knows of it: MainPID, ActiveState, Result, NRestarts."""
        return self.container.run("systemctl", "show", f"--property={name}", "--value", "ksmtuned-py").strip()

    def start(self) -> None:
        """Starts it; it is ready on return."""
        assert self.systemctl("start") == "", self.journal()

    def stop(self) -> None:
        """Stops it; it has ended well on return."""
        self.systemctl("stop")
        assert self.shows("Result") == "success", self.journal()

    def status(self) -> dict[str, Any]:
        """Returns its status file; empty while there is none."""
        said = self.container.run("cat", f"{RUNTIME_DIR}/status.json")
        found: dict[str, Any] = json.loads(said) if said.startswith("{") else {}
        return found

    def wait_ticks(self, more: int) -> None:
        """Waits for so many more ticks."""
        wanted = self._ticks() + more
        wait_for(lambda: self._ticks() >= wanted, SECONDS, f"tick {wanted}")

    def journal(self) -> str:
        """Returns all it has said since the test began."""
        return self.container.run("journalctl", "--no-pager", "--output=cat", "--unit=ksmtuned-py")

    def knobs(self) -> dict[str, str]:
        """Returns the knobs that a daemon may change."""
        names = ("run", "pages_to_scan", "sleep_millisecs", "smart_scan", "advisor_mode", "max_page_sharing")
        return {name: (self.ksm / name).read_text().strip() for name in names if (self.ksm / name).exists()}

    def _ticks(self) -> int:
        return int(self.status().get("totals", {}).get("ticks", 0))
