"""No other package has its code run in the daemon: pydantic would have it run, as a plugin's."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

PLUGIN = "print('here I am')\nnew_schema_validator = lambda *_, **words: (None, None, None)"
MODEL = "import pydantic\nclass Any(pydantic.BaseModel):\n    number: int"


@pytest.mark.parametrize(("program", "said"), [("import ksmtuned_py.config", ""), (MODEL, "here I am\n")])
def test_a_plugin_of_pydantic_is_not_loaded(program: str, said: str, tmp_path: Path) -> None:
    """Others load it, so it is one."""
    metadata = tmp_path / "intruder-1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: intruder\nVersion: 1\n")
    (metadata / "entry_points.txt").write_text("[pydantic]\nintruder = intruder\n")
    (tmp_path / "intruder.py").write_text(PLUGIN)
    path = f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"
    environment = {name: value for name, value in os.environ.items() if name != "PYDANTIC_DISABLE_PLUGINS"}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment | {"PYTHONPATH": path}, stdout=subprocess.PIPE, check=True
    )
    assert done.stdout.decode() == said
