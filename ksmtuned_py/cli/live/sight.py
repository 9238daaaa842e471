"""Holds what a live screen has to show. Pure."""

from dataclasses import dataclass

from ksmtuned_py.cli.live.past import Past
from ksmtuned_py.publish.statusfile import Status


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """All that a picture is made of, but for what the keys did."""

    status: Status
    host: str
    headline: str
    """Who says it, and how old it is."""
    headline_style: str
    past: Past
    trouble: str | None = None
    """Why this is older than it should be; None when it is not."""
    more: tuple[tuple[str, str, float], ...] = ()
    """Rows of whoever shows it, each with its name and the share that its bar has."""
