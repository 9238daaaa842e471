"""Measures the prose of a Markdown page: words per sentence, per paragraph and per cell of a table."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

FENCE = re.compile(r"^(```|~~~).*?^\1\s*$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"!?\[([^\]]*)\]\([^)]*\)")
CODE = re.compile(r"`[^`]*`")
ITEM = re.compile(r"^\s*([-*]|\d+\.)\s+")
CELL_END = re.compile(r"(?<!\\)\|")
SENTENCE_END = re.compile(r"(?<=[^.][.!?])[)\"*_]*\s+|(?<=[:;])[*_]*\s+(?=[A-Z])")
"""A colon or a semicolon ends a sentence only before a capital letter; the dots of 1, 2, 4 ... 64 end none."""
INDENT = ("    ", "\t")


@dataclass(frozen=True)
class Bounds:
    """How long a page's sentences, paragraphs and cells may be, in words."""

    mean_sentence: float = 15
    sentence: int = 30
    paragraph: int = 60
    cell: int = 40


def too_long(text: str, most: Bounds = Bounds()) -> list[str]:
    """Returns what a page has that is longer than its bounds."""
    whole = list(paragraphs(text))
    single = [sentence for paragraph in whole for sentence in sentences(paragraph)]
    found = [
        *_above("sentence", single, most.sentence),
        *_above("paragraph", whole, most.paragraph),
        *_above("cell", cells(text), most.cell),
    ]
    mean = mean_words(single)
    return [*found, f"{mean:.1f} words a sentence"] if mean > most.mean_sentence else found


def _above(kind: str, texts: list[str], most_words: int) -> list[str]:
    """Returns each of the texts with more words than that, by its beginning."""
    return [f"{kind} of {words(each)} words: {each[:60]}" for each in texts if words(each) > most_words]


def mean_words(texts: list[str]) -> float:
    """Returns the mean length of some texts in words; 0 when there are none."""
    return sum(map(words, texts)) / max(1, len(texts))


def words(text: str) -> int:
    """Returns the number of words with a letter or a digit in them."""
    return sum(any(character.isalnum() for character in word) for word in text.split())


def sentences(paragraph: str) -> list[str]:
    """Splits a paragraph into sentences."""
    return [sentence for sentence in SENTENCE_END.split(paragraph) if words(sentence)]


def plain(text: str) -> str:
    """Returns a page without its blocks of code; code within a line counts as one word, and a link as its text."""
    return CODE.sub("code", LINK.sub(r"\1", FENCE.sub("\n\n", text)))


def paragraphs(text: str) -> Iterator[str]:
    """Returns each paragraph and each item of a list as one line; headings, tables, code and HTML are none."""
    lines: list[str] = []
    for line in [*plain(text).splitlines(), ""]:
        other = line.startswith(("#", "|", "<")) or (not lines and line.startswith(INDENT))
        if lines and (other or not line.strip() or ITEM.match(line)):
            yield " ".join(lines)
            lines = []
        if line.strip() and not other:
            lines.append(ITEM.sub("", line).strip())


def cells(text: str) -> list[str]:
    """Returns the cells of all tables."""
    rows = [line for line in plain(text).splitlines() if line.startswith("|")]
    return [cell.strip() for row in rows for cell in CELL_END.split(row)]
