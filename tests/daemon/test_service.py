"""The daemon is put together in an order in which a second one touches nothing."""

import os
import sys
from functools import partial
from pathlib import Path

import pytest

from ksmtuned_py.config import Config
from ksmtuned_py.configfile.load import Loaded, load
from ksmtuned_py.daemon.service import serve
from ksmtuned_py.door import Door
from ksmtuned_py.door.runtime import Runtime
from ksmtuned_py.errors import AlreadyRunning
from tests.support.need import need
from tests.support.trees import make_fake_tree

STARTED: list[object] = []
"""The programs that this process has started."""
sys.addaudithook(lambda event, arguments: STARTED.append(arguments) if event == "subprocess.Popen" else None)


def test_who_comes_second_starts_no_worker(tmp_path: Path) -> None:
    need(os.geteuid() == 0, "root, to read other processes' memory")
    config = Config.model_validate({"daemon": {"backend": "scan"}, "metrics": {"address": ""}})
    runtime, door = Runtime(tmp_path / "runtime"), Door(str(make_fake_tree(tmp_path / "root")))
    second = partial(serve, lambda: Loaded(config, ()), door, runtime, once=True)
    STARTED.clear()
    with runtime.locked(), pytest.raises(AlreadyRunning):
        second()
    assert STARTED == []
    second()
    assert len(STARTED) == 1


def test_a_daemon_with_an_old_name_in_its_configuration_says_so(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "x.toml"
    path.write_text('[daemon]\nbackend = "memory"\n[metrics]\naddress = ""\n')
    serve(lambda: load(path), Door(), Runtime(tmp_path / "runtime"), once=True)
    assert f'{path}:2: daemon.backend = "memory" is an old name, write "model"' in capfd.readouterr().err
