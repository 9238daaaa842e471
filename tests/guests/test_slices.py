"""Limits that guests share are told with each guest, and those of one guest alone are not."""

from pathlib import Path

from ksmtuned_py.door import Door
from ksmtuned_py.guests.slices import Slices
from ksmtuned_py.model import Slice
from tests.support.trees import put

ROOT = "sys/fs/cgroup"
WEB, DB = "/machine.slice/web.scope", "/machine.slice/db.scope"


def limit(root: Path, cgroup: str, limit_bytes: int | str, used_bytes: int = 0, cache_bytes: int = 0) -> None:
    """Put a cgroup with a limit on its memory, some of which is taken by page cache."""
    put(root, f"{ROOT}{cgroup}/memory.max", f"{limit_bytes}\n")
    put(root, f"{ROOT}{cgroup}/memory.current", f"{used_bytes}\n")
    put(root, f"{ROOT}{cgroup}/memory.stat", f"active_file {cache_bytes}\ninactive_file 0\n")


def shared(slices: Slices, *cgroups: str) -> dict[str, Slice]:
    for each in cgroups:
        slices.read(each)
    return slices.shared(cgroups)


def test_a_slice_with_a_limit_is_that_of_all_guests_in_it(tmp_path: Path) -> None:
    limit(tmp_path, "/machine.slice", 1000, used_bytes=700, cache_bytes=100)
    slices = Slices(Door(str(tmp_path)))
    found = Slice("/machine.slice", 1000, 400)
    assert shared(slices, WEB, DB, "/user.slice/x.scope") == {WEB: found, DB: found}


def test_the_limit_of_one_guest_is_not_shared(tmp_path: Path) -> None:
    limit(tmp_path, WEB, 500, used_bytes=500)
    slices = Slices(Door(str(tmp_path)))
    assert shared(slices, WEB, DB) == {}
    assert shared(slices, WEB, WEB) == {WEB: Slice(WEB, 500, 0)}  # two processes of one unit


def test_of_slices_in_slices_the_fullest_counts(tmp_path: Path) -> None:
    limit(tmp_path, "/kubepods.slice", 1000, used_bytes=900)
    limit(tmp_path, "/kubepods.slice/burstable.slice", 500, used_bytes=100)
    slices = Slices(Door(str(tmp_path)))
    pods = [f"/kubepods.slice/burstable.slice/pod{number}.slice/c.scope" for number in (1, 2)]
    assert shared(slices, *pods)[pods[0]] == Slice("/kubepods.slice", 1000, 100)


def test_a_limit_that_is_lifted_is_none_any_more(tmp_path: Path) -> None:
    limit(tmp_path, "/machine.slice", 1000, used_bytes=900)
    slices = Slices(Door(str(tmp_path)))
    assert shared(slices, WEB, DB)
    limit(tmp_path, "/machine.slice", "max")
    assert shared(slices, WEB, DB) == {}
    limit(tmp_path, "/machine.slice", 0)
    assert shared(slices, WEB, DB)[WEB].available_bytes == 0
    assert slices.shared([WEB]) == {}
    assert slices.shared([]) == {}
