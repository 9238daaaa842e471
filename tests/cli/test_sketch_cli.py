"""`sketch` reads a guest whatever it calls itself."""

import json
from pathlib import Path

import pytest

from ksmtuned_py.cli.main import main
from ksmtuned_py.cli.workload import Mix, Workload
from ksmtuned_py.daemon import machine
from tests.support.snapshots import guest

NAME = "[/web] :smile:"


def test_a_name_that_looks_like_markup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = tmp_path / "key"
    key.write_bytes(b"k" * 32)
    key.chmod(0o600)
    with Workload(NAME, Mix(unique_bytes=1), mergeable=False).wait_ready() as running:
        monkeypatch.setattr(machine, "known_guests", lambda *_: [guest(NAME, running.pid)])
        main(["sketch", str(tmp_path / "sketch"), "--key", str(key)])
    assert json.loads((tmp_path / "sketch").read_text())["page_bytes"] > 0
