"""The commands of the documentation run, print what it says, and have the verbs and options that it says."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from ksmtuned_py.configfile.load import load
from ksmtuned_py.errors import KsmtunedError
from ksmtuned_py.simulate.scenario import parse_scenario
from tests.support.commands import Command, commands, mentions, refusal, unknown_words
from tests.support.commandstage import Stage, failed, stage
from tests.support.shapes import is_compared, shape, unsaid

ROOT = Path(__file__).parent.parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "packaging").glob("*.md")])
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
KSM = "/sys/kernel/mm/ksm/"
TOML = re.compile(r"^```toml\n(.*?)^```\s*$", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A captured host with a daemon at work on it."""
    with stage(tmp_path_factory.mktemp("host")) as found:
        yield found


def mistakes(text: str, host: Stage) -> list[str]:
    """Returns what is wrong with the commands of a page."""
    return [f"{command.line}: {said}" for command in commands(text) for said in _mistakes(command, host)]


def _mistakes(command: Command, host: Stage) -> list[str]:
    lacking = host.lacks(command)
    found = [
        *(f"say in tests/support/commands.py whether {program} can run" for program in command.unknown),
        *filter(None, (refusal(arguments) for arguments in command.ours)),
        *(f"no kernel has {file}" for file in lacking if file.startswith(KSM)),
    ]
    if found:
        return found
    if command.runs and not lacking:
        return list(_run(command, host))
    return [f"nothing says: {line}" for line in unsaid(command.output) if command.ours]


def _run(command: Command, host: Stage) -> Iterator[str]:
    done = host.run(command)
    if failed(command, done):
        yield f"exit code {done.returncode}: {done.stderr}"
    if command.output and not is_compared(command):
        yield from (f"nothing says: {line}" for line in unsaid(command.output))
    elif command.output and shape(command, command.output) != shape(command, done.stdout):
        yield f"prints now:\n{done.stdout}"


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_commands_do_what_the_page_says(page: Path, host: Stage) -> None:
    assert mistakes(page.read_text(), host) == []


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_options_in_a_sentence_are_there(page: Path) -> None:
    assert [word for arguments in mentions(page.read_text()) for word in unknown_words(arguments)] == []


def test_most_pages_of_the_manual_have_commands_that_run() -> None:
    running = {page.name for page in PAGES if any(command.runs for command in commands(page.read_text()))}
    assert {"README.md", "doctor.md", "faq.md", "install.md", "migration.md", "operating.md"} <= running


def refused(text: str, directory: Path) -> list[str]:
    """Returns the blocks of configuration that are refused; one with a title is a scenario of the simulation."""
    found = []
    for block in TOML.findall(text):
        file = directory / "block.toml"
        file.write_text(block)
        try:
            parse_scenario("block", block) if block.startswith("title") else load(file)
        except KsmtunedError as error:
            found.append(str(error))
    return found


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_configurations_are_accepted(page: Path, tmp_path: Path) -> None:
    assert refused(page.read_text(), tmp_path) == []


def test_a_configuration_that_is_wrong_is_found(tmp_path: Path) -> None:
    page = "```toml\n[policy]\nname = 'fixt'\n```\n\n```toml\ntitle = 'a'\nsecond = 3\n```\n"
    assert len(refused(page, tmp_path)) == 2


def console(line: str, output: str) -> str:
    """Returns a page with one command and what it printed."""
    return f"# A page\n\n```console\n$ {line}\n{output}\n```\n"


@pytest.mark.parametrize(
    ("page", "said"),
    [
        ("    ksmtuned-py dance\n", "invalid choice: 'dance'"),
        ("    sudo ksmtuned-py unmerge web --al\n", "unrecognized arguments: --al"),
        ("    ksmtuned-py check && ksmtuned-py pause --fro 1h\n", "required: --for"),
        ("    frobnicate\n", "whether frobnicate can run"),
        ("    cat /sys/kernel/mm/ksm/pages_shred\n", "no kernel has /sys/kernel/mm/ksm/pages_shred"),
        ("    grep -E '(' /proc/meminfo\n", "exit code 2"),
        ("    ksmtuned-py import-legacy /etc/ksmtuned-py/config.toml\n", "exit code 2"),
        (console("cat /sys/kernel/mm/ksm/run", "run is 1"), "prints now:"),
        (console("ksmtuned-py guests", "GUEST  PID  MEMRY"), "prints now:\nGUEST"),
        (console("ksmtuned-py status", "daemon\n  rest  so\n  saved  7 GiB\n  guest  1"), "prints now:\ndaemon"),
        (console("ksmtuned-py why", "The rules:\n  - need  calm\n\nWhat would change it:\n  a"), "prints now:\ndaemon"),
        (console("ksmtuned-py why | grep debt", "  - debt  the dept is 3 MiB"), "prints now:\n  - debt"),
        (
            console("ksmtuned-py doctor", "host: there is no swop: when [swap_off]"),
            "nothing says: host: there is no swop",
        ),
        (console("ksmtuned-py unmerge GUEST", "web: 3 GiB were given away"), "nothing says: web: 3 GiB"),
        (console("ksmtuned-py restore", "ksmtuned-py: error: 2 misteaks of yours"), "nothing says: ksmtuned-py"),
    ],
)
def test_a_mistake_is_found(page: str, said: str, host: Stage) -> None:
    found = mistakes(page, host)
    assert len(found) == 1
    assert said in found[0]


@pytest.mark.parametrize(
    "page",
    [
        "    cat /sys/kernel/mm/ksm/run; tr 'a' 'b' < /proc/PID/comm  # a comment\n",
        "    ksmtuned-py check --show > /etc/ksmtuned-py/config.d/all.toml && ksmtuned-py check\n",
        console(
            "ksmtuned-py pause --for 2h --reason backup",
            "paused until Sun 08:58:06: backup\nthe daemon heeds it: off: paused for 1 h 59 min more (backup)",
        ),
        console("ksmtuned-py unmerge GUEST", "db: 3 GiB to give back ..."),
        "    sudo systemctl reload ksmtuned-py\n",
    ],
)
def test_what_is_right_is_left_alone(page: str, host: Stage) -> None:
    assert mistakes(page, host) == []


def test_a_wrong_option_in_a_sentence_is_found() -> None:
    page = "Ask `ksmtuned-py doctor --al`, `ksmtuned-py dance` or `ksmtuned-py unmerge GUEST`.\n"
    assert [unknown_words(arguments) for arguments in mentions(page)] == [["--al"], ["dance"], []]
