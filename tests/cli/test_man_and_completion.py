"""The manual pages and the shells' completion are in step with the command line."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from argparse import ArgumentParser
from contextlib import redirect_stdout
from importlib import import_module
from io import StringIO
from pathlib import Path

import pytest

from ksmtuned_py import __version__
from ksmtuned_py.cli.main import VERBS, build_parser
from tests.support.need import need

SOURCE_TREE = Path(__file__).parent.parent.parent
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(SOURCE_TREE)}
REGENERATE = "run: .venv/bin/python packaging/generate.py"
DASHBOARDS = ("packaging/grafana/fleet.json", "packaging/grafana/host.json")
PAGES = ("docs/man/ksmtuned-py.1", "docs/man/ksmtuned-py.toml.5")


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory with what packaging/generate.py writes in a narrow terminal, on a day long ago."""
    tree = tmp_path_factory.mktemp("tree")
    surroundings = {"COLUMNS": "40", "SOURCE_DATE_EPOCH": "0", "TZ": "UTC-14"}
    subprocess.run(
        [sys.executable, SOURCE_TREE / "packaging" / "generate.py", tree],
        env=ENVIRONMENT | surroundings,
        timeout=60,
        check=True,
    )
    return tree


@pytest.mark.parametrize("name", ["config/config.toml", "ksmtuned_py/publish/openapi.json", *DASHBOARDS, *PAGES])
def test_what_is_committed_is_what_the_code_gives(name: str, generated: Path) -> None:
    assert (SOURCE_TREE / name).read_text() == (generated / name).read_text(), REGENERATE


def test_the_page_has_every_command(generated: Path) -> None:
    page = (generated / PAGES[0]).read_text()
    listed = re.findall(r"^    ([a-z-]+)", build_parser().format_help().partition("\ncommands:\n")[2], re.MULTILINE)
    assert {"check", "completion"} <= set(listed)
    assert re.findall(r"^\.SS \\fBksmtuned-py (.*)\\fR$", page.replace(r"\-", "-"), re.MULTILINE) == listed


@pytest.mark.parametrize("name", PAGES)
def test_groff_has_nothing_against_the_pages(name: str, generated: Path) -> None:
    groff = shutil.which("groff")
    if groff is None:
        pytest.skip("groff is not installed")
    done = subprocess.run(
        [groff, "-ww", "-man", "-Tascii", "-P-cbou", generated / name],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stderr == ""
    assert done.stdout.startswith(Path(name).name.rpartition(".")[0].upper())


def test_no_help_shows_what_argparse_wants_escaped() -> None:
    for verb in VERBS:
        subparsers = build_parser(verb)._subparsers
        assert subparsers is not None
        [action] = subparsers._group_actions
        assert isinstance(action.choices, dict)
        helps = [parser.format_help() for parser in action.choices.values()]
        assert helps
        assert [text for text in helps if "%%" in text] == []


def test_each_verb_is_told_from_its_module() -> None:
    """A start loads only the module of its verb, and so has to know it without loading any."""
    for module in set(VERBS.values()):
        subparsers = ArgumentParser().add_subparsers()
        import_module(f"ksmtuned_py.cli.{module}").add(subparsers)
        assert list(subparsers.choices) == [verb for verb, told in VERBS.items() if told == module]


def test_one_verb_says_what_it_says_among_all() -> None:
    among_all = build_parser()
    for verb in VERBS:
        alone = build_parser(verb)
        assert alone.format_usage() == among_all.format_usage()
        assert _help(alone, verb) == _help(among_all, verb)


def _help(parser: ArgumentParser, verb: str) -> str:
    with redirect_stdout(StringIO()) as said, pytest.raises(SystemExit):
        parser.parse_args([verb, "--help"])
    return said.getvalue()


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_completion_is_a_script_the_shell_can_read(shell: str) -> None:
    program = shutil.which(shell)
    need(program is not None, shell)
    assert program is not None
    command = [sys.executable, "-m", "ksmtuned_py", "completion", shell]
    script = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=60, check=True).stdout
    assert "check the configuration" in script or shell == "bash"  # bash shows no descriptions
    done = subprocess.run([program, "-n"], input=script, capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr == ""


def complete(words: str, directory: Path) -> list[str]:
    """The words that bash offers after TAB. The script comes from the command itself."""
    script = f"""
eval "$({sys.executable} -m ksmtuned_py completion bash)"
COMP_LINE="{words}"; COMP_POINT=${{#COMP_LINE}}
COMP_WORDS=({words} ); [ "${{COMP_LINE% }}" = "$COMP_LINE" ] || COMP_WORDS+=("")
COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
$(complete -p ksmtuned-py | sed 's/.*-F \\([^ ]*\\).*/\\1/')
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=directory,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.stdout.split()


def test_bash_completes_commands_options_and_files(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").touch()
    (tmp_path / "mine.d").mkdir()
    assert complete("ksmtuned-py che", tmp_path) == ["check"]
    assert complete("ksmtuned-py check --sh", tmp_path) == ["--show"]
    assert "mine.toml" in complete("ksmtuned-py check mi", tmp_path)
    assert complete("ksmtuned-py check --config-dir mi", tmp_path) == ["mine.d"]
    assert complete("ksmtuned-py completion z", tmp_path) == ["zsh"]


def test_the_version_stands_once(generated: Path) -> None:
    """Everything else reads it there, or is made from it."""
    project = tomllib.loads((SOURCE_TREE / "pyproject.toml").read_text())
    assert "version" in project["project"]["dynamic"]
    assert project["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "ksmtuned_py.__version__"}
    built = [SOURCE_TREE / "packaging" / name for name in ("build.sh", "sbom.py", "stage.sh")]
    told = [SOURCE_TREE / "docs/install.md", *(SOURCE_TREE / "packaging/ansible").glob("*.*")]
    assert [path.name for path in (*built, *told) if __version__ in path.read_text()] == []


@pytest.mark.parametrize(
    "name",
    [
        "packaging/debian/changelog",
        "packaging/kubernetes/base/kustomization.yaml",
        "packaging/rpm/ksmtuned-py.spec",
    ],
)
def test_the_newest_entry_of_a_package_is_of_this_version(name: str, generated: Path) -> None:
    made = (generated / name).read_text()
    assert __version__ in made
    assert made == (SOURCE_TREE / name).read_text(), REGENERATE
