"""How the kernel makes huge pages is read in every shape it comes in."""

from pathlib import Path

import pytest

from ksmtuned_py.door import Door
from ksmtuned_py.guests.hugepages import HugePages, read_huge_pages
from ksmtuned_py.model import THP_DIRECTORY
from ksmtuned_py.undo.hugeback import kernel_refusal
from ksmtuned_py.units import MIB
from tests.support.trees import put

SIZE = f"{2 * MIB}\n"
ALWAYS, MADVISE, NEVER = "[always] madvise never", "always [madvise] never", "always madvise [never]"


def door(root: Path, **files: str) -> Door:
    """A tree with these settings, by their names with __ for /."""
    for name, text in files.items():
        put(root, f"{THP_DIRECTORY}/{name.replace('__', '/').replace('_2048', '-2048')}", f"{text}\n")
    return Door(str(root))


def test_a_kernel_without_them_has_none(tmp_path: Path) -> None:
    assert read_huge_pages(Door(str(tmp_path))) == HugePages()
    assert kernel_refusal(Door(str(tmp_path))) == "this kernel has no transparent huge pages"


@pytest.mark.parametrize(
    ("all_sizes", "own", "enabled"),
    [
        (MADVISE, None, "madvise"),
        (ALWAYS, "always [inherit] madvise never", "always"),
        (ALWAYS, "always inherit madvise [never]", "never"),
        (NEVER, "always inherit [madvise] never", "madvise"),
    ],
)
def test_the_switch_of_their_size_counts(tmp_path: Path, all_sizes: str, own: str | None, enabled: str) -> None:
    files = {"hpage_pmd_size": SIZE, "enabled": all_sizes, "khugepaged__max_ptes_shared": "256"}
    if own is not None:
        files["hugepages_2048kB__enabled"] = own
    found = read_huge_pages(door(tmp_path, **files))
    assert found == HugePages(enabled=enabled, size_bytes=2 * MIB, max_ptes_shared=256)


def test_where_they_are_off_nothing_is_given_back(tmp_path: Path) -> None:
    refusal = kernel_refusal(door(tmp_path, hpage_pmd_size=SIZE, enabled=NEVER))
    assert refusal == f"{tmp_path}/{THP_DIRECTORY}/enabled is never"
    assert kernel_refusal(door(tmp_path, enabled=MADVISE)) is None
