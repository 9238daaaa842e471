"""Keys are read from what terminals send, in whatever portions it comes."""

import pytest

from ksmtuned_py.cli.live.keys import LONGEST, KeyReader

SENT = b"q\x1b[A\x1bOB\x1b[5~\x1b[1;5C\x7f\r\x1b[200~\xc3\xa9"
READ = ["q", "up", "down", "page up", "unknown", "backspace", "enter", "unknown", "é"]


@pytest.mark.parametrize("portion", [1, 2, 3, 5, 100])
def test_keys_come_in_any_portions(portion: int) -> None:
    keys, read = KeyReader(), []
    for begin in range(0, len(SENT), portion):
        read += keys.after(SENT[begin : begin + portion])
    assert read == READ
    assert not keys.is_within


def test_esc_alone_is_a_key_when_nothing_more_comes() -> None:
    keys = KeyReader()
    assert keys.after(b"\x1b") == []
    assert keys.is_within
    assert keys.ended() == ["escape"]
    assert keys.ended() == []
    assert keys.after(b"\x1bq") == ["escape", "q"]


def test_a_sequence_without_end_is_given_up() -> None:
    keys = KeyReader()
    assert keys.after(b"\x1b[" + b"1" * LONGEST) == ["unknown", "1", "1"]
    assert not keys.is_within


def test_what_is_no_utf_8_is_no_command() -> None:
    assert KeyReader().after(b"\xffq") == ["\ufffd", "q"]
