"""Skips tests that need more than any laptop has, and says why; where CI=true they fail instead."""

import os

import pytest


def need(there: bool, what: str) -> None:
    """Goes on when it is there; else skips the test, or fails it where everything has to be there (CI=true)."""
    if there:
        return
    if os.environ.get("CI") == "true":
        pytest.fail(f"CI must have it: {what}")
    pytest.skip(f"needs {what}")
