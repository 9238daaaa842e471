"""The report: how near its estimate comes to what is really there, and to what ksmd then really merges."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ksmtuned_py.cli.scanplot import bars
from ksmtuned_py.cli.workload import Mix, achievable_pages, workloads
from ksmtuned_py.scanner.estimate import Sample, estimate, estimate_each
from ksmtuned_py.scanner.pages import ZERO, chosen, prints
from ksmtuned_py.units import MIB
from tests.scan.test_remap import pss_bytes
from tests.support.ksmlock import RealKsm
from tests.support.process import wait_for

PAGE = 4096
CLI = """
import sys
from argparse import ArgumentParser
from ksmtuned_py.cli import scan
parser = ArgumentParser()
scan.add(parser.add_subparsers())
args = parser.parse_args()
sys.exit(args.run(args))
"""


def scan(*words: str) -> dict[str, Any]:
    done = subprocess.run([sys.executable, "-c", CLI, "scan", "--json", *words], capture_output=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize(
    ("mix", "guests"),
    [
        (Mix(equal_bytes=96 * MIB, zero_bytes=48 * MIB, unique_bytes=96 * MIB), 2),
        (Mix(equal_bytes=96 * MIB, zero_bytes=32 * MIB, unique_bytes=128 * MIB), 4),
        (Mix(equal_bytes=128 * MIB, unique_bytes=16 * MIB), 3),
    ],
)
def test_a_5_percent_sample_is_within_5_percent_of_what_could_be_saved(root: None, mix: Mix, guests: int) -> None:
    with workloads([mix] * guests, mergeable=False) as loads:
        found = scan("--sample", "5%", *(str(load.pid) for load in loads))
        exact = scan("--sample", "100%", *(str(load.pid) for load in loads))
    known = achievable_pages([mix] * guests, use_zero_pages=True) * PAGE
    assert found["saveable_bytes"] == pytest.approx(known, rel=0.05)
    assert exact["saveable_bytes"] == pytest.approx(known, rel=0.05)
    assert exact["low"] == exact["saveable_bytes"] == exact["high"]
    assert found["saveable_bytes"] == found["zero_bytes"] + found["self_bytes"] + found["cross_bytes"]


@pytest.mark.kernel
def test_what_ksmd_then_merges_is_within_10_percent_of_the_report(real_ksm: RealKsm) -> None:
    mix = Mix(equal_bytes=64 * MIB, zero_bytes=16 * MIB, unique_bytes=32 * MIB)
    with workloads([mix] * 3) as loads:
        found = scan("--sample", "5%", *(str(load.pid) for load in loads))
        before = sum(pss_bytes(load.pid) for load in loads)
        for name, value in {"smart_scan": 0, "pages_to_scan": 20000, "sleep_millisecs": 10, "run": 1}.items():
            real_ksm.write(name, value)
        begun = real_ksm.number("full_scans")
        wait_for(lambda: real_ksm.number("full_scans") >= begun + 4, 60.0, "end of four passes")
        saved = before - sum(pss_bytes(load.pid) for load in loads)  # not about other guests here
    assert found["saveable_bytes"] == pytest.approx(saved, rel=0.1)


@given(
    st.lists(st.tuples(st.integers(1, 300), st.integers(1, 40)), min_size=1, max_size=4),
    st.integers(0, 1000),
    st.floats(0.01, 1.0),
)
@settings(max_examples=100)
def test_the_interval_holds_the_estimate_and_neither_exceeds_what_is_there(
    contents: list[tuple[int, int]], zeros: int, share: float
) -> None:
    pages = np.repeat(
        np.arange(sum(n for n, _ in contents)), np.repeat([m for _, m in contents], [n for n, _ in contents])
    )
    drawn = pages[(pages * 2654435761 % 2**32) < share * 2**32].astype(np.uint64) + np.uint64(2)
    one = Sample(name="a", pid=1, group="", zero_pages=zeros, filled_pages=len(pages), prints=drawn)
    found = estimate([one], share, 1)
    assert 0 <= found.low <= found.saveable_bytes <= zeros + len(pages)
    assert found.high is None or found.saveable_bytes <= found.high <= zeros + len(pages)
    assert found.cross_bytes == 0


def test_pages_are_shared_only_within_a_group() -> None:
    same = np.arange(2, 1002, dtype=np.uint64)
    guests = [
        Sample(name=name, pid=1, group=group, zero_pages=0, filled_pages=1000, prints=same)
        for name, group in (("a", "x"), ("b", "x"), ("c", "y"))
    ]
    assert estimate(guests, 1.0, 1).cross_bytes == 1000


def of(name: str, *contents: int, zeros: int = 0, group: str = "") -> Sample:
    """Returns a guest with these contents, all of them in the sample."""
    prints = np.array([content + 10 for content in contents], np.uint64)
    return Sample(name=name, pid=1, group=group, zero_pages=zeros, filled_pages=len(prints), prints=prints)


def test_what_each_guest_saves_adds_up_to_the_whole() -> None:
    guests = [of("a", 1, 1, 2, 3, zeros=5), of("b", 1, 2, 2), of("c", 3, 3, group="other")]
    each, whole = estimate_each(guests, 1.0, 1), estimate(guests, 1.0, 1)
    assert [(one.zero_bytes, one.self_bytes, one.cross_bytes) for one in each] == [(5, 1, 1), (0, 1, 1), (0, 1, 0)]
    assert sum(one.saveable_bytes for one in each) == whole.saveable_bytes
    assert all(one.low == one.saveable_bytes == one.high for one in each)
    parts = bars(guests, each, 1)
    assert parts["its own"] == [2, 1, 1]
    assert [sum(bar) for bar in zip(*parts.values(), strict=True)] == [9, 3, 2]


@given(st.lists(st.lists(st.integers(0, 30), max_size=60), min_size=1, max_size=4), st.floats(0.05, 1.0))
@settings(max_examples=100)
def test_of_each_guest_no_more_is_saved_than_it_has(contents: list[list[int]], share: float) -> None:
    guests = [of(str(number), *one, zeros=number) for number, one in enumerate(contents)]
    for one, saveable in zip(guests, estimate_each(guests, share, 1), strict=True):
        assert 0 <= saveable.low <= saveable.saveable_bytes <= one.zero_pages + one.filled_pages
        assert saveable.high is None or saveable.high >= saveable.saveable_bytes


@pytest.mark.parametrize(("name", "begin"), [("x.svg", b"<?xml"), ("x.png", b"\x89PNG")])
def test_a_picture_is_drawn_by_the_suffix_of_its_name(root: None, tmp_path: Path, name: str, begin: bytes) -> None:
    pytest.importorskip("matplotlib")
    found = scan("--sample", "100%", "--plot", str(tmp_path / name), str(os.getpid()))
    assert found["guests"][0]["saveable_bytes"] == found["saveable_bytes"]
    assert (tmp_path / name).read_bytes().startswith(begin)


def test_a_picture_that_cannot_be_is_said_before_the_long_look(root: None, tmp_path: Path) -> None:
    (tmp_path / "matplotlib.py").write_text("raise ImportError\n")
    for name, path in (("x.png", str(tmp_path)), ("x.nonsense", "")):
        command = [sys.executable, "-m", "ksmtuned_py", "scan", "--plot", name, str(os.getpid())]
        done = subprocess.run(
            command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.count("no plot") == 1
        assert ("matplotlib is not installed" if path else "wanted a name that ends in") in done.stderr


def test_a_sample_takes_all_copies_of_a_content_or_none() -> None:
    pages = np.random.default_rng(5).integers(0, 2**63, (200, 512), dtype=np.uint64)
    found = prints(memoryview(np.concatenate([pages, pages[::-1], np.zeros((56, 512), np.uint64)]).tobytes()))
    assert np.count_nonzero(found == ZERO) == 56
    drawn = chosen(found, 0.3)
    assert all(np.unique(drawn, return_counts=True)[1] == 2)
    assert 20 < len(drawn) // 2 < 100
    assert set(chosen(found, 1.0)) == set(found) - {ZERO}
