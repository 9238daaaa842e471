"""The child that unshares a guest's pages: whose program it is, and what becomes of it."""

import os
from contextlib import closing
from pathlib import Path

import pytest

from ksmtuned_py.undo.unsharing import NotUnshared, Unsharing
from tests.support.snapshots import guest


def test_its_program_is_not_looked_for_in_the_directory_we_are_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ksmtuned_py/undo").mkdir(parents=True)
    (tmp_path / "ksmtuned_py/__init__.py").touch()
    (tmp_path / "ksmtuned_py/undo/unshare.py").write_text("import pathlib; pathlib.Path('owned').touch()\n")
    monkeypatch.chdir(tmp_path)
    gone = guest("web", os.getpid())  # nobody with this PID has begun when the guest has
    with closing(Unsharing(gone)) as unsharing, pytest.raises(NotUnshared, match="No such process"):
        unsharing.merged_pages()
    assert not (tmp_path / "owned").exists()
