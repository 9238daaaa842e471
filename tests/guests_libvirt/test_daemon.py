"""The daemon finds, counts and switches three real domains while they run, even when libvirtd is killed."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.support.daemon import MEMORY_FIRST, Daemon, Sections, merged, toml, verb
from tests.support.ksmlock import RealKsm
from tests.support.libvirtd import EQUAL_BYTES, PAGE_BYTES, Domain, Libvirtd
from tests.support.process import wait_for

pytest.importorskip("libvirt")
pytestmark = [pytest.mark.kernel, pytest.mark.qemu]

EQUAL_PAGES = EQUAL_BYTES // PAGE_BYTES
LEFT_PAGES = 1000
"""More pages than QEMU's video memory and ROMs have in common in all guests."""
BUSY: Sections = {
    "metrics": {"address": ""},
    "daemon": {"tick_seconds": 0.2, "idle_tick_seconds": 0.2},
    "policy": {"name": "fixed"},
    "fixed": {"pages_to_scan": 20_000, "sleep_millisecs": 10, "smart_scan": 0},
}
"""A policy of whole passes all the time, because counters follow a switch only when ksmd scans the guest."""


def sections(libvirtd: Libvirtd, **guests: object) -> Sections:
    """The daemon's configuration with this libvirtd."""
    return merged(BUSY, {"guests": {"libvirt_uri": libvirtd.uri, **guests}})


def rule(**keys: str) -> str:
    """One rule as TOML."""
    return "[[guests.rule]]\n" + "".join(f'{key} = "{value}"\n' for key, value in keys.items())


def guest(status: dict[str, Any], name: str) -> dict[str, Any]:
    """One guest of a status; empty when it is not in there."""
    found: dict[str, Any] = next((each for each in status["snapshot"]["guests"] if each["name"] == name), {})
    return found


def put_rules(daemon: Daemon, base: Sections, text: str) -> None:
    """Give the running daemon other rules."""
    daemon.config.write_text(toml(base) + "\n" + text)
    daemon.process.send_signal(signal.SIGHUP)


def wait_merged(domains: list[Domain], pages: int = EQUAL_PAGES, seconds: float = 60.0) -> None:
    """Wait until each domain has merged its equal block."""
    for domain in domains:
        wait_for(lambda domain=domain: domain.merging_pages() >= pages, seconds, f"merging of {domain.name}")  # type: ignore[misc] # mypy cannot infer a lambda's default


def test_what_guests_say_adds_up_to_what_the_kernel_says(libvirtd: Libvirtd, real_ksm: RealKsm, tmp_path: Path) -> None:
    with Daemon(tmp_path, sections(libvirtd)) as daemon:
        daemon.wait_ticks()
        domains = [libvirtd.create(name) for name in ("web", "db", "mail")]
        for domain in domains:
            found = daemon.wait_status(lambda status, domain=domain: guest(status, domain.name), domain.name)  # type: ignore[misc] # as above
            assert guest(found, domain.name)["uuid"] == domain.uuid
            assert guest(found, domain.name)["pid"] == domain.pid
        wait_merged(domains)

        def difference() -> int:
            owned = sum(domain.merging_pages() for domain in domains)
            return abs(owned - real_ksm.number("pages_sharing") - real_ksm.number("pages_shared"))

        wait_for(lambda: difference() <= 16, 20.0, "agreement of guests and kernel")
        text = verb("guests", "--json", "--runtime-dir", daemon.runtime).stdout
        told = {each["name"]: each for each in json.loads(text)}
        for name in ("web", "db", "mail"):  # other tests may have guests, too
            assert told[name]["merged_bytes"] >= EQUAL_BYTES
            assert told[name]["libvirt_age_seconds"] is not None
        libvirtd.destroy("web")
        daemon.wait_status(lambda status: not guest(status, "web"), "end of web")
        assert daemon.end() == 0


def test_one_guest_is_switched_out_while_it_runs_and_in_again(
    libvirtd: Libvirtd, real_ksm: RealKsm, tmp_path: Path
) -> None:
    base = sections(libvirtd)
    with Daemon(tmp_path, base) as daemon:
        domains = [libvirtd.create(name) for name in ("web", "db", "mail")]
        web = domains[0]
        wait_merged(domains)
        put_rules(daemon, base, rule(name="web", merge="no"))
        daemon.wait_status(lambda status: guest(status, "web").get("switched_off"), "switch of web")
        assert "guest web switched off: a rule says merge" in daemon.output()
        assert not web.ram()[1]
        assert [domain.ram()[1] for domain in domains[1:]] == [True, True]
        wait_for(lambda: web.merging_pages() < LEFT_PAGES, 30.0, "end of web's merged pages")
        assert domains[1].merging_pages() >= EQUAL_PAGES
        assert all(domain.intact() for domain in domains)
        put_rules(daemon, base, "")
        daemon.wait_status(lambda status: guest(status, "web").get("switched_off") is False, "switch back of web")
        assert web.ram()[1]
        wait_merged([web])
        assert all(domain.intact() for domain in domains)
        assert daemon.end() == 0


