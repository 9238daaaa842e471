"""Tries something, and tells why it failed."""

from collections.abc import Callable

from ksmtuned_py.errors import KsmtunedError


def why_not(trial: Callable[[], None]) -> str | None:
    """Try something, and return why it failed; None when it did not. A bug is a reason, too, as it is in a tick."""
    try:
        trial()
    except KsmtunedError as error:
        return str(error)
    except Exception as error:  # a bug in the rehearsal must not end a daemon that runs well
        return f"{type(error).__name__}: {error}"
    return None
