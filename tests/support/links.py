"""Reads what a Markdown page says of this repository: where its links go, and which files and commands it names."""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tests.support.prose import CODE, FENCE, LINK

TARGET = re.compile(r"\]\(([^)\s]+)[^)]*\)")
HEADING = re.compile(r"^#+\s+(.*?)\s*$", re.MULTILINE)
FILE = re.compile(r"`([\w.-]+(?:/[\w.-]+)*\.(?:py|sh)|(?:[\w.-]+/)+)`")
"""A program or a folder of this repository, as pages write it."""
COMMAND = re.compile(r"ksmtuned-py ([a-z][a-z-]+)")
ELSEWHERE = ("http:", "https:", "mailto:")


def broken_links(page: Path) -> list[str]:
    """Returns the targets that a page names and that are not there."""
    return [target for target in targets(page.read_text()) if not _resolves(page, target)]


def targets(text: str) -> Iterator[str]:
    """Returns what the links of a page point to within the repository."""
    for target in TARGET.findall(CODE.sub("", FENCE.sub("", text))):
        if not target.startswith(ELSEWHERE):
            yield target


def _resolves(page: Path, target: str) -> bool:
    """Whether the file is there, and the heading in it."""
    name, _, anchor = target.partition("#")
    file = page.parent / name if name else page
    return file.exists() and (not anchor or anchor in anchors(file.read_text()))


def anchors(text: str) -> set[str]:
    """Returns the names that a page's headings have in links, as code hosts make them."""
    seen: Counter[str] = Counter()
    found = set()
    for heading in HEADING.findall(FENCE.sub("", text)):
        name = _slug(LINK.sub(r"\1", heading))
        found.add(f"{name}-{seen[name]}" if seen[name] else name)
        seen[name] += 1
    return found


def _slug(heading: str) -> str:
    """Returns a heading in small letters, without punctuation, and with dashes for its spaces."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def missing_files(text: str, root: Path) -> list[str]:
    """Returns the programs and folders that a page names and that are nowhere in the repository, below any folder."""
    named = FILE.findall(FENCE.sub("", text))
    return [name for name in named if not (root / name).exists() and not _is_below(name, root)]


def _is_below(name: str, root: Path) -> bool:
    folders = (folder for folder in root.iterdir() if folder.is_dir() and not folder.name.startswith("."))
    return any(found for folder in folders for found in folder.rglob(name))


def verbs(text: str) -> set[str]:
    """Returns the verbs of ours that a page tells to run, in code of any kind."""
    blocks = [found[0] for found in FENCE.finditer(text)]
    indented = [line for line in FENCE.sub("", text).splitlines() if line.startswith("    ")]
    return set(COMMAND.findall("\n".join([*blocks, *indented, *CODE.findall(FENCE.sub("", text))])))
