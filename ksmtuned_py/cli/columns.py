"""Aligns the cells of a table on a terminal, where a character may take two places, or none. Pure."""

from collections.abc import Container, Iterator, Sequence


def padded(text: str, width: int, *, left: bool) -> str:
    """A cell as wide as its column; texts stand at the left, and numbers at the right."""
    from rich.cells import cell_len

    gap = " " * (width - cell_len(text))
    return text + gap if left else gap + text


def aligned(rows: Sequence[Sequence[str]], texts: Container[str]) -> Iterator[str]:
    """The lines of a table. The first row has the headers, and `texts` those of the columns that are texts."""
    from rich.cells import cell_len

    widths = [max(map(cell_len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = zip(rows[0], row, widths, strict=True)
        yield "  ".join(padded(cell, width, left=header in texts) for header, cell, width in cells).rstrip()
