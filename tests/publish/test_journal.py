"""The journal has a record for each change and no other, each in the shape that its reader wants."""

import os
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from ksmtuned_py.errors import Garbage
from ksmtuned_py.model import KnobName, Mode, WriteStatus
from ksmtuned_py.model.record import Priority, Record
from ksmtuned_py.publish.journal import Journal, default_sink, plain_line
from ksmtuned_py.publish.totals import Totals
from ksmtuned_py.report import Report
from tests.support.need import need
from tests.support.reports import FOREIGN, FULL, report, result

REFUSED = result(status=WriteStatus.REFUSED, detail="EINVAL: the advisor holds it")


def told(*reports: Report, debug: bool = False) -> list[list[Record]]:
    """The records of each of these ticks."""
    sunk: list[Record] = []
    journal, totals, by_tick = Journal(sunk.append, debug=debug), Totals(), []
    for each in reports:
        totals = totals.after(each)
        journal.publish(each, totals)
        by_tick.append(list(sunk))
        sunk.clear()
    return by_tick


def sentences(records: Iterable[Record]) -> list[tuple[Priority, str]]:
    return [(record.priority, record.message) for record in records]


def test_the_first_tick_is_told_and_one_like_it_is_not() -> None:
    first, second = told(report(reason="why"), report(reason="why, with other numbers"))
    assert sentences(first) == [(Priority.INFO, "why")]
    assert second == []


def test_every_tick_is_told_to_who_debugs() -> None:
    _, second = told(report(), report(reason="again"), debug=True)
    assert sentences(second) == [(Priority.DEBUG, "again")]


@pytest.mark.parametrize(("mode", "rule"), [(Mode.BOOST, "yield"), (Mode.CRUISE, "news")])
def test_a_change_of_mode_or_rule_is_told(mode: Mode, rule: str) -> None:
    _, second, third = told(report(), report(mode=mode, rule=rule, reason="changed"), report(mode=mode, rule=rule))
    assert sentences(second) == [(Priority.INFO, "changed")]
    assert third == []


def test_each_write_is_told() -> None:
    on = report(FULL, result("run", 0, 1))
    _, second, third, fourth = told(report(), on, on, report())
    assert len(second) == len(third) == 1
    assert fourth == []


@pytest.mark.parametrize("knob", ["pages_to_scan", "sleep_millisecs"])
@pytest.mark.parametrize("status", [WriteStatus.OK, WriteStatus.DRY])
def test_a_rate_that_follows_the_cost_of_a_page_is_for_debugging_only(knob: KnobName, status: WriteStatus) -> None:
    boost = [report(FULL, result(knob, 100, new, status), mode=Mode.BOOST) for new in range(101, 161)]
    first, *others = told(*boost)
    assert [len(first), sum(map(len, others))] == [1, 0]
    assert all(len(records) == 1 for records in told(*boost, debug=True))


@pytest.mark.parametrize("status", [WriteStatus.DRY, WriteStatus.PENDING])
def test_a_write_without_effect_is_told_once(status: WriteStatus) -> None:
    once = report(FULL, result("run", 0, 1, status))
    _, second, third, fourth = told(report(), once, once, report(FULL, result("run", 1, 0, status)))
    assert [len(second), len(third), len(fourth)] == [1, 0, 1]


def test_a_failed_write_is_a_warning_once() -> None:
    _, second, third = told(report(), report(FULL, REFUSED), report(FULL, REFUSED))
    assert sentences(second) == [(Priority.WARNING, "pages_to_scan 100 -> 500: refused (EINVAL: the advisor holds it)")]
    assert third == []


def test_a_foreign_writer_is_a_warning() -> None:
    _, second = told(report(), report(foreign=(FOREIGN,), suspects=("ksmtuned", "tuned")))
    assert sentences(second) == [
        (Priority.WARNING, "somebody else changed run from our 1 to 0 (running: ksmtuned, tuned)")
    ]


def test_a_sensor_that_fails_is_a_warning_until_it_fails_otherwise() -> None:
    broken, otherwise = report(problems=("psi: garbage",)), report(problems=("psi: gone",))
    ticks = told(report(), broken, broken, otherwise, report(), broken)
    assert [sentences(records) for records in ticks[1:]] == [
        [(Priority.WARNING, "psi: garbage")],
        [],
        [(Priority.WARNING, "psi: gone")],
        [],
        [(Priority.WARNING, "psi: garbage")],
    ]


def test_an_hour_is_summed_up() -> None:
    def later(seconds: float, passes: int) -> Report:
        return report(after_seconds=seconds, counters=replace(FULL.counters, full_scans=passes))

    ticks = told(later(0, 7), later(3599, 30), later(3600, 37), later(3610, 38), later(7200, 60))
    assert [len(records) for records in ticks] == [1, 0, 1, 0, 1]
    assert sentences(ticks[2]) == [
        (
            Priority.INFO,
            "cruise: 1 GiB saved, ksmd 0 % of a core, 0 CPU-s per GiB; 2 ticks, 30 passes in 1 h",
        )
    ]


