"""systemd understands the unit file, which has all that the daemon relies on."""

import re
import shutil
import subprocess
from collections import defaultdict
from contextlib import closing
from pathlib import Path

import pytest

from ksmtuned_py.backends.kernel import PATHS
from ksmtuned_py.cli.main import build_parser
from ksmtuned_py.cli.options import RUNTIME_DIR
from ksmtuned_py.config import Config
from ksmtuned_py.daemon.serving import STATE
from ksmtuned_py.door import Door
from ksmtuned_py.errors import BAD_INPUT
from ksmtuned_py.guests.discovery import SILENT_GUESTS_MAX, GuestFinder
from ksmtuned_py.guests.patience import Patience
from ksmtuned_py.guests.places import Places
from ksmtuned_py.guests.slowlooks import SlowLooks
from ksmtuned_py.hypervisor.enforce import LANES, LOST_LIMIT
from ksmtuned_py.model import ASIDE, KHUGEPAGED_KNOBS, KNOB_NAMES, KSM_DIRECTORY
from ksmtuned_py.plan import STRUCTURAL
from tests.support.need import need
from tests.support.trees import make_fake_tree

UNIT = Path(__file__).parent.parent.parent / "systemd" / "ksmtuned-py.service"
SOCKET = UNIT.with_suffix(".socket")
PROGRAM = "/usr/bin/ksmtuned-py"
EXPOSURE_MAX = {"": 2.2, "unprivileged.conf": 1.5}
"""The most exposure without and with a drop-in, on systemd's scale of 0 (sealed) to 10 (bare).

The peers have 8.4 to 9.6, Prometheus 4.0.
"""


