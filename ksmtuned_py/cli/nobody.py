"""Gives up root's rights, in processes that stand for guests. It imports nothing more, so that they begin at once."""

import os

_NOBODY = 65534


def become_nobody() -> None:
    """Give up root's rights if we have them, because the scan backend refuses a guest with such rights."""
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(_NOBODY, _NOBODY, _NOBODY)
        os.setresuid(_NOBODY, _NOBODY, _NOBODY)
