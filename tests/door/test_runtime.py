"""The runtime directory has one lock, and keeps the knobs that somebody has to put back."""

import fcntl
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from ksmtuned_py.door.runtime import Origin, Originals, Runtime, replace_file
from ksmtuned_py.errors import AlreadyRunning, Garbage, NoRuntimeDirectory
from ksmtuned_py.model import Clock, Knobs, Pause, Run
from tests.support.need import need

FOUND = Knobs(run=Run.STOP, pages_to_scan=100, smart_scan=1, advisor_mode="scan-time")
HERE = Origin("kernel", "/", "4c4c-4544")
START = Clock(monotonic_seconds=0, unix_seconds=0)
KILLED_HOLDER = """
import os, signal, sys
from pathlib import Path
from ksmtuned_py.door.runtime import Runtime
with Runtime(Path(sys.argv[1])).locked():
    os.kill(os.getpid(), signal.SIGKILL)
"""


OF_NOBODY = """
import sys
from pathlib import Path
from ksmtuned_py.door.runtime import Runtime
from ksmtuned_py.errors import KsmtunedError
from ksmtuned_py.model import Clock, Pause

def lock():
    with runtime.locked():
        pass

acts = {
    "pause": lambda: runtime.save_pause(Pause(until_unix_seconds=1, reason="")),
    "resume": lambda: (runtime.pause(Clock(monotonic_seconds=0, unix_seconds=0)), runtime.forget_pause()),
    "restore": lambda: (lock(), runtime.originals(), runtime.forget_originals()),
}
runtime = Runtime(Path(sys.argv[1]))
try:
    runtime.act_as_owner()
    acts[sys.argv[2]]()
except KsmtunedError as error:
    print(error)
"""
TRAPS = ("ln -s $1 $0", "ln $1 $0", "mkfifo $0", "mkdir $0", "ln -s /dev/zero $0")
"""What a user may put in a file's place ($0), for root to do something to a file of root's ($1)."""


@pytest.fixture
def of_nobody() -> Iterator[Path]:
    """A runtime directory of a user without rights, beside a file of root's that this user cannot read."""
    need(os.geteuid() == 0, "root, to give a directory away")
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        place.chmod(0o755)
        (place / "precious").touch(0o600)
        (place / "precious").write_text("precious")
        (place / "runtime").mkdir()
        os.chown(place / "runtime", 65534, 65534)
        yield place / "runtime"


def as_root_in(directory: Path, act: str) -> str:
    """What root is told that does something in a directory of another user."""
    command = [sys.executable, "-c", OF_NOBODY, str(directory), act]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.fixture
def runtime(tmp_path: Path) -> Runtime:
    """A runtime directory that does not exist yet."""
    return Runtime(tmp_path / "run" / "ksmtuned-py")


def later(runtime: Runtime) -> Runtime:
    """The runtime directory for a process that starts when this one has ended."""
    return Runtime(runtime.directory)


def test_one_at_a_time(runtime: Runtime) -> None:
    with runtime.locked():
        holder = rf"lock: locked by another ksmtuned-py \(PID {os.getpid()}\)"
        for _ in range(2):  # the attempt that failed changes nothing
            with pytest.raises(AlreadyRunning, match=holder), runtime.locked():
                pass
    with runtime.locked():
        pass


def test_a_killed_holder_lets_go(runtime: Runtime) -> None:
    killed = subprocess.run([sys.executable, "-c", KILLED_HOLDER, runtime.directory], check=False)
    assert killed.returncode == -9
    with runtime.locked():
        pass


def test_a_longer_pid_before_leaves_no_digits(runtime: Runtime) -> None:
    runtime.make()
    (runtime.directory / "lock").write_text("1" * 30)
    with runtime.locked():
        pid, since_seconds = runtime.holder() or (0, 0.0)
        assert (pid, abs(time.monotonic() - since_seconds) < 60) == (os.getpid(), True)


def test_a_directory_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(NoRuntimeDirectory, match="file: cannot be used as the runtime directory: File exists"):
        Runtime(tmp_path / "file").make()
    with pytest.raises(NoRuntimeDirectory, match="Not a directory"), Runtime(tmp_path / "file/below").locked():
        pass
    (tmp_path / "lock").mkdir()
    with pytest.raises(NoRuntimeDirectory, match="Is a directory"), Runtime(tmp_path).locked():
        pass


def test_the_first_originals_count(runtime: Runtime) -> None:
    runtime.make()
    assert later(runtime).originals() is None
    runtime.save_originals(HERE, FOUND)
    runtime.save_originals(HERE, Knobs(run=Run.MERGE, pages_to_scan=5))
    assert later(runtime).originals() == Originals(HERE, FOUND)
    runtime.forget_originals()
    runtime.forget_originals()
    assert later(runtime).originals() is None


def test_what_is_saved_later_is_added(runtime: Runtime) -> None:
    runtime.make()
    runtime.save_originals(HERE, Knobs(max_page_sharing=256))
    runtime.save_originals(HERE, Knobs(run=Run.MERGE, max_page_sharing=20))
    assert later(runtime).originals() == Originals(HERE, Knobs(run=Run.MERGE, max_page_sharing=256))


