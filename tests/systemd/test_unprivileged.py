"""The service of a user without rights steers the knobs that it may, says what it cannot do, and is root's to pause."""

from ksmtuned_py.cli.options import RUNTIME_DIR
from tests.support.process import wait_for
from tests.support.trees import KSM
from tests.support.unit import SECONDS
from tests.systemd.conftest import Service
from tests.systemd.test_service import PINNED, PORT, looked_at, steers

USER = "ksmtuned-py"
FOREIGN = """
cp /usr/bin/sleep /run/qemu-system-x86_64
setpriv --reuid=65534 --clear-groups /run/qemu-system-x86_64 60 >/dev/null 2>&1 &
"""
"""Starts a guest of another user."""


def owner(service: Service, name: str) -> str:
    """The owner and the mode of a file in the runtime directory."""
    return service.container.run("stat", "--format=%U %a", f"{RUNTIME_DIR}/{name}").strip()


def test_it_steers_and_is_scraped_without_a_network(unprivileged: Service) -> None:
    unprivileged.configure(PINNED)
    unprivileged.start()
    wait_for(lambda: steers(unprivileged), SECONDS, "knobs of its own")
    pid = unprivileged.shows("MainPID")
    assert unprivileged.container.run("stat", "--format=%U", f"/proc/{pid}").strip() == USER
    assert "CapEff:\t0000000000000000" in unprivileged.container.run("cat", f"/proc/{pid}/status")
    ours, its = (unprivileged.container.run("readlink", f"/proc/{who}/ns/net") for who in ("1", pid))
    assert ours != its
    scraped = unprivileged.container.run("curl", "--silent", "--max-time", "10", f"http://127.0.0.1:{PORT}/metrics")
    assert "ksmtuned_saved_bytes" in scraped
    looked_at(unprivileged)
    unprivileged.container.run("kill", "-KILL", pid)
    wait_for(lambda: unprivileged.shows("NRestarts") == "1" and steers(unprivileged), SECONDS, "another one at work")
    unprivileged.stop()


def test_it_says_what_it_cannot_do(unprivileged: Service) -> None:
    unprivileged.container.run("sh", "-c", FOREIGN)
    unprivileged.configure({"kernel": {"merge_across_nodes": 0, "use_zero_pages": 1}})
    unprivileged.start()
    assert (unprivileged.ksm / "use_zero_pages").read_text() == "1"
    assert "[kernel] is not in force: merge_across_nodes=0 (EACCES: not permitted)" in unprivileged.journal()
    assert "no notice of new processes, they are found at the next tick: " in unprivileged.journal()
    assert "this user is not root: what guests of others have merged stays unknown" in unprivileged.journal()
    unprivileged.wait_ticks(1)
    (guest,) = unprivileged.status()["snapshot"]["guests"]
    assert (guest["name"].startswith("qemu-system-x86_64"), guest["ksm"]) == (True, None)
    unprivileged.container.run("kill", str(guest["pid"]))


def test_without_the_rules_for_tmpfiles_it_says_what_it_needs(unprivileged: Service) -> None:
    unprivileged.container.run("chgrp", "-R", "root", f"/{KSM}")
    assert "Job for ksmtuned-py.service failed" in unprivileged.systemctl("start")
    assert f"error: /{KSM}/run: not permitted to write it\n" in unprivileged.journal()
    assert "needs its rules for tmpfiles" in unprivileged.journal()


def test_root_pauses_it_and_puts_its_knobs_back_and_a_stranger_does_not(unprivileged: Service) -> None:
    unprivileged.configure(PINNED)
    unprivileged.start()
    wait_for(lambda: steers(unprivileged), SECONDS, "knobs of its own")
    pause = ("pause", "--for", "1h", "--reason", "backup")
    refused = unprivileged.verb(*pause, user="nobody")
    assert refused.returncode == 2
    assert f"it belongs to user {USER}" in refused.stdout
    done = unprivileged.verb(*pause)
    assert (done.returncode, "the daemon heeds it: off: paused" in done.stdout) == (0, True), done.stdout
    assert owner(unprivileged, "pause.json") == f"{USER} 644"
    assert unprivileged.knobs()["run"] == "0"
    for user in ("root", "nobody"):
        assert "backup" in unprivileged.verb("status", user=user).stdout
    assert "the pause is over" in unprivileged.verb("resume").stdout
    assert "locked by another ksmtuned-py" in unprivileged.verb("restore").stdout


def test_what_a_killed_one_left_root_puts_back(unprivileged: Service) -> None:
    unprivileged.configure(PINNED)
    unprivileged.start()
    wait_for(lambda: steers(unprivileged), SECONDS, "knobs of its own")
    saved = unprivileged.container.run("cat", f"{RUNTIME_DIR}/originals.json")
    unprivileged.stop()
    as_it = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "tee"]
    unprivileged.container.run("sh", "-c", f"echo '{saved}' | {' '.join(as_it)} {RUNTIME_DIR}/originals.json")
    (unprivileged.ksm / "pages_to_scan").write_text("777\n")
    refused = unprivileged.verb("restore", user="nobody")
    assert (refused.returncode, steers(unprivileged)) == (2, True)
    done = unprivileged.verb("restore")
    assert (done.returncode, "put back: " in done.stdout) == (0, True), done.stdout


def test_roots_own_daemon_trusts_nothing_that_another_user_may_write(unprivileged: Service) -> None:
    unprivileged.start()
    unprivileged.stop()
    done = unprivileged.verb("run", "--once")
    assert done.returncode == 2
    assert f"{RUNTIME_DIR}: cannot be used as the runtime directory: it belongs to user {USER}\n" in done.stdout
