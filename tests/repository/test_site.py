"""The documentation's site is built without a warning, leads nowhere in vain, and fetches nothing from elsewhere."""

from pathlib import Path

import pytest

from tests.support.once import made_once, place_of_run
from tests.support.sitepages import Page, build, dead_ends, loaded_from_elsewhere, read_pages, small_tree

ROOT = Path(__file__).parent.parent.parent
INDEX = "# All\n\nThe [readme](../README.md).\n\n## To use it\n\n[a](a.md)\n"
PAGES = {
    "README.md": "# Name\n\n[index](docs/index.md)\n",
    "docs/index.md": INDEX,
    "docs/a.md": "# A\n\n[b](#here)\n\n## Here\n",
}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site as it is built from this checkout."""

    def make(out: Path) -> None:
        done = build(ROOT, out)
        assert (done.returncode, done.stderr) == (0, "")

    return made_once(place_of_run(tmp_path_factory, "site"), make)


def test_every_page_is_in_it_and_in_its_navigation(site: Path) -> None:
    names = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "packaging").glob("*.md")]
    wanted = {site / name.relative_to(ROOT).with_suffix(".html") for name in names}
    assert {page for page in wanted if not page.exists()} == set()
    index = site / "docs" / "index.html"
    listed = {(index.parent / link.partition("#")[0]).resolve() for link in Page(index).links}
    assert wanted - listed <= {index}


def test_links_and_anchors_lead_somewhere(site: Path) -> None:
    assert list(dead_ends(read_pages(site))) == []


def test_nothing_is_fetched_from_elsewhere(site: Path) -> None:
    assert list(loaded_from_elsewhere(site, read_pages(site))) == []


def test_it_begins_at_the_index(site: Path) -> None:
    assert Page(site / "index.html").links == ["docs/index.html"]


def test_mistakes_end_the_build(tmp_path: Path) -> None:
    tree = small_tree(ROOT, tmp_path / "tree", PAGES)
    assert build(tree, tmp_path / "out").returncode == 0
    (tree / "docs" / "a.md").write_text("# A\n\n[1](#t1) [2](t2.md) [3](index.md#t3) [4](../t4.py)\n\n### Too deep\n")
    (tree / "docs" / "b.md").write_text("# B\n")
    done = build(tree, tmp_path / "out")
    assert done.returncode == 1
    missing = [f"target not found: '{target}'" for target in ("t1", "t2.md", "../t4.py")]
    others = ["local id not found in doc 'docs/index': 't3'", "Non-consecutive header level", "b.md: WARNING: document"]
    assert [said for said in (*missing, *others) if said not in done.stderr] == []


def test_what_a_page_loads_from_elsewhere_is_found(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text('<script src="https://example.org/a.js"></script><a href="b.html">b</a><p id="c">')
    (tmp_path / "a.css").write_text('@import "a"; p { background: url(https://example.org/b.png) }')
    pages = read_pages(tmp_path)
    assert list(loaded_from_elsewhere(tmp_path, pages)) == [
        "a.html: https://example.org/a.js",
        "a.css: @import",
        "a.css: url(http",
    ]
    assert list(dead_ends(pages)) == ["a.html: b.html"]
