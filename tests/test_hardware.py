import os

import jax
import pytest

from mpt_jax import hardware

CPUINFO = """processor\t: 0
model name\t: AMD EPYC
flags\t\t: fpu sse2 {flags}

processor\t: 1
model name\t: AMD EPYC
flags\t\t: fpu sse2 {flags}
"""


@pytest.mark.parametrize(
    ("flags", "expected"),
    [("avx2 avx512f", "AMD EPYC (AVX-512)"), ("avx avx2", "AMD EPYC (AVX2)"), ("avx", "AMD EPYC")],
)
def test_a_processor_is_named_with_its_widest_vectors(tmp_path, flags, expected):
    (tmp_path / "cpuinfo").write_text(CPUINFO.format(flags=flags))
    assert hardware.processor(tmp_path / "cpuinfo") == expected


def test_a_processor_whose_vectors_nobody_says_is_named_alone(tmp_path):
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nCPU part\t: 0xd0c\n")  # as on arm64
    name = hardware.processor(tmp_path / "none")
    assert name and hardware.processor(tmp_path / "cpuinfo") == name


def test_the_facts_are_of_this_machine():
    found = hardware.facts(3)
    assert found["count"] == 3 and found["platform"] == jax.devices()[0].platform
    assert hardware.in_words(found).endswith(f"{os.cpu_count()} cores of {hardware.processor()}")