def test_each_file_has_the_mode_it_should(runtime: Runtime) -> None:
    before = os.umask(0)
    try:
        with runtime.locked():
            runtime.save_originals(HERE, FOUND)
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o7777 for path in (runtime.directory, *runtime.directory.iterdir())}
    assert modes == {runtime.directory.name: 0o755, "lock": 0o600, "originals.json": 0o600}


def test_a_lock_that_an_older_version_left_open_to_all_is_closed(runtime: Runtime) -> None:
    runtime.make()
    (runtime.directory / "lock").touch(mode=0o644)
    with runtime.locked():
        assert (runtime.directory / "lock").stat().st_mode & 0o777 == 0o600


def test_another_user_can_not_hold_the_lock(runtime: Runtime) -> None:
    need(os.geteuid() == 0, "root, to become somebody else")
    with runtime.locked():
        pass
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--bounding-set=-all"]
    command = ["flock", "--nonblock", str(runtime.directory / "lock"), "true"]
    done = subprocess.run([*nobody, *command], capture_output=True, text=True, check=False)
    assert "Permission denied" in done.stderr


def test_a_holder_who_did_not_write_its_pid_is_not_somebody_who_ended(runtime: Runtime) -> None:
    subprocess.run([sys.executable, "-c", KILLED_HOLDER, runtime.directory], check=False)  # it leaves its PID
    with (runtime.directory / "lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(AlreadyRunning, match="PID unknown"), runtime.locked():
            pass


@pytest.mark.parametrize("mode", [0o775, 0o777, 0o1777])
def test_a_directory_that_others_may_write_to_is_refused(runtime: Runtime, mode: int) -> None:
    runtime.make()
    runtime.directory.chmod(mode)
    with pytest.raises(NoRuntimeDirectory, match="others may write to it"), runtime.locked():
        pass


def test_a_directory_of_somebody_else_is_refused(runtime: Runtime) -> None:
    need(os.geteuid() == 0, "root, to give a directory away")
    runtime.make()
    os.chown(runtime.directory, 65534, 65534)
    with pytest.raises(NoRuntimeDirectory, match="it belongs to user nobody"), runtime.locked():
        pass


def test_no_descriptor_left_is_told_as_an_error_of_ours(runtime: Runtime) -> None:
    runtime.make()
    runtime.save_originals(HERE, FOUND)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        with pytest.raises(NoRuntimeDirectory, match="Too many open files"):
            later(runtime).originals()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert later(runtime).originals() == Originals(HERE, FOUND)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"run": 1}', '{"advisor_mode": "fast"}'])
def test_originals_that_make_no_sense(runtime: Runtime, text: str) -> None:
    runtime.make()
    runtime.originals_path.write_text(text)
    with pytest.raises(Garbage, match=r"originals\.json: wanted the knobs a daemon saved"):
        runtime.originals()


def test_originals_that_cannot_be_saved(runtime: Runtime) -> None:
    with pytest.raises(NoRuntimeDirectory, match="No such file or directory"):
        runtime.save_originals(HERE, FOUND)


@pytest.fixture
def full(tmp_path: Path) -> Iterator[Path]:
    """A runtime directory on a small disk of its own, which a test can fill."""
    need(os.geteuid() == 0, "root, to mount a disk")
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16k,mode=755", "tmpfs", str(disk)]
    need(subprocess.run(mount, check=False).returncode == 0, "mounts")
    try:
        Runtime(disk / "run").make()
        yield disk / "run"
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def fill(directory: Path) -> None:
    """Fill the directory's disk up to the last byte."""
    with (directory.parent / "fill").open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(b"x" * 4096)


def test_a_full_disk_keeps_nobody_from_putting_back(full: Path) -> None:
    runtime = Runtime(full)
    runtime.save_originals(HERE, FOUND)
    fill(full)
    with runtime.locked():
        assert later(runtime).originals() == Originals(HERE, FOUND)
        with pytest.raises(AlreadyRunning, match="PID unknown"), Runtime(full).locked():
            pass
        runtime.forget_originals()


def test_a_full_disk_is_not_filled_with_what_could_not_be_saved(full: Path) -> None:
    runtime = Runtime(full)
    fill(full)
    with pytest.raises(NoRuntimeDirectory, match="No space left"):
        runtime.save_originals(HERE, FOUND)
    assert list(full.iterdir()) == []
    assert later(runtime).originals() is None


def test_what_a_killed_one_left_half_written_is_nothing(runtime: Runtime, tmp_path: Path) -> None:
    runtime.make()
    (tmp_path / "elsewhere").write_text("kept")
    (runtime.directory / "originals.json.new").symlink_to(tmp_path / "elsewhere")
    runtime.save_originals(HERE, FOUND)
    assert later(runtime).originals() == Originals(HERE, FOUND)
    assert [path.name for path in runtime.directory.iterdir()] == ["originals.json"]
    assert (tmp_path / "elsewhere").read_text() == "kept"