ADAPTIVE = merged(MEMORY_FIRST, {"metrics": {"address": ""}, "daemon": {"tick_seconds": 0.5, "idle_tick_seconds": 2}})


def test_a_new_guest_that_a_rule_keeps_out_is_switched_off_before_any_pass_merges_it(
    libvirtd: Libvirtd, real_ksm: RealKsm, tmp_path: Path
) -> None:
    base = merged(ADAPTIVE, {"guests": {"libvirt_uri": libvirtd.uri}})
    with Daemon(tmp_path, base) as daemon:
        daemon.wait_ticks()
        put_rules(daemon, base, rule(name="secret*", merge="no"))
        daemon.wait_output("reloaded")
        others = [libvirtd.create(name) for name in ("web", "db")]
        wait_merged(others)
        for number in range(2):
            secret = libvirtd.create(f"secret-{number}")
            most: list[int] = []

            def is_off(secret: Domain = secret, most: list[int] = most) -> bool:
                most.append(secret.merging_pages())
                return bool(guest(daemon.status(), secret.name).get("switched_off"))

            wait_for(is_off, 10.0, f"switch of {secret.name}")
            assert not secret.ram()[1]
            assert max(most) < LEFT_PAGES
        assert "is switched off first, as a rule wants it" in daemon.output()
        daemon.wait_status(lambda status: status["snapshot"]["knobs"]["run"] == 1, "merging of the others")
        assert daemon.end() == 0


def test_a_rule_by_tag_holds_while_libvirtd_hangs(libvirtd: Libvirtd, real_ksm: RealKsm, tmp_path: Path) -> None:
    base = sections(libvirtd)
    web, gold = libvirtd.create("web"), libvirtd.create("gold", tag="gold")
    os.kill(libvirtd.pid, signal.SIGSTOP)
    try:
        with Daemon(tmp_path, base) as daemon:
            daemon.wait_ticks()
            put_rules(daemon, base, rule(tag="gold", merge="no"))
            seen = daemon.wait_status(lambda status: guest(status, "web").get("merge") is False, "web kept out")
            assert guest(seen, "web")["unknown"] == ["tag", "name"]
            daemon.wait_output("libvirt has not told of it yet", 20.0)
            os.kill(libvirtd.pid, signal.SIGCONT)
            daemon.wait_status(lambda status: guest(status, "gold").get("switched_off"), "switch of gold", 30.0)
            daemon.wait_status(lambda status: guest(status, "web").get("merge") is None, "web let in", 30.0)
            assert (web.ram()[1], gold.ram()[1]) == (True, False)
            assert daemon.end() == 0
    finally:
        os.kill(libvirtd.pid, signal.SIGCONT)


def test_of_two_groups_one_merges_and_a_tag_moves_a_guest(
    libvirtd: Libvirtd, real_ksm: RealKsm, tmp_path: Path
) -> None:
    base = sections(libvirtd, isolation="groups", isolation_group="a")
    with Daemon(tmp_path, base) as daemon:
        daemon.wait_ticks()  # before its first tick a SIGHUP would end it
        put_rules(daemon, base, rule(tag="gold", group="a") + rule(name="*", group="b"))
        daemon.wait_output("reloaded")
        domains = {
            name: libvirtd.create(name, tag=tag) for name, tag in (("web", "gold"), ("db", ""), ("mail", "gold"))
        }
        daemon.wait_status(lambda status: guest(status, "db").get("switched_off"), "switch of db")
        assert [domains[name].ram()[1] for name in ("web", "db", "mail")] == [True, False, True]
        libvirtd.tag("db", "gold")
        daemon.wait_status(lambda status: guest(status, "db").get("switched_off") is False, "switch back of db")
        assert domains["db"].ram()[1]
        assert daemon.end() == 0


