"""The documentation's sentences stay short, and its links lead somewhere."""

import re
from functools import cache
from pathlib import Path

import pytest

from ksmtuned_py.cli.main import build_parser
from ksmtuned_py.config import Config
from ksmtuned_py.configfile.text import dotted, keys, sections
from tests.support.links import anchors, broken_links, missing_files, targets, verbs
from tests.support.prose import Bounds, cells, paragraphs, sentences, too_long

ROOT = Path(__file__).parent.parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "packaging").rglob("*.md")])
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
KEYS = {dotted((*path, name)) for path, section in sections(Config()) for name, *_ in keys(section)}
KEY = re.compile(
    rf"`((?:{'|'.join(sorted({key.partition('.')[0] for key in KEYS}))})\.(?!conf\b|service\b)[a-z_.]+)[` ]"
)
TEN = "one two three four five six seven eight nine ten"


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_a_page_is_within_its_bounds(page: Path) -> None:
    assert too_long(page.read_text()) == []


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_links_lead_somewhere(page: Path) -> None:
    assert broken_links(page) == []


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_files_that_are_named_are_there(page: Path) -> None:
    assert missing_files(page.read_text(), ROOT) == []


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_commands_are_there(page: Path) -> None:
    assert {verb for verb in verbs(page.read_text()) if not _is_verb(verb)} == set()


@cache
def _is_verb(name: str) -> bool:
    try:
        build_parser().parse_args([name, "--help"])
    except SystemExit as ended:
        return ended.code == 0
    return False


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_keys_of_the_configuration_are_there(page: Path) -> None:
    assert {name for name in re.findall(KEY, page.read_text()) if name not in KEYS} == set()


def test_a_key_that_is_gone_is_found() -> None:
    found = re.findall(KEY, '`daemon.tick_seconds` `daemon.tock` `scan.conf` `policy.name = "mom"` policy.no `a.b`')
    assert [name for name in found if name not in KEYS] == ["daemon.tock"]


def test_commands_are_found_in_code_alone() -> None:
    page = "ksmtuned-py does `ksmtuned-py run`.\n\n    ksmtuned-py check\n\n```\n$ ksmtuned-py why\n```\n"
    assert verbs(page) == {"run", "check", "why"}
    assert not _is_verb("dance")


def test_a_file_that_is_gone_is_found(tmp_path: Path) -> None:
    (tmp_path / "package" / "policy").mkdir(parents=True)
    (tmp_path / "package" / "policy" / "need.py").touch()
    assert missing_files("`policy/need.py` `need.py` `policy/` `policy/news.py` `peers/`", tmp_path) == [
        "policy/news.py",
        "peers/",
    ]


def test_the_pages_are_found() -> None:
    assert {"README.md", "CONTRIBUTING.md", "docs/index.md", "packaging/zram.md"} <= set(NAMES)


def test_every_page_is_in_the_index() -> None:
    index = ROOT / "docs" / "index.md"
    listed = {(index.parent / target.partition("#")[0]).resolve() for target in targets(index.read_text())}
    assert {page for page in PAGES if page.is_relative_to(ROOT / "docs")} - listed == {index}


def test_a_long_sentence_is_found() -> None:
    long = f"{TEN} {TEN} {TEN} {TEN}"
    assert too_long(f"{long}.") == ["sentence of 40 words: " + long[:60], "40.0 words a sentence"]


def test_sentences_that_are_long_on_average_are_found() -> None:
    assert too_long(f"{TEN} {TEN}. {TEN} {TEN}.") == ["20.0 words a sentence"]


def test_a_long_paragraph_is_found() -> None:
    assert too_long(f"{TEN}. " * 7) == [f"paragraph of 70 words: {TEN}. {TEN}"[:83]]


def test_a_table_is_no_place_to_hide_prose() -> None:
    assert too_long(f"| a | {TEN} {TEN} |", Bounds(cell=15)) == [f"cell of 20 words: {TEN} {TEN}"[:78]]


def test_code_headings_and_tables_are_no_prose() -> None:
    page = f"# {TEN}\n\n```\n{TEN}\n```\n\n    {TEN}\n    {TEN}\n\n| {TEN} |\n\nA `{TEN}` and [a link]({TEN}).\n"
    assert list(paragraphs(page)) == ["A code and a link."]
    assert cells(page) == ["", TEN, ""]


def test_an_item_of_a_list_is_a_paragraph() -> None:
    assert list(paragraphs("- one\n  two\n- three\n    - four\n1. five")) == ["one two", "three", "four", "five"]


def test_a_sentence_ends_where_a_reader_pauses() -> None:
    text = "It waits 1, 2, 4 ... 64 s. ksmd does not: The 0.5 % stay (yes.) So: two parts; three."
    expected = ["It waits 1, 2, 4 ... 64 s.", "ksmd does not:", "The 0.5 % stay (yes.", "So: two parts; three."]
    assert sentences(text) == expected


def test_a_broken_link_is_found(tmp_path: Path) -> None:
    page = tmp_path / "a.md"
    (tmp_path / "b.md").write_text("# One head\n\n# One head\n")
    page.write_text("[1](b.md#one-head-1) [2](b.md#two) [3](c.md) [4](#here) [5](https://example.org/)\n\n## Here\n")
    assert broken_links(page) == ["b.md#two", "c.md"]


def test_headings_are_named_as_code_hosts_name_them() -> None:
    assert anchors("## What could be saved: `ksmtuned-py scan`\n") == {"what-could-be-saved-ksmtuned-py-scan"}
