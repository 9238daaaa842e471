"""Input that cannot be used gives one clear error and exit code 2, and touches nothing."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.process.conftest import content
from tests.support.daemon import KSMTUNED, QUIET, Sections, free_port, one_clear_error, toml, unprivileged, verb
from tests.support.need import need
from tests.support.trees import KSM, put


@pytest.fixture
def untouched(root: Path, tmp_path: Path) -> Iterator[None]:
    """Fail a test after which the tree is not as before, or the runtime directory has saved knobs."""
    before = content(root)
    yield
    assert content(root) == before
    assert not (tmp_path / "runtime/originals.json").exists()
    assert not (tmp_path / "runtime/status.json").exists()


def run(root: Path, config: str | Sections = QUIET, *arguments: str, before: list[str] | None = None) -> str:
    """The error with which the verb `run` ends on this tree."""
    file = root.parent / "config.toml"
    file.write_text(config if isinstance(config, str) else toml(config))
    where: list[str | Path] = ["--root", root, "--config", file, "--runtime-dir", root.parent / "runtime"]
    return one_clear_error(verb("run", "--once", *where, *arguments, before=before or []))


def test_not_root(root: Path, untouched: None) -> None:
    (root / KSM / "run").chmod(0o444)
    assert run(root, before=unprivileged()) == f"{root}/{KSM}/run: not permitted to write it"


def test_a_container_whose_sys_is_read_only(root: Path, untouched: None) -> None:
    need(os.geteuid() == 0, "root, to mount")
    mounts = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"'
    before = ["unshare", "--mount", "sh", "-c", mounts, str(root / KSM)]
    assert run(root, before=before) == f"{root}/{KSM}/run: cannot be written, its file system is mounted read-only here"
    look = verb("run", "--once", "--dry-run", "--root", root, "--runtime-dir", root.parent / "runtime", before=before)
    assert look.returncode == 0, look.stderr


def test_a_root_without_rights(root: Path, untouched: None) -> None:
    need(os.geteuid() == 0, "root, to lose its rights")
    (root / KSM / "run").chmod(0o444)
    before = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--ambient-caps=-all"]
    assert run(root, before=before) == f"{root}/{KSM}/run: not permitted to write it, not even as root"


def test_not_root_and_the_usual_runtime_directory(root: Path, tmp_path: Path, untouched: None) -> None:
    (tmp_path / "owned").mkdir(mode=0o555)
    (tmp_path / "file").touch()
    where = ("run", "--once", "--root", root, "--runtime-dir")
    done = verb(*where, tmp_path / "file/runtime")
    assert one_clear_error(done).endswith("file/runtime: cannot be used as the runtime directory: Not a directory")
    assert "hint: run it as root, or name another directory with --runtime-dir" in done.stderr
    look = verb(*where, tmp_path / "owned/runtime", "--dry-run", before=unprivileged())
    assert look.returncode == 0, look.stderr  # whoever only looks needs none


def test_a_port_in_use(root: Path, untouched: None) -> None:
    port = free_port()
    with socket.create_server(("127.0.0.1", port)):
        said = run(root, {"metrics": {"address": f"127.0.0.1:{port}"}})
    assert said.startswith(f"metrics.address 127.0.0.1:{port}: cannot listen: Address already in use")


def test_an_address_that_is_not_ours(root: Path, untouched: None) -> None:
    said = run(root, {"metrics": {"address": "192.0.2.1:10776"}})
    assert said.startswith("metrics.address 192.0.2.1:10776: cannot listen: Cannot assign requested address")


@pytest.mark.parametrize("name", ["pages_sharing", "run", "pages_to_scan", "advisor_mode", "general_profit"])
def test_garbage_in_a_kernel_file(root: Path, name: str) -> None:
    put(root, f"{KSM}/{name}", "12 monkeys\n")
    assert run(root).startswith(f"{root}/{KSM}/{name}: wanted ")
    assert (root / KSM / "sleep_millisecs").read_text() == "45\n"
    assert not (root.parent / "runtime/originals.json").exists()


@pytest.mark.parametrize("path", ["proc/meminfo", f"{KSM}/pages_shared"])
def test_a_kernel_file_that_cannot_be_read(root: Path, path: str) -> None:
    put(root, path, None)
    (root / path).mkdir()
    assert run(root) == f"{root}/{path}: cannot be read: Is a directory"


def test_a_host_without_meminfo(root: Path) -> None:
    put(root, "proc/meminfo", None)
    assert run(root) == f"{root}/proc/meminfo: cannot be read: no such file"


@pytest.mark.parametrize(
    ("config", "lines"),
    [
        ("[daemon]\ntick_secs = 1\n", [":2: daemon.tick_secs = 1: "]),
        ("[daemon]\ntick_seconds = 'soon'\n", [':2: daemon.tick_seconds = "soon": ']),
        ("[daemon]\non_exit = 'explode'\n", [':2: daemon.on_exit = "explode": ']),
        ("[demon]\n", [":1: demon"]),
        ("[daemon\n", [":1"]),
        (
            "[kernel]\nmax_page_sharing = 1\n[fixed]\nrun = 2\n",
            [":2: kernel.max_page_sharing = 1", ":4: fixed.run = 2"],
        ),
    ],
)
def test_a_bad_configuration_names_file_line_key_and_value(
    root: Path, untouched: None, config: str, lines: list[str]
) -> None:
    file = root.parent / "config.toml"
    file.write_text(config)
    done = verb("run", "--root", root, "--config", file, "--runtime-dir", root.parent / "runtime")
    assert (done.returncode, done.stdout) == (2, "")
    said = done.stderr.splitlines()
    count = "1 mistake" if len(lines) == 1 else f"{len(lines)} mistakes"
    assert said[0] == f"ksmtuned-py: error: {count} in the configuration"
    assert len(said) == 1 + len(lines) + 1
    assert all(f"{file}{line}" in found for line, found in zip(lines, said[1:], strict=False)), done.stderr
    assert said[-1].startswith("hint: ")


def test_a_configuration_that_cannot_be_read(root: Path, untouched: None) -> None:
    for file in (root, root.parent / "nowhere.toml"):
        done = verb("run", "--root", root, "--config", file, "--runtime-dir", root.parent / "runtime")
        assert done.returncode == 2
        assert str(file) in done.stderr
        assert "Traceback" not in done.stderr


def test_a_runtime_directory_that_is_a_file(root: Path, untouched: None) -> None:
    (root.parent / "runtime").write_text("")
    said = run(root)
    (root.parent / "runtime").unlink()
    assert said == f"{root.parent}/runtime: cannot be used as the runtime directory: File exists"


def test_originals_that_make_no_sense(root: Path) -> None:
    runtime = root.parent / "runtime"
    runtime.mkdir()
    (runtime / "originals.json").write_text('{"run": "?"}')
    before = content(root)
    assert run(root).startswith(f"{runtime}/originals.json: wanted the knobs a daemon saved, found ")
    said = one_clear_error(verb("restore", "--root", root, "--runtime-dir", runtime))
    assert said.startswith(f"{runtime}/originals.json: wanted the knobs a daemon saved, found ")
    assert content(root) == before


@pytest.mark.parametrize("text", ["", "{}", '{"schema": 99}', json.dumps({"schema": 1, "pid": "x"})])
def test_a_status_file_that_makes_no_sense(root: Path, text: str) -> None:
    runtime = root.parent / "runtime"
    runtime.mkdir()
    (runtime / "status.json").write_text(text)
    said = one_clear_error(verb("status", "--root", root, "--runtime-dir", runtime))
    assert said.startswith(f"{runtime}/status.json: cannot be read: ")


@pytest.mark.parametrize(
    "arguments", [["run", "--backend", "magic"], ["run", "extra"], ["fly"], [], ["demo", "--guests", "0"]]
)
def test_a_command_line_that_makes_no_sense(arguments: list[str]) -> None:
    done = verb(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("usage: ksmtuned-py ")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "arguments", [["--help"], ["check"], ["check", "--show"], ["completion", "bash"]], ids=" ".join
)
def test_a_full_disk_is_one_clear_error(arguments: list[str]) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*KSMTUNED, *arguments], stdout=full, stderr=subprocess.PIPE, text=True, check=False, timeout=60
        )
    said = "ksmtuned-py: error: standard output cannot be written: No space left on device\n"
    assert (done.returncode, done.stderr) == (1, said)


@pytest.mark.parametrize("arguments", [["fly"], ["check", "/nowhere"]], ids=" ".join)
@pytest.mark.parametrize("redirected", ["2>/dev/full", ">/dev/full 2>/dev/full", "2>&-", ">&- 2>&-"])
def test_messages_that_nobody_takes_change_no_exit_code(arguments: list[str], redirected: str) -> None:
    done = subprocess.run(["sh", "-c", f'"$@" {redirected}', "sh", *KSMTUNED, *arguments], check=False, timeout=60)
    assert done.returncode == 2


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_what_a_locale_has_not_is_escaped(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "ü▁\udcff.toml").touch()
    command = [*KSMTUNED, "check", str(tmp_path / "ü▁\udcff.toml")]
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    done = subprocess.run(command, env=environment, capture_output=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.endswith(rb"\udcff.toml" + b"\n")


CTRL_C = """
import os, signal, sys
class Pressed:
    def find_spec(self, name, *_):
        if name == "ksmtuned_py.cli.main":
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Pressed())
import ksmtuned_py.__main__
"""


def test_ctrl_c_while_it_is_loaded_is_no_traceback() -> None:
    done = subprocess.run([sys.executable, "-c", CTRL_C], capture_output=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (-signal.SIGINT, b"")


def test_without_numpy_an_estimate_is_one_clear_error() -> None:
    program = "import sys; sys.modules['numpy'] = None; from ksmtuned_py.cli.main import main; sys.exit(main(['scan']))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert one_clear_error(done) == "the scan backend needs numpy and xxhash"


def test_what_an_error_quotes_steers_no_terminal(tmp_path: Path) -> None:
    (tmp_path / "capacity.jsonl").write_text('{"schema": "\\u001b[2J", "step_seconds": 60}\n')
    assert r"found \x1b[2J: " in one_clear_error(verb("capacity", "--runtime-dir", tmp_path))
    done = verb("sketch", tmp_path / "sketch", "--key", tmp_path / "\x1b[2J")
    assert done.stderr.count(r"\x1b[2J") == 2, "also in the hint"
    assert "\x1b" not in done.stderr
