"""Curves, bars and texts have the width that they are to have."""

import pytest
from rich.cells import cell_len
from rich.text import Text

from ksmtuned_py.cli.live.past import MOST_READINGS, Past, resampled
from ksmtuned_py.cli.live.strokes import bar, curve, fitted, in_ascii, tidy, wrapped
from tests.support.reports import FULL, report


def test_a_curve_reaches_its_top_and_shows_little_as_little() -> None:
    assert curve([0, 1, 2, 4], 10, 1.0) == "▁▂▄▇"
    assert curve([0, 1], 10, 100.0) == "▁▁"
    assert curve(range(100), 4, 1.0) == "▂▄▆▇"
    assert curve([], 4, 1.0) == ""


def test_no_peak_is_lost_in_a_narrow_curve() -> None:
    assert max(resampled([0, 0, 0, 9, 0, 0, 0], 2)) == 9
    assert len(resampled(range(1000), 7)) == 7


@pytest.mark.parametrize(("share", "full"), [(-1, 0), (0, 0), (0.5, 5), (1, 10), (7, 10)])
def test_a_bar_is_as_long_as_its_share(share: float, full: int) -> None:
    assert bar(share, 10, "red").plain == "━" * full + "─" * (10 - full)


@pytest.mark.parametrize("text", ["plain", "データベース", "e\u0301" * 9, ""])
@pytest.mark.parametrize("width", [0, 1, 2, 5, 30])
def test_a_text_is_made_as_wide_as_asked(text: str, width: int) -> None:
    assert cell_len(fitted(text, width)) == width
    assert all(cell_len(line) <= max(1, width) for line in wrapped(text, max(1, width), 3))


def test_a_sentence_is_broken_between_words_and_the_last_line_is_cut() -> None:
    assert wrapped("one two three four", 9, 2) == ["one two", "three fo…"]
    assert wrapped("one two three four", 9, 9) == ["one two", "three", "four"]
    assert wrapped("unbreakable", 4, 9) == ["unb…"]


def test_combined_characters_are_composed_and_others_without_width_are_dropped() -> None:
    assert tidy("cafe\u0301") == "café"
    assert tidy("a\u0336b") == "ab"


def test_ascii_is_as_wide_and_keeps_its_styles() -> None:
    line = Text.assemble(("▁▇ ", "cyan"), ("データ", "red"), " ▼…")
    plain = in_ascii(line)
    assert plain.plain == "_* ?????? v~"
    assert plain.cell_len == line.cell_len
    assert [plain.plain[span.start : span.end] for span in plain.spans] == ["_* ", "??????"]


def past_of(looks: int) -> Past:
    """What is remembered after so many looks."""
    past = Past()
    for number in range(looks):
        past = past.after(report(after_seconds=2.0 * number, scanner_cpu_seconds=float(number)).snapshot)
    return past


def test_the_past_is_bounded_and_goes_back_to_the_beginning() -> None:
    past = past_of(3000)
    assert MOST_READINGS // 3 < len(past.readings) <= MOST_READINGS
    assert past.readings[0].monotonic_seconds == FULL.clock.monotonic_seconds
    assert past.readings[-1].monotonic_seconds > FULL.clock.monotonic_seconds + 5900
    steps = {b.monotonic_seconds - a.monotonic_seconds for a, b in zip(past.readings, past.readings[1:], strict=False)}
    assert max(steps) <= 3 * min(steps)


def test_a_rate_is_that_between_two_looks() -> None:
    assert past_of(1).curve(lambda reading: reading.scanner_share) == []
    assert past_of(3).curve(lambda reading: reading.scanner_share) == [0.5, 0.5]


def test_the_same_look_counts_once() -> None:
    now = report().snapshot
    assert len(Past().after(now).after(now).readings) == 1