def a_link(path: Path) -> None:
    """Replace a good file by a link to it."""
    path.rename(path.with_name("real"))
    path.symlink_to("real")


def a_pipe(path: Path) -> None:
    """Replace the file by a pipe without a writer, whose reader waits for ever."""
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize(
    "spoil",
    [
        a_link,
        a_pipe,
        lambda path: os.chown(path, 65534, 65534),
        lambda path: path.chmod(0o666),
        lambda path: os.truncate(path, 1 << 30),
    ],
    ids=["link", "pipe", "nobody's", "open to all", "huge"],
)
def test_knobs_that_somebody_else_may_have_written_are_not_put_back(
    runtime: Runtime, spoil: Callable[[Path], None]
) -> None:
    need(os.geteuid() == 0, "root, to give a file away")
    runtime.make()
    runtime.save_originals(HERE, FOUND)
    spoil(runtime.originals_path)
    with pytest.raises(NoRuntimeDirectory):
        later(runtime).originals()


@pytest.mark.parametrize("how", ["open to all", "nobody's", "a link of nobody's"])
def test_a_way_by_which_others_may_put_another_directory_there_is_refused(tmp_path: Path, how: str) -> None:
    need(os.geteuid() == 0, "root, to give a directory away")
    above = tmp_path / "above"
    Runtime(above / "run").make()
    place = above
    match how:
        case "open to all":
            above.chmod(0o777)
        case "nobody's":
            os.chown(above, 65534, 65534)
        case _:
            place = tmp_path / "link"
            place.symlink_to(above)
            os.lchown(place, 65534, 65534)
    with pytest.raises(NoRuntimeDirectory, match="others may put another in its place"):
        Runtime(place / "run").make()


def test_a_directory_where_all_keep_their_own_and_a_link_of_ours_will_do(tmp_path: Path) -> None:
    (tmp_path / "above").mkdir()
    (tmp_path / "above").chmod(0o1777)
    (tmp_path / "link").symlink_to(tmp_path / "above")
    with Runtime(tmp_path / "link/run").locked():
        pass


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    file = tmp_path / "file"
    replace_file(file, b"old")
    with file.open() as reader:
        replace_file(file, b"new")
        assert (reader.read(), file.read_text()) == ("old", "new")
    assert list(tmp_path.iterdir()) == [file]


def test_root_acts_as_the_user_to_whom_the_directory_belongs(of_nobody: Path) -> None:
    assert as_root_in(of_nobody, "pause") == ""
    seen = (of_nobody / "pause.json").stat()
    assert (seen.st_uid, seen.st_gid, seen.st_mode & 0o777) == (65534, 65534, 0o644)
    assert Runtime(of_nobody).pause(START) is not None  # root reads it, too
    assert as_root_in(of_nobody, "resume") == ""
    assert not (of_nobody / "pause.json").exists()
    assert as_root_in(of_nobody, "restore") == ""
    assert (of_nobody / "lock").stat().st_uid == 65534


def test_the_words_of_a_pause_steer_no_terminal_whoever_wrote_them(tmp_path: Path) -> None:
    runtime = Runtime(tmp_path)
    runtime.save_pause(Pause(until_unix_seconds=1, reason="\x1b[2J\nbackup"))
    found = runtime.pause(START)
    assert found is not None
    assert found.reason == "\\x1b[2J\\nbackup"


@pytest.mark.parametrize("trap", TRAPS)
@pytest.mark.parametrize(
    ("name", "act"),
    [
        ("pause.json", "pause"),
        ("pause.json.new", "pause"),
        ("pause.json", "resume"),
        ("lock", "restore"),
        ("originals.json", "restore"),
    ],
)
def test_nothing_there_makes_root_do_what_the_user_may_not(of_nobody: Path, name: str, act: str, trap: str) -> None:
    precious = of_nobody.parent / "precious"
    subprocess.run(["sh", "-c", trap, of_nobody / name, precious], check=True)
    before = precious.stat()
    as_root_in(of_nobody, act)
    assert (precious.read_text(), precious.stat().st_mode, precious.stat().st_uid) == ("precious", before.st_mode, 0)


def test_a_user_without_an_account_is_nobody_to_act_as(of_nobody: Path) -> None:
    os.chown(of_nobody, 64321, 64321)
    assert "it belongs to user 64321, who has no account here" in as_root_in(of_nobody, "pause")


def test_a_directory_does_not_go_by_the_umask(runtime: Runtime) -> None:
    before = os.umask(0o077)
    try:
        runtime.make()
    finally:
        os.umask(before)
    assert [place.stat().st_mode & 0o777 for place in (runtime.directory, runtime.directory.parent)] == [0o755, 0o755]


def test_a_lock_that_is_a_pipe_is_an_error(runtime: Runtime) -> None:
    runtime.make()
    os.mkfifo(runtime.directory / "lock")
    with pytest.raises(NoRuntimeDirectory, match="lock is no regular file"), runtime.locked():
        pass
