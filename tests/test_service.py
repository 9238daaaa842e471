"""Putting the daemon together: in which order, so that a second one touches nothing."""

import os
import sys
from pathlib import Path

import pytest

from ksmtuned_py.config import Config
from ksmtuned_py.configfile.load import Loaded
from ksmtuned_py.errors import AlreadyRunning
from ksmtuned_py.runtime import Runtime
from ksmtuned_py.service import Service
from tests.support.need import need
from tests.support.trees import make_fake_tree

STARTED: list[object] = []
"""The programs that this process has started."""
sys.addaudithook(lambda event, arguments: STARTED.append(arguments) if event == "subprocess.Popen" else None)


def test_who_comes_second_starts_no_worker(tmp_path: Path) -> None:
    need(os.geteuid() == 0, "root, to read other processes' memory")
    config = Config.model_validate({"daemon": {"backend": "scan"}, "metrics": {"address": ""}})
    runtime = Runtime(tmp_path / "runtime")
    second = Service(lambda: Loaded(config, ()), make_fake_tree(tmp_path / "root"), runtime)
    STARTED.clear()
    with runtime.locked(), pytest.raises(AlreadyRunning):
        second.run()
    assert STARTED == []
    second.run(once=True)
    assert len(STARTED) == 1