def settings(unit: Path = UNIT) -> dict[str, list[str]]:
    """All values of each key in a unit file."""
    found = defaultdict(list)
    for line in unit.read_text().splitlines():
        if "=" in line and not line.startswith("#"):
            key, _, text = line.partition("=")
            found[key].append(text)
    return found


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The unit with programs that exist, because systemd checks for them."""
    need(shutil.which("systemd-analyze") is not None, "systemd-analyze, of the package systemd")
    shutil.copy(SOCKET, tmp_path)
    copy = tmp_path / UNIT.name
    copy.write_text(UNIT.read_text().replace(PROGRAM, "/bin/true"))
    return copy


def add_drop_in(installed: Path, name: str) -> Path:
    """Add a drop-in of ours, and return its directory."""
    directory = installed.with_name(f"{installed.name}.d")
    directory.mkdir()
    shutil.copy(UNIT.parent / name, directory)
    return directory


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["systemd-analyze", *arguments], capture_output=True, text=True, check=False, timeout=60)


def test_systemd_understands_every_line(installed: Path) -> None:
    verified = analyze("verify", "--man=no", str(installed), str(installed.with_suffix(".socket")))
    assert (verified.returncode, verified.stderr) == (0, "")  # an unknown key gives a line on stderr, and still 0


@pytest.mark.parametrize(("suffix", "key"), [(".service", "WatchdogSec="), (".socket", "ListenStream=")])
def test_an_unknown_key_would_be_noticed(installed: Path, suffix: str, key: str) -> None:
    unit = installed.with_suffix(suffix)
    unit.write_text(unit.read_text().replace(key, "NoSuchKey="))
    assert "NoSuchKey" in analyze("verify", "--man=no", str(unit)).stderr


@pytest.mark.parametrize("drop_in", EXPOSURE_MAX)
def test_exposure(installed: Path, drop_in: str) -> None:
    if drop_in:
        add_drop_in(installed, drop_in)
    secured = analyze("security", "--no-pager", "--offline=true", str(installed))
    told = re.search(r"Overall exposure level for ksmtuned-py.service: (\d+\.\d)", secured.stdout)
    assert told is not None, secured
    assert float(told[1]) <= EXPOSURE_MAX[drop_in], secured.stdout
    page = (UNIT.parent.parent / "docs/operating.md").read_text()
    told_there = re.search(r"measure of exposure .* falls from (\d\.\d) to (\d\.\d)\.", page)
    assert told_there is not None
    assert float(told[1]) == pytest.approx(float(told_there[2 if drop_in else 1]), abs=0.2)  # systemds differ a little


def test_every_command_is_one_of_ours() -> None:
    found = [line for key, lines in settings().items() if key.startswith("Exec") for line in lines]
    assert {line.split()[0] for line in found} == {PROGRAM}
    ours = [line.split()[1:] for line in found]
    assert {arguments[0] for arguments in ours} == {"run", "reload", "restore"}
    for arguments in ours:
        build_parser().parse_args(arguments)  # exits when it does not know an argument


def test_bad_input_is_not_tried_again() -> None:
    assert settings()["RestartPreventExitStatus"] == [str(BAD_INPUT)]


def test_the_saved_knobs_outlive_a_crash() -> None:
    assert Path("/run", settings()["RuntimeDirectory"][0]) == RUNTIME_DIR
    assert settings()["RuntimeDirectoryPreserve"] == ["yes"]


def test_the_restore_after_a_stop_may_ask_for_time() -> None:
    assert settings()["NotifyAccess"] == ["exec"]


def test_the_watchdog_is_patient_enough() -> None:
    assert settings()["Type"] == ["notify"]
    assert int(settings()["WatchdogSec"][0]) / 2 > Config().daemon.idle_tick_seconds


def test_thousands_of_guests_have_a_descriptor_each() -> None:
    assert settings()["LimitNOFILE"] == ["65536"]


def test_there_may_be_a_thread_for_each_process_that_does_not_answer(tmp_path: Path) -> None:
    """Threads wait in each Patience, and for QEMUs that are switched. Some 20 more always run, or are children."""
    door = Door(str(make_fake_tree(tmp_path)))
    with closing(GuestFinder(door)) as finder:
        silent = sum(each.limit for each in owned(finder) + owned(SlowLooks(door, 4096)) + owned(Places(door)))
    assert silent > SILENT_GUESTS_MAX
    assert silent + LANES + LOST_LIMIT + 20 < int(settings()["TasksMax"][0])


def owned(room: object) -> list[Patience]:
    """The objects with which a part asks processes."""
    return [each for each in vars(room).values() if isinstance(each, Patience)]


def test_the_knobs_stay_writable() -> None:
    assert settings()["ProtectKernelTunables"] == ["yes"]
    assert settings()["ReadWritePaths"][0].split()[0] == f"-/{KSM_DIRECTORY}"


def test_all_of_proc_stays_readable() -> None:
    assert "ProcSubset" not in settings()  # pid hides meminfo and pressure
    assert "ProtectProc" not in settings()  # hides the guests from a daemon without CAP_SYS_PTRACE


def test_address_families_are_those_the_program_opens() -> None:
    """The unit allows no Internet sockets, because the one for /metrics is passed."""
    source = "".join(path.read_text() for path in (UNIT.parent.parent / "ksmtuned_py").rglob("*.py"))
    opened = set(re.findall(r"\bsocket\.(AF_\w+)", source)) - {"AF_INET", "AF_INET6"}
    assert set(settings()["RestrictAddressFamilies"][0].split()) == opened


def test_metrics_are_passed_at_the_address_that_is_the_default() -> None:
    assert settings()["Wants"] == [SOCKET.name]
    assert settings(SOCKET)["ListenStream"] == [Config().metrics.address]
    assert settings(SOCKET)["BindsTo"] == [UNIT.name]


def test_a_user_without_rights_may_write_all_knobs_but_those_that_take_unmerging() -> None:
    lines = (UNIT.parent / "unprivileged.tmpfiles").read_text().splitlines()
    rules = [line.split() for line in lines if line.startswith("z ")]
    never_written = {"stable_node_chains_prune_millisecs", *ASIDE}
    assert {Path(rule[1]) for rule in rules} == {
        Path("/", KSM_DIRECTORY, name) for name in set(KNOB_NAMES) - STRUCTURAL - never_written
    }
    (user,) = settings(UNIT.parent / "unprivileged.conf")["User"]
    assert {tuple(rule[:1] + rule[2:]) for rule in rules} == {("z", "0664", "root", user)}
    assert f"Z /var/lib/ksmtuned-py - {user} {user}".split() in [line.split() for line in lines]
    assert f"\nu {user} - " in (UNIT.parent / "unprivileged.sysusers").read_text()


def test_ksmd_may_be_put_before_guests_and_the_scan_worker_behind() -> None:
    assert "@resources" in settings()["SystemCallFilter"][1]
    assert settings()["SystemCallFilter"][2] == "setpriority sched_setaffinity"
    assert "CAP_SYS_NICE" in settings()["CapabilityBoundingSet"][0].split()


def test_khugepaged_may_be_told_with_its_drop_in() -> None:
    (path,) = settings(UNIT.parent / "khugepaged.conf")["ReadWritePaths"]
    assert {Path(PATHS[name]).parent for name in KHUGEPAGED_KNOBS} == {Path(path.removeprefix("-/"))}


@pytest.mark.parametrize("other", ["ksmtuned.service", "ksm.service"])
def test_other_writers_are_stopped_first(other: str) -> None:
    assert other in settings()["Conflicts"][0].split()
    assert other in settings()["After"][0].split()


def test_who_writes_the_knobs_once_at_boot_is_waited_for_and_not_stopped() -> None:
    assert settings()["After"][1:] == ["qemu-kvm.service"]
    assert "qemu-kvm.service" not in settings()["Conflicts"][0].split()


@pytest.mark.parametrize("drop_in", sorted(path.name for path in UNIT.parent.glob("*.conf")))
def test_systemd_understands_every_line_of_a_drop_in(installed: Path, drop_in: str) -> None:
    directory = add_drop_in(installed, drop_in)
    verified = analyze("verify", "--man=no", str(installed))
    assert (verified.returncode, verified.stderr) == (0, "")
    (directory / "wrong.conf").write_text("[Service]\nNoSuchKey=1\n")
    assert "NoSuchKey" in analyze("verify", "--man=no", str(installed)).stderr  # so it does read drop-ins there


def test_the_drop_in_for_remap_lets_seccomp_filters_be_read() -> None:
    """All settings of the unit that use a seccomp filter, by systemd.exec(5), are off in the drop-in."""
    by_filter = {"PrivateDevices", "MemoryDenyWriteExecute", "LockPersonality", "SystemCallFilter"}
    by_filter |= {"SystemCallArchitectures", "RestrictAddressFamilies", "RestrictNamespaces", "RestrictRealtime"}
    by_filter |= {"RestrictSUIDSGID", "ProtectKernelTunables", "ProtectKernelModules", "ProtectKernelLogs"}
    by_filter |= {"ProtectClock", "ProtectHostname"}
    lines = (UNIT.parent / "scan_remap.conf").read_text().splitlines()
    off = {key for key, _, value in (line.partition("=") for line in lines) if value in ("", "no")}
    assert by_filter & settings().keys() <= off


def test_the_past_is_kept_where_a_purge_finds_it() -> None:
    [place] = [value.partition("=")[2] for value in settings()["Environment"] if value.startswith(STATE)]
    assert settings()["ReadWritePaths"][0].split()[1:] == [f"-{place}"]
    assert f" {place};" in (UNIT.parent.parent / "packaging/debian/ksmtuned-py.postrm").read_text()
    assert f"`{place}`" in (UNIT.parent.parent / "docs/install.md").read_text()


def test_no_start_and_no_restore_depends_on_the_past() -> None:
    assert "StateDirectory" not in settings()
