"""The command line as a user meets it: ksmtuned-py check, errors, exit codes."""

import json
import os
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import ksmtuned_py
from ksmtuned_py.config import Config
from ksmtuned_py.configfile.text import dotted, flat

SOURCE_TREE = Path(ksmtuned_py.__file__).parent.parent
COMMAND = [sys.executable, "-m", "ksmtuned_py"]
DEMO = ("demo", "--backend", "memory", "--size", "0")
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(SOURCE_TREE)}


def ksmtuned(*arguments: str | Path, directory: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a directory."""
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        cwd=directory,
        env=ENVIRONMENT | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_right_file(tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_text('[daemon]\nmode = "observe"\n')
    done = ksmtuned("check", "x.toml", directory=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "ok: x.toml\n", "")


def test_a_wrong_file(tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_text('[daemon]\nmode = "watch"\n[deamon]\nx = "[red]"\n')
    done = ksmtuned("check", "x.toml", directory=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines() == [
        "ksmtuned-py: error: 2 mistakes in the configuration",
        'x.toml:2: daemon.mode = "watch": wanted manage or observe',
        'x.toml:3: deamon = { x = "[red]" }: wanted a key that exists: did you mean daemon?',
        "hint: ksmtuned-py check --sample prints every key with its default and what it takes",
    ]


def test_drop_ins_from_another_directory(tmp_path: Path) -> None:
    (tmp_path / "x.toml").touch()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "50.toml").write_text("daemon.tick_seconds = 0\n")
    done = ksmtuned("check", "x.toml", "--config-dir", "other", directory=tmp_path)
    assert done.returncode == 2
    assert "other/50.toml:1: daemon.tick_seconds = 0: wanted a number from 0.01 to 3600 (seconds)" in done.stderr


def test_show_says_where_each_value_comes_from(tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_text("\n[adaptive]\nquiet.boost_percent.calm = 7\n")
    done = ksmtuned("check", "x.toml", "--show", directory=tmp_path, FORCE_COLOR="1", NO_COLOR="1", TERM="dumb")
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert "boost_percent.calm = 7.0  # x.toml:3" in lines
    assert 'mode = "manage"  # default' in lines
    shown = {dotted(path): value for path, value in flat(tomllib.loads(done.stdout))}
    assert shown.pop("adaptive.quiet.boost_percent.calm") == 7
    expected = {dotted(path): value for path, value in flat(Config().model_dump(mode="json"))}
    del expected["adaptive.quiet.boost_percent.calm"]
    assert shown == expected


def test_show_as_json(tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_text('metrics.address = ""\n')
    shown = json.loads(ksmtuned("check", "x.toml", "--json", directory=tmp_path).stdout)
    assert shown["config"] == Config.model_validate({"metrics": {"address": ""}}).model_dump(mode="json")
    assert shown["origins"]["metrics.address"] == "x.toml:1"
    assert shown["origins"]["daemon.mode"] == "default"
    assert list(shown["origins"]) == [dotted(path) for path, _ in flat(Config().model_dump())]


def test_the_sample_is_a_right_file(tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_text(ksmtuned("check", "--sample", directory=tmp_path).stdout)
    assert ksmtuned("check", "x.toml", directory=tmp_path).stdout == "ok: x.toml\n"


@pytest.mark.parametrize("arguments", [(), ("chek",), ("check", "--sho"), ("check", "--show", "--sample")])
def test_wrong_usage(arguments: tuple[str, ...], tmp_path: Path) -> None:
    done = ksmtuned(*arguments, directory=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("usage: ksmtuned-py ")
    assert "Traceback" not in done.stderr


def test_version(tmp_path: Path) -> None:
    assert ksmtuned("--version", directory=tmp_path).stdout == f"ksmtuned-py {ksmtuned_py.__version__}\n"


@pytest.mark.parametrize("shown", ["--sample", "--show"])
def test_a_reader_that_goes_away_is_no_traceback_and_no_answer(shown: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as closed:
        done = subprocess.run(
            [*COMMAND, "check", shown],
            stdout=closed,
            stderr=subprocess.PIPE,
            env=ENVIRONMENT,
            timeout=60,
            check=False,
        )
    assert (done.returncode, done.stderr) == (141, b"")


def test_a_closed_standard_output_is_no_traceback(tmp_path: Path) -> None:
    line = '"$0" -m ksmtuned_py check --sample >&-'
    done = subprocess.run(
        ["sh", "-c", line, sys.executable], stderr=subprocess.PIPE, env=ENVIRONMENT, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")


def test_control_c_is_no_traceback(tmp_path: Path) -> None:
    waits = tmp_path / "x.toml"
    os.mkfifo(waits)
    process = subprocess.Popen([*COMMAND, "check", waits], stderr=subprocess.PIPE, env=ENVIRONMENT)
    with waits.open("wb"):  # opens when the command reads it
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=60)[1]
    assert (process.returncode, said) == (130, b"")


def test_help_loads_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys; from ksmtuned_py.cli.main import build_parser; build_parser().format_help();"
        "print({'pydantic', 'rich', 'psutil', 'shtab', 'prometheus_client', 'numpy', 'libvirt'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=ENVIRONMENT, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "set()\n"


def test_an_old_name_is_taken_and_said_to_be_old(tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_text('[daemon]\nbackend = "memory"\n')
    done = ksmtuned("check", "x.toml", directory=tmp_path)
    said = 'x.toml:2: daemon.backend = "memory" is an old name, write "model"\n'
    assert (done.returncode, done.stdout, done.stderr) == (0, "ok: x.toml\n", said)
    shown = json.loads(ksmtuned("check", "x.toml", "--json", directory=tmp_path).stdout)
    assert shown["config"]["daemon"]["backend"] == "model"
    assert "--backend memory is an old name" in ksmtuned(*DEMO, directory=tmp_path).stderr
