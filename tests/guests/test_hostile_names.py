"""The name of a process, which any user may choose, steers no terminal and forges no line anywhere."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ksmtuned_py.config import Config
from ksmtuned_py.daemon.machine import look
from ksmtuned_py.door import Door
from ksmtuned_py.door.text import printable
from ksmtuned_py.errors import Garbage
from ksmtuned_py.guests.cgroups import parse_cgroup
from ksmtuned_py.guests.domains import parse_domain
from ksmtuned_py.guests.names import cgroup_names
from ksmtuned_py.guests.parse import split_words
from ksmtuned_py.guests.process import WORD_LENGTH, WORDS, Inside, ProcessFiles
from ksmtuned_py.guests.smaps import parse_smaps
from ksmtuned_py.sensors.stat import parse_stat
from tests.support.daemon import EVENTS_ONLY, Daemon, verb
from tests.support.procs import add_process
from tests.support.trees import FakeGuest, make_fake_tree, put

HOSTILE = "\x1b]0;owned\x07\x1b[2J\nroot  1  9.0 GiB\r\u202e\x9b31m"
SHOWN = r"\x1b]0;owned\x07\x1b[2J\nroot  1  9.0 GiB\r\u202e\x9b31m"
FORGER = FakeGuest(pid=666, name="", comm="kvm\n\x1b[2J", command=("kvm", "-name", HOSTILE))


@given(st.text())
def test_what_is_printable_is_one_harmless_line(text: str) -> None:
    assert printable(text).isprintable()
    assert printable(printable(text)) == printable(text)


def test_what_is_harmless_stays_as_it_is() -> None:
    for name in ("web-1", "Büro 7", "名前", r"a\b", ""):
        assert printable(name) == name


def test_everything_read_of_a_process_is(tmp_path: Path) -> None:
    directory = add_process(tmp_path, 70, ["kvm", HOSTILE], comm="\x1b[2J\nkvm")
    (directory / "cgroup").write_text("0::/user.slice/\x1b[2J\n")
    (directory / "smaps").write_text("7f0000000000-7f0000001000 rw-p 00000000 00:00 1 /dev/\x1b[2J\nVmFlags: mg\n")
    process = ProcessFiles(Door(str(tmp_path)), 70)
    identity, inside = process.identity(), Inside(process)
    assert identity is not None
    assert identity.comm == process.name() == r"\x1b[2J\nkvm"
    assert inside.words() == ["kvm", SHOWN]
    assert parse_cgroup(inside.read("cgroup") or "") == r"/user.slice/\x1b[2J"
    assert parse_smaps(inside.read("smaps") or "")[0].path == r"/dev/\x1b[2J"


def test_the_names_in_a_cgroup_are() -> None:
    """systemd escapes characters in a unit's name, and we undo that when we show the name."""
    assert cgroup_names(r"/user.slice/vm@\x1b[2J\x0a.service") == (r"\x1b[2J\n",)


def test_what_libvirt_says_of_a_domain_is() -> None:
    tag = "<metadata><k:tag xmlns:k='urn:ksmtuned-py'>a&#10;b&#x9b;</k:tag></metadata>"
    domain = parse_domain(f"<domain><name>web&#x202e;&#10;</name><uuid>u</uuid>{tag}</domain>")
    assert (domain.name, domain.tag) == (r"web\u202e\n", r"a\nb\x9b")


def test_what_makes_no_sense_is_told_without_it() -> None:
    with pytest.raises(Garbage) as caught:
        parse_stat(f"70 {HOSTILE}")
    assert str(caught.value).isprintable()


def test_a_command_line_is_read_as_far_as_any_guests_goes(tmp_path: Path) -> None:
    add_process(tmp_path, 70, ["kvm", "-name", "web", *["a"] * 10**5])
    add_process(tmp_path, 71, ["kvm", "-object", "memory-backend-" * 10**4])
    many, long = (Inside(ProcessFiles(Door(str(tmp_path)), pid)).words() for pid in (70, 71))
    assert (many[:3], len(many)) == (["kvm", "-name", "web"], WORDS)
    assert max(map(len, long)) == WORD_LENGTH


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", []),
        ("\0", []),
        ("kvm\0", ["kvm"]),
        ("kvm\0-name\0\0a b\0", ["kvm", "-name", "", "a b"]),
        ("postgres: writer", ["postgres:", "writer"]),
        ("nginx: worker process\0", ["nginx:", "worker", "process"]),
    ],
)
def test_the_words_of_a_command_line(text: str, words: list[str]) -> None:
    assert split_words(text) == words


def test_no_snapshot_holds_any_of_it(tmp_path: Path) -> None:
    make_fake_tree(tmp_path, guests=[FORGER])
    put(tmp_path, "proc/666/cgroup", "0::/\x1b[2J\n")
    seen = look(Door(str(tmp_path)), Config())
    assert [guest.name for guest in seen.guests] == [SHOWN]
    assert all(text.isprintable() for guest in seen.guests for text in (guest.name, guest.cgroup, guest.uuid))


def test_a_status_that_another_user_may_have_written_is(tmp_path: Path) -> None:
    with Daemon(tmp_path, EVENTS_ONLY, root=make_fake_tree(tmp_path / "root")) as daemon:
        daemon.wait_ticks()
        status = daemon.runtime / "status.json"
        status.write_text(status.read_text().replace('"reason":"', '"reason":"\\u001b]0;owned\\u0007'))
        said = verb("why", "--root", tmp_path / "root", "--runtime-dir", daemon.runtime).stdout
        assert daemon.end() == 0
    assert r"\x1b]0;owned\x07" in said
    assert all(line.isprintable() for line in said.splitlines())


def test_neither_tables_nor_logs_nor_labels_show_it(tmp_path: Path) -> None:
    make_fake_tree(tmp_path / "root", guests=[FORGER])
    with Daemon(tmp_path, EVENTS_ONLY, root=tmp_path / "root") as daemon:
        daemon.wait_ticks()
        said = [
            verb(name, "--root", tmp_path / "root", "--runtime-dir", daemon.runtime).stdout
            for name in ("guests", "status", "why", "doctor")
        ]
        table = said[0].splitlines()
        assert daemon.end() == 0
    for text in (*said, daemon.output()):
        assert all(line.isprintable() for line in text.splitlines())
    assert [line.partition("  ")[0] for line in table if "666" in line] == [r"\x1b]0;owned\x07\x1b[2J\nroot"]
