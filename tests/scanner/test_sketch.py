"""Sketches of two hosts tell what a guest would share, fit into 8 KiB, and tell nothing else."""

import json
import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ksmtuned_py.errors import KsmtunedError, Unreadable
from ksmtuned_py.scanner import sketchfile
from ksmtuned_py.scanner.pages import LEAST, UNREAD, ZERO, Prints
from ksmtuned_py.scanner.sketch import MOST_CONTENTS, VALUE_BYTES, GuestSketch, HostSketch, key_id, shared, value
from ksmtuned_py.scanner.sketchfile import NoKey, OtherKey, read_key
from ksmtuned_py.scanner.sketching import Sampler

KEY, OTHER_KEY = b"k" * 32, b"o" * 32
CONTENTS = np.random.default_rng(1).integers(LEAST, 2**63, 400_000).astype(np.uint64)


def sketched(found: Prints, key: bytes = KEY, name: str = "web") -> GuestSketch:
    sampler = Sampler(key)
    for part in np.array_split(found, max(1, len(found) // 1000)):
        sampler.add(part)
    return sampler.sketch(name)


def host_of(*guests: GuestSketch, key: bytes = KEY) -> HostSketch:
    return HostSketch(
        host="there", unix_seconds=1.0, key_id=key_id(key), page_bytes=4096, room_bytes=2**30, guests=guests
    )


@pytest.mark.parametrize("pages", [0, 1, 500, 5_000, 300_000])
def test_a_sketch_fits_into_8_kib_whatever_the_size(pages: int) -> None:
    sketch = sketched(CONTENTS[:pages])
    values = sketch.at(0)
    assert len(values) * VALUE_BYTES <= 8192
    assert len(values) == min(pages, len(values)) >= min(pages, MOST_CONTENTS // 3)
    assert sketch.filled_pages == pages
    assert sketch.distinct_pages == pytest.approx(pages, rel=0.01)


@pytest.mark.parametrize(
    ("size", "there", "common"), [(5_000, 8_000, 3_000), (20_000, 200_000, 8_000), (200_000, 30_000, 20_000)]
)
def test_what_is_there_too_is_found_also_in_guests_of_other_sizes(size: int, there: int, common: int) -> None:
    guest = sketched(CONTENTS[:size])
    other = sketched(CONTENTS[size - common : size - common + there])
    found = shared(guest, [other])
    assert found.low <= common <= found.high
    assert found.pages == pytest.approx(common, abs=0.12 * size)


def test_pages_of_zeros_and_copies_within_the_guest_count() -> None:
    pages = np.concatenate(
        (np.repeat(CONTENTS[:3000], 3), np.full(700, ZERO, np.uint64), np.full(9, UNREAD, np.uint64))
    )
    found = shared(sketched(pages), [])
    assert found.pages == pytest.approx(700 + 6000, rel=0.01)


def test_what_is_with_several_guests_there_counts_once() -> None:
    guest = sketched(CONTENTS[:6000])
    others = [sketched(CONTENTS[3000:9000]), sketched(CONTENTS[2000:8000])]
    assert shared(guest, others).pages == pytest.approx(4000, rel=0.06)


def test_without_the_key_nothing_can_be_compared_or_looked_up() -> None:
    ours, theirs = sketched(CONTENTS[:5000]), sketched(CONTENTS[:5000], OTHER_KEY)
    assert ours.at(0) & theirs.at(0) == set()
    assert value(KEY, 7) != value(OTHER_KEY, 7)
    text = json.dumps(asdict(ours))
    assert not any(f"{int(content):016x}"[: 2 * VALUE_BYTES] in text for content in CONTENTS[:5000])


def test_who_does_not_know_the_key_cannot_choose_to_be_sampled() -> None:
    low = np.arange(LEAST, 50_000).astype(np.uint64)
    assert sketched(low).distinct_pages == pytest.approx(len(low), rel=0.02)


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "key"
    path.write_bytes(os.urandom(32))
    path.chmod(0o600)
    return path


def test_a_key_is_its_owners_alone_and_long_enough(key: Path) -> None:
    assert len(read_key(key)) == 32
    key.chmod(0o640)
    with pytest.raises(NoKey, match="others than its owner may read it"):
        read_key(key)
    key.chmod(0o600)
    key.write_bytes(b"short")
    with pytest.raises(NoKey, match="it has 5 bytes"):
        read_key(key)
    with pytest.raises(NoKey, match="No such file"):
        read_key(key.with_name("none"))


def test_what_was_written_is_read_back_with_the_same_key(tmp_path: Path) -> None:
    host = host_of(sketched(CONTENTS[:5000]), sketched(CONTENTS[:10]))
    sketchfile.write(tmp_path / "host", host)
    assert sketchfile.read(tmp_path / "host", key_id(KEY)) == host
    assert (tmp_path / "host").stat().st_mode & 0o777 == 0o600
    with pytest.raises(OtherKey):
        sketchfile.read(tmp_path / "host", key_id(OTHER_KEY))


def spoiled(**changes: Any) -> dict[str, Any]:
    guest = {**asdict(sketched(CONTENTS[:50])), **changes}
    return {**asdict(host_of()), "guests": [guest]}


@pytest.mark.parametrize(
    "content",
    [
        [],
        {},
        {"schema": 2},
        {"schema": 1},
        {**asdict(host_of()), "page_bytes": 65536},
        spoiled(zero_pages=-1),
        spoiled(distinct_pages=51),
        spoiled(contents={0: ["00" * VALUE_BYTES] * (MOST_CONTENTS + 1)}),
        spoiled(contents={0: ["x"]}),
        spoiled(zeros=3, contents={2: ["00" * VALUE_BYTES]}),
    ],
)
def test_a_file_that_nobody_could_have_written_is_an_error(tmp_path: Path, content: object) -> None:
    path = tmp_path / "host"
    path.write_text(json.dumps(content))
    with pytest.raises(Unreadable, match=str(path)):
        sketchfile.read(path, key_id(KEY))


def test_names_of_others_are_made_printable(tmp_path: Path) -> None:
    sketchfile.write(tmp_path / "host", replace(host_of(), host="\x1b[2Jevil"))
    assert sketchfile.read(tmp_path / "host", key_id(KEY)).host == "\\x1b[2Jevil"


def test_no_file_and_no_json_are_errors_with_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("{")
    for name in ("none", "text", "."):
        with pytest.raises(KsmtunedError):
            sketchfile.read(tmp_path / name, key_id(KEY))
