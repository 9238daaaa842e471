"""A real Prometheus in tests: its checker, and its server on loopback that scrapes every second."""

import json
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
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

JOB = "ksmtuned-py"
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

    def __init__(
        self,
        directory: Path,
        targets: Mapping[str, Sequence[str]] = {},
        rules: Sequence[Path] = (),
        interval: str = "1s",
        options: Sequence[str] = (),
    ) -> None:
        """Scrapes the targets (HOST:PORT) of each job."""
        jobs = [{"job_name": job, "static_configs": [{"targets": list(each)}]} for job, each in targets.items()]
        times = {"scrape_interval": interval, "scrape_timeout": interval, "evaluation_interval": interval}
        directory.mkdir(parents=True, exist_ok=True)
        config = directory / "prometheus.yml"
        settings = {"global": times, "rule_files": [str(rule) for rule in rules], "scrape_configs": jobs}
        config.write_text(yaml.safe_dump(settings))
        self.url = f"http://127.0.0.1:{free_port()}"
        command = [tool("prometheus"), f"--config.file={config}", f"--storage.tsdb.path={directory / 'data'}"]
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

    def query_range(self, expression: str, seconds: float = 300, step_seconds: float = 1) -> Answer:
        """Returns the series of an expression over the last seconds."""
        now = time.time()
        window = {"start": f"{now - seconds:.3f}", "end": f"{now:.3f}", "step": f"{step_seconds:g}"}
        found: Answer = self.ask("query_range", query=expression, **window)["result"]
        return found
