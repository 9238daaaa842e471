"""The old ksmtuned.conf is taken over or refused, and nothing in it is ever run."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ksmtuned_py.cli.main import main
from ksmtuned_py.config import Config
from ksmtuned_py.config.peers import Ksmtuned
from ksmtuned_py.configfile.legacy import BadLegacyFile, adaptive_policy, parse_legacy, same_policy
from ksmtuned_py.configfile.load import load
from ksmtuned_py.units import GIB, MIB
from tests.support.trees import meminfo, put

SHIPPED = Path(__file__).parent.parent / "data" / "legacy"


def loaded(lines: list[str], directory: Path) -> Config:
    """The configuration as the daemon reads these lines; raises ConfigErrors."""
    path = directory / "config.toml"
    path.write_text("\n".join(lines))
    return load(path, None).config


@pytest.mark.parametrize(("name", "sleep_msec"), [("debian", 10), ("proxmox", 100)])
def test_what_distributions_ship_is_taken_over(
    name: str, sleep_msec: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["import-legacy", str(SHIPPED / f"{name}.conf")]) == 0
    config = loaded(capsys.readouterr().out.splitlines(), tmp_path)
    assert config.policy.name == "ksmtuned"
    assert config.ksmtuned == Ksmtuned(sleep_msec=sleep_msec)


def test_every_setting_with_every_way_to_write_it() -> None:
    text = """
        KSM_MONITOR_INTERVAL=0.5   # a comment
        export KSM_SLEEP_MSEC="20"
        KSM_NPAGES_BOOST='400' KSM_NPAGES_DECAY=-"10"\t# two in a line
        KSM_NPAGES_MIN=1
        KSM_NPAGES_MIN=100
        KSM_NPAGES_MAX=2''000
        KSM_THRES_COEF=
        KSM_THRES_CONST=4096
        LOGFILE="/var/log/with space # and more"
    """
    legacy = parse_legacy("old", text)
    assert legacy.settings == Ksmtuned(
        monitor_interval_seconds=0.5,
        sleep_msec=20,
        npages_boost=400,
        npages_decay=-10,
        npages_min=100,
        npages_max=2000,
        thres_const_kib=4096,
    )
    assert legacy.assignments["LOGFILE"].value == "/var/log/with space # and more"
    assert "KSM_THRES_COEF" not in legacy.assignments


@pytest.mark.parametrize(
    "line",
    [
        "rm -rf /tmp/x",
        "KSM_NPAGES_MAX=$((1000 * 2))",
        "KSM_NPAGES_MAX=$MAX",
        'KSM_NPAGES_MAX="$(id)"',
        "KSM_NPAGES_MAX=`id`",
        "KSM_NPAGES_MAX=100; id",
        "KSM_NPAGES_MAX=100 id",
        "KSM_NPAGES_MAX=100 && id",
        "KSM_NPAGES_MAX=100>/etc/passwd",
        "KSM_NPAGES_MAX=100#2",
        "KSM_NPAGES_MAX=1\\",
        "KSM_NPAGES_MAX='100",
        "KSM_NPAGES_MAX = 100",
        "KSM_NPAGES_MAX+=100",
        ". /etc/default/ksm",
        "if true; then",
        "KSM_NPAGES_MAX=0100",
        "KSM_NPAGES_MAX=many",
        "KSM_NPAGES_MAX=0",
        "KSM_SLEEP_MSEC=1.5",
        "KSM_MONITOR_INTERVAL=1m",
        "KSM_THRES_COEF=101",
        "PATH=/tmp",
        "KSM_NPAGES_MIN=2000",
    ],
)
def test_anything_else_is_refused_with_its_line(line: str) -> None:
    with pytest.raises(BadLegacyFile, match=r"1 line cannot be taken over\nold:2: "):
        parse_legacy("old", f"KSM_THRES_COEF=20\n{line}\n")


def test_all_mistakes_at_once_and_exit_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "old.conf"
    path.write_text("KSM_NPAGE_MAX=5\n\nid\nKSM_SLEEP_MSEC=x\n")
    assert main(["import-legacy", str(path)]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert [f"old.conf:{line}:" in told.err for line in (1, 2, 3, 4)] == [True, False, True, True]
    assert "did you mean KSM_NPAGES_MAX?" in told.err
    assert main(["import-legacy", str(tmp_path / "nothing")]) == 2
    assert "No such file" in capsys.readouterr().err


@given(st.text(max_size=80))
def test_any_text_is_taken_or_refused(text: str) -> None:
    try:
        legacy = parse_legacy("old", text)
    except BadLegacyFile:
        return
    assert set(legacy.assignments) <= {"LOGFILE", "DEBUG"} or "KSM_" in text


def test_what_was_inert_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "old.conf"
    path.write_text("DEBUG=1\nLOGFILE=/var/log/ksmtuned\nKSM_THRES_CONST=2048\nKSM_PS_METRIC=pss\n")
    assert main(["import-legacy", str(path)]) == 0
    text = capsys.readouterr().out
    assert [f"#   line {line}: " in text for line in (1, 2, 3, 4)] == [True] * 4
    assert "it is KiB, not MB: 2 MiB is less than KSM_THRES_COEF (20 %) of this host's memory, " in text


@pytest.mark.parametrize("percent", [0, 1, 4, 5, 6, 14, 15, 16, 20, 29, 30, 31, 90, 99, 100])
def test_the_adaptive_equivalent_is_a_good_configuration(percent: int, tmp_path: Path) -> None:
    legacy = parse_legacy("old", f"KSM_THRES_COEF={percent}")
    config = loaded(adaptive_policy(legacy), tmp_path)
    assert config.policy.name == "adaptive"
    assert percent == 0 or config.adaptive.need.short_enter_percent == min(percent, 99)
    assert loaded(same_policy(legacy), tmp_path).ksmtuned.thres_coef_percent == percent


def test_nothing_in_it_steers_a_terminal_or_breaks_the_toml(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old, new = tmp_path / "\x1b[2J\npolicy.name = 'off'", tmp_path / "new.toml"
    old.write_text("LOGFILE='\x1b[2J\x9b\u202e\x0b'\n")
    assert main(["import-legacy", str(old)]) == 0
    text = capsys.readouterr().out
    assert r"LOGFILE=\x1b[2J\x9b\u202e\x0b: " in text
    assert all(line.isprintable() for line in text.split("\n"))
    new.write_text(text)
    assert load(new).config.policy.name == "ksmtuned"


def test_the_verb_prints_it(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["import-legacy", "--adaptive", str(SHIPPED / "proxmox.conf")]) == 0
    config = loaded(capsys.readouterr().out.splitlines(), tmp_path)
    assert (config.policy.name, config.adaptive.need.short_enter_percent) == ("adaptive", 20)


def host(root: Path, gib: int) -> list[str]:
    """Make a host of so much memory, and return the arguments that name it."""
    put(root, "proc/meminfo", meminfo(total_bytes=gib * GIB))
    return ["--root", str(root)]


@pytest.mark.parametrize(
    ("gib", "coef", "const", "short"),
    [(64, 20, 32 * MIB, 50), (64, 60, 32 * MIB, 60), (16, 0, MIB, 6.2), (64, 20, 2048, 20), (64, 20, 80 * MIB, 99)],
)
def test_a_constant_that_is_larger_counts(
    gib: int, coef: int, const: int, short: float, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "old.conf"
    path.write_text(f"KSM_THRES_COEF={coef}\nKSM_THRES_CONST={const}\n")
    assert main(["import-legacy", "--adaptive", str(path), *host(tmp_path, gib)]) == 0
    text = capsys.readouterr().out
    assert loaded(text.splitlines(), tmp_path).adaptive.need.short_enter_percent == short
    assert ("line 2: KSM_THRES_CONST" in text) == (short == coef)
    assert main(["import-legacy", str(path), *host(tmp_path, gib)]) == 0
    text = capsys.readouterr().out
    assert loaded(text.splitlines(), tmp_path).ksmtuned.thres_const_kib == const
    assert ("line 2: KSM_THRES_CONST" in text) == (short == coef)


def test_on_an_unknown_host_the_constant_is_told_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "old.conf"
    path.write_text("KSM_THRES_CONST=4096\n")
    assert main(["import-legacy", str(path), "--root", str(tmp_path / "none")]) == 0
    assert "counts only where it is more than KSM_THRES_COEF (20 %) of the host's memory" in capsys.readouterr().out


def test_what_the_adaptive_policy_has_in_place_of_each_setting_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "old.conf"
    path.write_text("\n".join(f"{name}={value}" for name, value in EVERY_SETTING.items()))
    assert main(["import-legacy", "--adaptive", str(path), *host(tmp_path, 64)]) == 0
    text = capsys.readouterr().out
    assert [name for name in EVERY_SETTING if f": {name}=" not in text] == ["KSM_THRES_COEF"]
    assert "short_enter_percent = 25" in text
    assert "boost_percent" in text


EVERY_SETTING = {
    "KSM_MONITOR_INTERVAL": 30,
    "KSM_SLEEP_MSEC": 20,
    "KSM_NPAGES_BOOST": 500,
    "KSM_NPAGES_DECAY": -20,
    "KSM_NPAGES_MIN": 100,
    "KSM_NPAGES_MAX": 5000,
    "KSM_THRES_COEF": 25,
    "KSM_THRES_CONST": 4096,
    "KSM_PS_METRIC": "pss",
    "KSM_MAX_KERNEL_PAGES": 0,
    "KSM_ENABLED": "AUTO",
    "SLEEP_MILLISECS": 200,
    "LOGFILE": "/x",
    "DEBUG": 1,
}


@pytest.mark.parametrize("encoding", ["euc_jp", "shift_jis", "latin-1", "utf-8", "gb18030"])
def test_a_comment_in_any_encoding_is_a_comment(
    encoding: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    comment = "Größe \x85 \xa0" if encoding == "latin-1" else "メモリの設定 表"
    path = tmp_path / "old.conf"
    path.write_bytes(
        f"# {comment} KSM_NPAGES_MAX=5\nKSM_NPAGES_MAX=100 # {comment}\nLOGFILE='{comment}'\n".encode(encoding)
    )
    assert main(["import-legacy", str(path)]) == 0
    text = capsys.readouterr().out
    assert loaded(text.splitlines(), tmp_path).ksmtuned.npages_max == 100
    assert "line 3: LOGFILE=" in text


@pytest.mark.parametrize("verb", ["import-legacy", "check"])
def test_what_is_no_file_of_settings_is_refused_unread(
    verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    big = tmp_path / "big.conf"
    with big.open("wb") as file:
        file.truncate(100 * MIB)
    for path in (big, Path("/dev/zero")):
        assert main([verb, str(path)]) == 2
        assert f"{path}: wanted a file of settings, of" in capsys.readouterr().err


@pytest.mark.parametrize(
    "text", ["KSM_NPAGES_MAX=$(touch here)", "KSM_NPAGES_MAX=1\0", "\0KSM_NPAGES_MAX=1", "\ufeffKSM_NPAGES_MAX=1"]
)
def test_what_a_shell_would_run_or_not_know_is_refused(text: str) -> None:
    with pytest.raises(BadLegacyFile, match="old:1:"):
        parse_legacy("old", text)


def test_only_what_ends_a_line_in_a_shell_ends_one() -> None:
    comment = "# a\x0bKSM_NPAGES_MAX=1\x0cKSM_NPAGES_MAX=2\x1cKSM_NPAGES_MAX=3\u2028KSM_NPAGES_MAX=4"
    assert parse_legacy("old", f"\ufeff{comment}\r\nKSM_NPAGES_MAX=100\r\n").settings.npages_max == 100
    with pytest.raises(BadLegacyFile, match="old:1:"):  # the shell does not take it for a space, either
        parse_legacy("old", "\u3000KSM_NPAGES_MAX=100")


HARVESTER = """\
apiVersion: node.harvesterhci.io/v1beta1
kind: Ksmtuned
metadata:
  name: node1
  generation: 3
spec:
  ksmtunedParameters:
    boost: 200
    decay: 50
    maxPages: 10000
    minPages: 100
    sleepMsec: 20
  mergeAcrossNodes: 0
  mode: high
  run: run
  thresCoef: 25
status:
  fullScans: 17
  sharing: 1368772
"""


def test_harvesters_resource_is_taken_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "node1.yaml"
    path.write_text(HARVESTER)
    assert main(["import-legacy", str(path)]) == 0
    text = capsys.readouterr().out
    assert loaded(text.splitlines(), tmp_path).ksmtuned == Ksmtuned(
        sleep_msec=20, npages_boost=200, npages_decay=-50, npages_min=100, npages_max=10000, thres_coef_percent=25
    )
    assert "line 13: MERGE_ACROSS_NODES=0: Harvester's mergeAcrossNodes: here that is kernel.merge_across_nodes" in text
    assert {"MODE", "RUN"} <= {line.split()[3].partition("=")[0] for line in text.splitlines() if "#   line" in line}