def test_fields_to_search_by() -> None:
    [[record]] = told(report(FULL, result("run", 0, 1), result()))
    assert record.fields == {
        "KSMTUNED_MODE": "cruise",
        "KSMTUNED_RULE": "yield",
        "KSMTUNED_BACKEND": "kernel",
        "KSMTUNED_SAVED_BYTES": 2**30,
        "KSMTUNED_PROFIT_BYTES": -5,
        "KSMTUNED_AVAILABLE_BYTES": 9 * 2**30,
        "KSMTUNED_NEXT_TICK_SECONDS": 10.0,
        "KSMTUNED_KNOB_RUN_OLD": 0,
        "KSMTUNED_KNOB_RUN_NEW": 1,
        "KSMTUNED_KNOB_RUN_STATUS": "ok",
        "KSMTUNED_KNOB_PAGES_TO_SCAN_OLD": 100,
        "KSMTUNED_KNOB_PAGES_TO_SCAN_NEW": 500,
        "KSMTUNED_KNOB_PAGES_TO_SCAN_STATUS": "ok",
    }


def test_field_names_are_what_journald_takes() -> None:
    [[record]] = told(report(FULL, result("stable_node_chains_prune_millisecs", 2000, 1)))
    assert all(name.isascii() and name.isupper() and len(name) <= 64 for name in record.fields)


def test_a_knob_written_twice_has_its_first_old_and_its_last_new_value() -> None:
    [[record]] = told(report(FULL, result(old=100, new=0), result(old=0, new=500)))
    assert record.fields["KSMTUNED_KNOB_PAGES_TO_SCAN_OLD"] == 100
    assert record.fields["KSMTUNED_KNOB_PAGES_TO_SCAN_NEW"] == 500


def test_a_failed_tick_is_an_error_once() -> None:
    sunk: list[Record] = []
    journal = Journal(sunk.append)
    for error in (Garbage("/sys/x", "??", "a number"), Garbage("/sys/x", "??", "a number"), ValueError("else")):
        journal.failed_tick(error)
    assert sentences(sunk) == [
        (Priority.ERROR, "tick failed: Garbage: /sys/x: wanted a number, found '??'"),
        (Priority.ERROR, "tick failed: ValueError: else"),
    ]


def test_a_bug_says_where_it_is() -> None:
    sunk: list[Record] = []
    try:
        raise RuntimeError("boom")
    except RuntimeError as error:
        Journal(sunk.append).failed_tick(error)
    assert "test_journal.py:" in sunk[0].context
    assert "RuntimeError: boom" in str(sunk[0].fields["KSMTUNED_TRACEBACK"])


def test_a_plain_line_has_the_writes_and_is_one_line() -> None:
    [[record]] = told(report(FULL, result(), reason="a guest\ncalled so"))
    assert plain_line(record) == "info: a guest called so [cruise, yield; pages_to_scan 100 -> 500]"


def test_without_a_journal_lines_go_to_stderr(capfd: pytest.CaptureFixture[str]) -> None:
    default_sink()(Record(Priority.WARNING, "look out"))
    clock, line = capfd.readouterr().err.split(" ", 1)
    assert (len(clock), line) == (len("12:34:56"), "warning: look out\n")


def in_a_service(script: str, *command: str) -> str:
    """The text that a process prints to a stderr which JOURNAL_STREAM declares to be the journal's."""
    prelude = """
import os, sys
from ksmtuned_py.publish.journal import *
it = os.fstat(2)
os.environ["JOURNAL_STREAM"] = f"{it.st_dev}:{it.st_ino}"
"""
    done = subprocess.run(
        [*command, sys.executable, "-c", prelude + script],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
        cwd=Path(__file__).parent.parent.parent,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_without_systemds_module_the_journal_gets_lines_with_a_level() -> None:
    missing = "sys.modules['systemd.journal'] = None\n"  # Python itself marks a missing module like this
    said = in_a_service(missing + "default_sink()(Record(Priority.WARNING, 'look out'))")
    assert said == "<4>warning: look out\n"


def test_a_stderr_that_is_not_the_journals_gets_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOURNAL_STREAM", "1:2")  # inherited, but stderr was redirected since
    said = subprocess.run(
        [sys.executable, "-c", "from ksmtuned_py.publish.journal import *; print(stderr_is_journal())"],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
        cwd=Path(__file__).parent.parent.parent,
    )
    assert said.stdout == "False\n"


def test_journald_gets_the_fields() -> None:
    there = subprocess.run([sys.executable, "-c", "import systemd.journal"], capture_output=True, check=False)
    need(there.returncode == 0, "systemd-python")
    need(os.geteuid() == 0, "root, for a mount namespace with a journal socket of its own")
    own_run = ("unshare", "--mount", "sh", "-c", 'mount -t tmpfs none /run && exec "$@"', "sh")
    said = in_a_service(
        """
import socket
os.makedirs("/run/systemd/journal")
journald = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
journald.bind("/run/systemd/journal/socket")
default_sink()(Record(Priority.INFO, "all is well", {"KSMTUNED_SAVED_BYTES": 5, "KSMTUNED_MODE": "rest"}))
journald.settimeout(10)
print(journald.recv(65536).decode())
""",
        *own_run,
    )
    wanted = {"MESSAGE=all is well", "PRIORITY=6", "SYSLOG_IDENTIFIER=ksmtuned-py"}
    wanted |= {"KSMTUNED_SAVED_BYTES=5", "KSMTUNED_MODE=rest"}
    assert wanted - set(said.splitlines()) == set()
