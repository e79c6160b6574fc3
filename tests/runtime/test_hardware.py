"""The hardware of a run is described as the operating system describes it, and cores become devices."""

import os
import subprocess
import sys

import jax
import pytest

from mpt_jax.runtime import hardware

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
def test_a_processor_is_named_with_its_widest_vector_extension(tmp_path, flags, expected):
    (tmp_path / "cpuinfo").write_text(CPUINFO.format(flags=flags))
    assert hardware.processor(tmp_path / "cpuinfo") == expected


def test_a_processor_without_known_vector_extension_has_only_its_name(tmp_path):
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nCPU part\t: 0xd0c\n")  # as on arm64
    name = hardware.processor(tmp_path / "none")
    assert name and hardware.processor(tmp_path / "cpuinfo") == name


def test_facts_describe_this_machine():
    found = hardware.facts(3)
    assert found["count"] == 3 and found["platform"] == jax.devices()[0].platform
    assert hardware.in_words(found).endswith(f"{os.cpu_count()} cores of {hardware.processor()}")


@pytest.mark.parametrize(
    ("quota", "expected"),
    [("max 100000", None), ("100000 100000", 1), ("50000 100000", 1), ("nonsense", None), ("99900000 100000", None)],
)
def test_cores_are_limited_by_affinity_and_quota(tmp_path, monkeypatch, quota, expected):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(6)), raising=False)
    (tmp_path / "cpu.max").write_text(f"{quota}\n")
    assert hardware.num_cores(tmp_path / "cpu.max") == (expected or 6)
    assert hardware.num_cores(tmp_path / "none") == 6
    (tmp_path / "cpu.max").write_text("250000 100000\n")
    assert hardware.num_cores(tmp_path / "cpu.max") == 2


@pytest.mark.parametrize(
    ("environment", "before", "expected"),
    [
        ({}, "", "5 5"),
        ({"XLA_FLAGS": "--xla_force_host_platform_device_count=3"}, "", "0 3"),
        ({"JAX_NUM_CPU_DEVICES": "2"}, "", "0 2"),
        ({}, "jax.devices()", "0 1"),  # too late
    ],
)
def test_every_core_becomes_a_device_unless_devices_are_configured(environment, before, expected):
    code = (
        f"import os, jax; os.sched_getaffinity = lambda pid: set(range(5)); {before}\n"
        "import pathlib; from mpt_jax.runtime import hardware\n"
        "hardware.num_cores.__defaults__ = (pathlib.Path('none'),)\n"
        "first = hardware.core_devices()\n"
        "print(len(first), len(jax.devices())); assert hardware.core_devices() is first"
    )
    rest = {k: v for k, v in os.environ.items() if k not in ("XLA_FLAGS", "JAX_NUM_CPU_DEVICES")}
    done = subprocess.run(
        [sys.executable, "-c", code], env={**rest, **environment}, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == expected.split()
