"""The hardware of a run, on which speed and rounding depend, and with them choices between close candidates."""

import contextlib
import functools
import math
import os
import pathlib
import platform
from collections.abc import Mapping
from typing import Any

import jax

CPU_QUOTA = pathlib.Path("/sys/fs/cgroup/cpu.max")


@functools.cache
def core_devices() -> tuple[jax.Device, ...]:
    """Turn each core of the CPU into a JAX device, for independent programs, and return `jax.devices()`.

    Returns an empty tuple if there is an accelerator, if the number of CPU devices is configured already, or if devices
    were used before the first call.
    """
    configured = "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
    if configured or jax.config.values["jax_num_cpu_devices"] >= 0:
        return ()
    try:
        jax.config.update("jax_num_cpu_devices", num_cores())
    except RuntimeError:  # devices were used before
        return ()
    return tuple(jax.devices()) if jax.default_backend() == "cpu" else ()


def num_cores(quota: pathlib.Path = CPU_QUOTA) -> int:
    """Return the number of cores that this process may use: its affinity, or its container's quota if smaller."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with contextlib.suppress(OSError, ValueError):  # "max 100000" means no limit
        share, period = quota.read_text().split()
        available = min(available, max(1, math.floor(int(share) / int(period))))
    return available


def facts(count: int) -> dict[str, Any]:
    """Describe `count` devices by JAX's name of the first, and this machine by its processor and number of cores."""
    device = jax.devices()[0]
    return {
        **{"platform": device.platform, "kind": device.device_kind, "count": count},
        **{"processor": processor(), "cores": os.cpu_count()},
    }


def processor(cpuinfo: pathlib.Path = pathlib.Path("/proc/cpuinfo")) -> str:
    """Return the operating system's name of the processor, with its vector extension if known."""
    name = platform.processor() or platform.machine()
    if not cpuinfo.exists():
        return name
    lines = (line.partition(":") for line in cpuinfo.read_text().splitlines())
    values = {key.strip(): value.strip() for key, _, value in lines}
    # Speed and rounding depend on the vector extension, which a name such as "AMD EPYC" does not imply.
    flags = values.get("flags", "").split()
    vectors = next((name for flag, name in (("avx512f", "AVX-512"), ("avx2", "AVX2")) if flag in flags), "")
    return values.get("model name", name) + f" ({vectors})" * bool(vectors)


def in_words(device: Mapping[str, Any]) -> str:
    """Summarize `facts` in words. Those of earlier versions lack the processor.

    Examples:
      >>> in_words({"platform": "cpu", "kind": "cpu", "count": 1, "processor": "Neoverse-N1", "cores": 4})
      '4 cores of Neoverse-N1'
      >>> in_words({"platform": "gpu", "kind": "NVIDIA H200", "count": 2, "processor": "Xeon (AVX-512)", "cores": 16})
      '2 x NVIDIA H200, 16 cores of Xeon (AVX-512)'
      >>> in_words({"platform": "cpu", "kind": "cpu", "count": 2})
      '2 x cpu'
    """
    devices = f"{device['count']} x {device['kind']}"
    if not {"processor", "cores"} <= device.keys():
        return devices
    machine = f"{device['cores']} cores of {device['processor']}"
    return machine if device["platform"] == "cpu" else f"{devices}, {machine}"