def test_no_tick_waits_for_a_libvirtd_that_is_killed_or_hangs(
    libvirtd: Libvirtd, real_ksm: RealKsm, tmp_path: Path
) -> None:
    with Daemon(tmp_path, sections(libvirtd)) as daemon:
        domains = [libvirtd.create(name) for name in ("web", "db", "mail")]
        daemon.wait_status(lambda status: guest(status, "mail").get("libvirt_age_seconds") is not None, "mail")
        for _ in range(2):
            libvirtd.kill()
            daemon.wait_ticks(5)
            libvirtd.start()
            daemon.wait_status(lambda status: guest(status, "web")["libvirt_age_seconds"] < 0.5, "a fresh view", 60.0)
        os.kill(libvirtd.pid, signal.SIGSTOP)
        daemon.wait_ticks(10)
        daemon.wait_status(lambda status: guest(status, "web")["libvirt_age_seconds"] > 3.0, "an old view")
        os.kill(libvirtd.pid, signal.SIGCONT)
        wait_merged(domains)
        totals = daemon.status()["totals"]
        within_a_second = totals["ticks_within"][8]  # the bound of 1.0 in totals.TICK_BOUNDS_SECONDS
        assert within_a_second == totals["ticks"] > 20
        assert totals["errors"].get("tick", 0) == 0
        assert daemon.end() == 0


def test_a_guest_that_does_not_answer_is_told_of_and_holds_nobody_up(
    libvirtd: Libvirtd, real_ksm: RealKsm, tmp_path: Path
) -> None:
    base = sections(libvirtd)
    with Daemon(tmp_path, base) as daemon:
        web, db = libvirtd.create("web"), libvirtd.create("db")
        daemon.wait_status(lambda status: guest(status, "db").get("libvirt_age_seconds") is not None, "db")
        os.kill(web.pid, signal.SIGSTOP)
        try:
            put_rules(daemon, base, rule(name="web", merge="no"))
            daemon.wait_output("reloaded")
            daemon.wait_ticks(10)
            assert db.ram()[1]
        finally:
            os.kill(web.pid, signal.SIGCONT)
        daemon.wait_status(lambda status: guest(status, "web").get("switched_off"), "switch of web")
        assert daemon.end() == 0


def test_unmerge_of_one_guest_and_of_all(libvirtd: Libvirtd, real_ksm: RealKsm, tmp_path: Path) -> None:
    config = tmp_path / "cli.toml"
    config.write_text(toml(sections(libvirtd)))
    asked = ("--config", config, "--runtime-dir", tmp_path / "none")
    domains = [libvirtd.create(name) for name in ("web", "db", "mail")]
    real_ksm.write("pages_to_scan", 20_000)
    real_ksm.write("run", 1)
    wait_merged(domains)
    done = verb("unmerge", "web", *asked)
    assert done.returncode == 0, done.stderr
    assert "may no longer merge" in done.stderr
    assert [domain.ram()[1] for domain in domains] == [False, True, True]
    wait_for(lambda: domains[0].merging_pages() < LEFT_PAGES, 30.0, "end of web's merged pages")
    done = verb("unmerge", "--undo", domains[0].uuid, *asked)
    assert done.returncode == 0, done.stderr
    wait_merged(domains)
    done = verb("unmerge", "--all", *asked)
    assert done.returncode == 0, done.stderr
    assert real_ksm.number("pages_shared") == 0
    assert real_ksm.number("run") == 0
    assert [domain.ram()[1] for domain in domains] == [True, True, True]
    assert all(domain.intact() for domain in domains)
    assert "0 B still merged" in done.stdout
    assert verb("unmerge", "nobody", *asked).returncode == 2


def test_the_doctor_names_what_keeps_a_domain_from_merging(libvirtd: Libvirtd, tmp_path: Path) -> None:
    config = tmp_path / "cli.toml"
    config.write_text(toml(sections(libvirtd)))
    libvirtd.create("plain")
    libvirtd.create("locked", backing="<nosharepages/>")
    libvirtd.create("shared", backing="<source type='memfd'/><access mode='shared'/>")
    libvirtd.create("memfd", backing="<source type='memfd'/>")
    libvirtd.create("private", backing="<source type='memfd'/><access mode='private'/>")
    done = verb("doctor", "--json", "--config", config, "--runtime-dir", tmp_path / "none")
    assert done.returncode == 1, done.stderr
    found = {(each["guest"], each["code"]) for each in json.loads(done.stdout)}
    assert {("locked", "nosharepages"), ("shared", "shared"), ("memfd", "shared")} <= found
    assert not found & {("locked", "not_mergeable"), ("shared", "not_mergeable"), ("private", "shared")}
    of_plain = {code for guest, code in found if guest == "plain"}
    assert not of_plain & {"nosharepages", "shared", "not_mergeable", "memory_not_mergeable", "hugetlb", "vfio"}
