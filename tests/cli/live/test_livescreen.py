"""Whether a terminal has more than ASCII is told by its kind and the locale."""

import pytest

from ksmtuned_py.cli.live.livescreen import has_only_ascii


@pytest.mark.parametrize(
    ("environment", "only_ascii"),
    [
        ({"TERM": "xterm", "LANG": "de_DE.UTF-8"}, False),
        ({"TERM": "linux", "LANG": "de_DE.UTF-8"}, True),
        ({"TERM": "xterm", "LANG": "en_US.utf8", "LC_ALL": "C"}, True),
        ({"TERM": "xterm", "LC_CTYPE": "C.UTF-8"}, True),  # Python's own doing in a C locale
        ({"TERM": "xterm", "LC_CTYPE": "de_DE.UTF-8"}, False),
        ({"TERM": "xterm", "LC_ALL": "C.UTF-8"}, False),
        ({"TERM": "xterm"}, True),
    ],
)
def test_curves_are_drawn_where_the_terminal_has_them(environment: dict[str, str], only_ascii: bool) -> None:
    assert has_only_ascii(environment) is only_ascii
