"""Tables keep their columns on a terminal, whatever their texts are made of."""

from rich.cells import cell_len

from ksmtuned_py.cli.columns import aligned


def test_a_wide_name_does_not_move_what_is_right_of_it() -> None:
    """A character may take two places, or none, as one that is put on top of another."""
    rows = [("GUEST", "SAVED", "WHY"), ("数据库", "12 GiB", "yes"), ("e\u0301", "1 B", ""), ("web", "?", "no")]
    lines = list(aligned(rows, {"GUEST", "WHY"}))
    assert lines[0] == "GUEST    SAVED  WHY"
    ends = {cell_len(line[: line.index(row[1]) + len(row[1])]) for line, row in zip(lines, rows, strict=True)}
    assert ends == {14}
    assert not any(line.endswith(" ") for line in lines)
