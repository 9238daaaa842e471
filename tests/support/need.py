"""Tests that need more than any laptop has: there they skip and say why; where CI=true they fail."""

import os

import pytest


def need(there: bool, what: str) -> None:
    """Goes on when it is there; skips the test otherwise, or fails it where everything has to be there (CI=true)."""
    if there:
        return
    if os.environ.get("CI") == "true":
        pytest.fail(f"CI must have it: {what}")
    pytest.skip(f"needs {what}")
