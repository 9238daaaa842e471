"""Reads the commands of a Markdown page, and says which of them can run on a captured host.

Commands stand in blocks that are indented, or fenced as `console`; there, what is below a prompt is what it printed.
"""

import re
import shlex
from argparse import ArgumentParser, _SubParsersAction
from collections.abc import Iterator, Mapping
from contextlib import redirect_stderr
from dataclasses import dataclass
from functools import cache
from io import StringIO

from ksmtuned_py.cli.main import build_parser
from tests.support.prose import CODE, FENCE

OURS = "ksmtuned-py"
READERS = frozenset({"cat", "grep", "ls", "tr", "head"})
"""They only read; what they read below /proc and /sys is a captured host's."""
NOT_HERE: Mapping[str, str] = {
    "needs root": (
        "sudo modprobe mkswap swapon swapoff zramctl mkdir cp rm ln echo cd install mount for do done sed "
        "systemctl journalctl systemd-cgtop systemd-sysusers systemd-tmpfiles"
    ),
    "needs a network": (
        "apt apt-get dnf pip git podman docker buildah kubectl kustomize ansible ansible-playbook ansible-galaxy curl"
    ),
    "tells of the machine that it runs on": "uname free ps pgrep zgrep virsh tuned-adm systemd-analyze rpm dpkg",
    "sets up, builds or tests": (
        "packaging/bootstrap.sh packaging/build.sh packaging/lock.sh .venv/bin/python .venv/bin/sphinx-build python "
        "python3 /opt/ksmtuned-py/bin/pip promtool"
    ),
}
"""The programs that are not run, by why."""
NOT_RUN: Mapping[str, str] = {
    "run": "goes on until it is told to stop",
    "record": "goes on until it is told to stop",
    "capacity": "needs the record of six hours",
    "sketch": "reads the memory of real processes",
    "migrate-check": "reads the memory of real processes",
    "scan": "reads the memory of real processes",
    "unmerge": "gives back the memory of real processes",
    "huge": "copies the memory of real processes, once ksmd has come to a stop",
    "exec": "starts a program of the reader's",
    "demo": "steers the real KSM",
    "fleet": "asks a Prometheus of the reader's",
    "restore": "puts back what a daemon left that was killed",
}
"""Our verbs that are not run, and why. Their options are checked all the same."""
PLACEHOLDER = re.compile(r"\b(?!(?:PID|GUEST)\b)[A-Z]{3,}\b")
"""A word that the reader replaces. The captured host has a PID and a GUEST."""
WITHIN = re.compile(r"\$\(([^()]*)\)")
"""A command whose output is a word of another."""
CONSOLE = re.compile(r"^```console\n(.*?)^```\s*$", re.MULTILINE | re.DOTALL)


CONTINUED = re.compile(r" *\\\n *")
"""The end of a line whose command goes on in the next."""


@dataclass(frozen=True)
class Command:
    """One command of a page."""

    line: str
    output: str = ""
    """What it printed, as the page has it; '' where the page does not say."""

    @property
    def programs(self) -> list[list[str]]:
        """Returns the words of each program that it starts, without redirections and assignments."""
        found: list[list[str]] = [[]]
        before = ""
        inner = WITHIN.findall(self.line)
        for word in _words(" ; ".join([WITHIN.sub("_", self.line), *inner])):
            if word and set(word) <= set("|&;()"):
                found.append([])
            elif not {before, word} & {"<", ">", ">>"} and (found[-1] or not re.match(r"\w+=", word)):
                found[-1] += shlex.split(word)
            before = word
        return [words for words in found if words]

    @property
    def ours(self) -> list[list[str]]:
        """Returns the arguments of each verb of ours in it."""
        plain = (words[words[0] == "sudo" :] for words in self.programs)
        return [words[1:] for words in plain if words[0].endswith(OURS)]

    @property
    def unknown(self) -> list[str]:
        """Returns the programs of which nobody has said whether they can run here."""
        known = {OURS, *READERS, *" ".join(NOT_HERE.values()).split()}
        return [words[0] for words in self.programs if words[0] not in known]

    @property
    def runs(self) -> bool:
        """Whether it can run on a captured host, but for the files that it reads."""
        verbs_run = all(arguments[:1] != [verb] for arguments in self.ours for verb in NOT_RUN)
        programs_run = all(words[0] in {OURS, *READERS} for words in self.programs)
        return verbs_run and programs_run and not PLACEHOLDER.search(self.line)


def _words(line: str) -> list[str]:
    """Returns the words as they stand; a quoted bar is no pipe."""
    lexer = shlex.shlex(line, posix=False, punctuation_chars=True)
    lexer.whitespace_split = True
    return list(lexer)


def commands(text: str) -> Iterator[Command]:
    """Returns the commands of a page: those with what they printed first, then those of indented blocks."""
    for block in CONSOLE.findall(text):
        prompt = block[:2]  # its first one: an output may have lines with a hash
        for prompted in f"\n{block}".split(f"\n{prompt}")[1:]:
            line, _, output = prompted.partition("\n")
            yield Command(line, output.strip("\n"))
    for line in CONTINUED.sub(" ", FENCE.sub("", text)).splitlines():
        if line.startswith("    ") and line.strip():
            yield Command(line.strip())


def mentions(text: str) -> Iterator[list[str]]:
    """Returns the arguments of each verb of ours that is named within a line of prose or of a table."""
    for code in CODE.findall(FENCE.sub("", text)):
        words = code.strip("`").split()
        if words[:1] == [OURS]:
            yield words[1:]


def refusal(arguments: list[str]) -> str:
    """Returns what our parser has against these arguments; '' when nothing."""
    said = StringIO()
    with redirect_stderr(said):
        try:
            _parser().parse_args(arguments)
        except SystemExit as ended:
            return "" if ended.code == 0 else said.getvalue().splitlines()[-1]
    return ""


def unknown_words(arguments: list[str]) -> list[str]:
    """Returns the verb, when there is none like it, or the options that it does not have."""
    verb, *others = arguments or [""]
    parsers = verb_parsers()
    if verb not in parsers:
        return [] if verb.startswith("--") else [verb]
    options = parsers[verb]._option_string_actions
    return [word for word in others if word.startswith("--") and word != "--" and word.partition("=")[0] not in options]


@cache
def _parser() -> ArgumentParser:
    """Our parser; it is made once, for the pages have hundreds of commands."""
    return build_parser()


@cache
def verb_parsers() -> dict[str, ArgumentParser]:
    """Returns the parser of each verb."""
    actions = [action for action in _parser()._actions if isinstance(action, _SubParsersAction)]
    return dict(actions[0].choices)
