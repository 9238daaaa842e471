"""Builds the documentation's site, and reads its pages as a browser does: what they load, and where they lead."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

SITE = Path("packaging") / "site"
LOADED = {"link": "href", "script": "src", "img": "src", "iframe": "src", "source": "src", "object": "data"}
"""The tags of what a browser fetches by itself, and where each names it."""


def build(tree: Path, out: Path) -> subprocess.CompletedProcess[str]:
    """Builds the site of a tree as CONTRIBUTING.md says; a warning is an error."""
    options = ["--quiet", "--fail-on-warning", "--keep-going", "-c", str(SITE)]
    command = [sys.executable, "-m", "sphinx", *options, ".", str(out)]
    return subprocess.run(command, cwd=tree, capture_output=True, text=True, check=False, timeout=120)


def small_tree(root: Path, directory: Path, pages: dict[str, str]) -> Path:
    """Returns a tree with these pages and the site's own files."""
    shutil.copytree(root / SITE, directory / SITE)
    for name, text in pages.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(text)
    return directory


@dataclass
class Page(HTMLParser):
    """One page of a site."""

    path: Path
    anchors: set[str] = field(default_factory=set)
    links: list[str] = field(default_factory=list)
    loads: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        self.feed(self.path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Notes what the tag names, links to or loads."""
        values = {name: value for name, value in attrs if value is not None}
        if "id" in values:
            self.anchors.add(values["id"])
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        if LOADED.get(tag) in values:
            self.loads.append(values[LOADED[tag]])


def read_pages(site: Path) -> dict[Path, Page]:
    """Returns every page by its path."""
    return {path.resolve(): Page(path) for path in site.rglob("*.html")}


def dead_ends(pages: dict[Path, Page]) -> Iterator[str]:
    """Returns each link and each thing loaded that is no file of the site, or an anchor that its page lacks."""
    for path, page in pages.items():
        for address in [*page.links, *page.loads]:
            parts = urlsplit(address)
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            gone = not target.exists() or (parts.fragment and unquote(parts.fragment) not in pages[target].anchors)
            if not parts.scheme and gone:
                yield f"{path.name}: {address}"


def loaded_from_elsewhere(site: Path, pages: dict[Path, Page]) -> Iterator[str]:
    """Returns what a browser would fetch from another host to show the site."""
    for path, page in pages.items():
        yield from (f"{path.name}: {address}" for address in page.loads if urlsplit(address).netloc)
    for sheet in site.rglob("*.css"):
        text = sheet.read_text()
        yield from (f"{sheet.name}: {word}" for word in ("@import", "url(http", "url(//", 'url("http') if word in text)
