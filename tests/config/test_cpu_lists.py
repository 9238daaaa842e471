"""Lists of CPUs are read and written as the kernel has them."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ksmtuned_py.config import Kernel
from ksmtuned_py.config.cpus import CPUS_MAX, cpu_list, cpus_of


@given(st.frozensets(st.integers(0, CPUS_MAX - 1), min_size=1))
def test_what_was_written_is_read_again(cpus: frozenset[int]) -> None:
    assert cpus_of(cpu_list(cpus)) == cpus


@pytest.mark.parametrize(
    ("text", "kernels"), [("3,0-1, 2", "0-3"), ("0,2,3,9", "0,2-3,9"), ("00", "0"), ("keep", "keep")]
)
def test_the_configuration_has_them_as_the_kernel(text: str, kernels: str) -> None:
    assert Kernel(ksmd_cpus=text).ksmd_cpus == kernels


@pytest.mark.parametrize(
    "text", ["", ",", "1-0", "-1", "0-", "a", "0-3:1", "8192", "0-99999", "٣", "need", "0\n1", "0-8191,0"]
)
def test_any_other_text_is_refused(text: str) -> None:
    with pytest.raises(ValidationError):
        Kernel(ksmd_cpus=text)


def test_a_text_without_end_takes_no_time() -> None:
    began = time.process_time()
    with pytest.raises(ValueError, match="more than"):
        cpus_of("0-8191," * 10_000)
    assert time.process_time() - began < 1
