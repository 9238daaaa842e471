"""A real Prometheus in tests: its checker, and its server on loopback."""

import json
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.parse import urlencode
from urllib.request import urlopen

import yaml

from tests.support.daemon import free_port
from tests.support.debian import unpacked
from tests.support.need import need
from tests.support.process import Program, wait_for

Answer = list[dict[str, Any]]


def tool(name: str) -> str:
    """Returns the path of prometheus or promtool, from PATH or from Debian's package, without its service."""
    if found := shutil.which(name):
        return found
    try:
        path = unpacked("prometheus") / "usr/bin" / name
    except (OSError, subprocess.CalledProcessError):
        path = Path("/nonexistent")
    need(path.exists(), f"{name}, of the package prometheus")
    return str(path)


def promtool(*arguments: str | Path, text: bytes = b"") -> str:
    """Runs promtool, and returns what it says when it finds something; '' when it finds nothing."""
    command = [tool("promtool"), *map(str, arguments)]
    done = subprocess.run(command, input=text, capture_output=True, check=False, timeout=60)
    return "" if done.returncode == 0 else (done.stdout + done.stderr).decode()


class Prometheus(Program):
    """Runs Prometheus in a with block. Its files are below `directory`."""

    def __init__(self, directory: Path, config: Mapping[str, Any], *options: str) -> None:
        """Starts it with a configuration, whose paths are seen from the directory."""
        directory.mkdir(parents=True, exist_ok=True)
        file = directory / "prometheus.yml"
        file.write_text(yaml.safe_dump(dict(config)))
        self.url = f"http://127.0.0.1:{free_port()}"
        command = [tool("prometheus"), f"--config.file={file}", f"--storage.tsdb.path={directory / 'data'}"]
        command += [f"--web.listen-address={self.url.removeprefix('http://')}", "--log.level=warn", *options]
        super().__init__(command, directory)

    def wait_ready(self) -> None:
        """Waits until it answers."""
        wait_for(self._is_ready, 30, "answer of Prometheus", every_seconds=0.1)

    def _is_ready(self) -> bool:
        assert self.process.poll() is None, self.output()
        try:
            with urlopen(f"{self.url}/-/ready", timeout=5) as answer:
                return bool(answer.status == 200)
        except (URLError, OSError):
            return False

    def ask(self, place: str, **parameters: str) -> Any:
        """Returns the data of an answer of its API."""
        with urlopen(f"{self.url}/api/v1/{place}?{urlencode(parameters)}", timeout=30) as answer:
            found = json.load(answer)
        assert found["status"] == "success", found
        return found["data"]

    def query(self, expression: str) -> Answer:
        """Returns the series of an expression now."""
        found: Answer = self.ask("query", query=expression)["result"]
        return found
