"""The old ksmtuned.conf: what is taken over, what is refused, and that nothing in it is ever run."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ksmtuned_py.cli.main import main
from ksmtuned_py.config import Config
from ksmtuned_py.config.peers import Ksmtuned
from ksmtuned_py.configfile.legacy import BadLegacyFile, adaptive_policy, parse_legacy, same_policy
from ksmtuned_py.configfile.load import load

SHIPPED = Path(__file__).parent / "data" / "legacy"


def loaded(lines: list[str], directory: Path) -> Config:
    """As the daemon reads it; raises ConfigErrors."""
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
    assert "it is KiB, not MB" in text


@pytest.mark.parametrize("percent", [0, 1, 4, 5, 6, 14, 15, 16, 20, 29, 30, 31, 90, 99, 100])
def test_the_adaptive_equivalent_is_a_good_configuration(percent: int, tmp_path: Path) -> None:
    legacy = parse_legacy("old", f"KSM_THRES_COEF={percent}")
    config = loaded(adaptive_policy(legacy), tmp_path)
    assert config.policy.name == "adaptive"
    assert percent == 0 or config.adaptive.need.short_enter_percent == min(percent, 99)
    assert loaded(same_policy(legacy), tmp_path).ksmtuned.thres_coef_percent == percent


def test_the_verb_prints_it(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["import-legacy", "--adaptive", str(SHIPPED / "proxmox.conf")]) == 0
    config = loaded(capsys.readouterr().out.splitlines(), tmp_path)
    assert (config.policy.name, config.adaptive.need.short_enter_percent) == ("adaptive", 20)
