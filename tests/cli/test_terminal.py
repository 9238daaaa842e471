"""What is printed for programs is JSON in every locale, and no number in a file ends a verb."""

import json
import math

import pytest

from ksmtuned_py.cli.tell import clock_time
from ksmtuned_py.cli.terminal import print_json
from ksmtuned_py.units import human_seconds


def test_json_is_ascii_and_has_no_infinite_number(capsys: pytest.CaptureFixture[str]) -> None:
    content = {"name": "ü▁\U0001f600\x9b\u202e", "age": -math.inf, "share": math.nan, "none": None}
    print_json(content)
    text = capsys.readouterr().out
    assert text.isascii()
    assert json.loads(text, parse_constant=pytest.fail) == content | {"age": "-Infinity", "share": "NaN"}


def test_an_argument_that_is_no_text_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"guest": "web\udcff"})
    assert json.loads(capsys.readouterr().out) == {"guest": "web\udcff"}


@pytest.mark.parametrize("seconds", [math.nan, math.inf, -math.inf, 1e300])
def test_a_time_that_no_clock_shows(seconds: float) -> None:
    assert clock_time(seconds, "%H") == "?"


@pytest.mark.parametrize("seconds", [math.nan, math.inf, -math.inf])
def test_a_duration_that_is_no_number(seconds: float) -> None:
    assert human_seconds(seconds) == f"{seconds} s"
