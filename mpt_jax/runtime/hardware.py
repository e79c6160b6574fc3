"""What a run is made on: speed, rounding and a choice between close candidates may hang on it."""

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
def cores() -> tuple[jax.Device, ...]:
    """A device for each core of the CPU, for programs that need nothing of each other; `jax.devices` are then these.

    None where there is an accelerator, where someone has said how many devices a CPU is to have, or where devices had
    been touched before the first call.
    """
    said = "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
    if said or jax.config.jax_num_cpu_devices >= 0:
        return ()
    try:
        jax.config.update("jax_num_cpu_devices", num_cores())
    except RuntimeError:  # devices have been touched
        return ()
    return tuple(jax.devices()) if jax.default_backend() == "cpu" else ()


def num_cores(quota: pathlib.Path = CPU_QUOTA) -> int:
    """How many this process may use: those that it may run on, or what its container is given of them, if less."""
    ours = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with contextlib.suppress(OSError, ValueError):  # "max 100000" where there is no limit
        share, period = quota.read_text().split()
        ours = min(ours, max(1, math.floor(int(share) / int(period))))
    return ours


def facts(count: int) -> dict[str, Any]:
    """Of `count` devices as jax calls the first, and of this machine: its processor and the number of its cores."""
    device = jax.devices()[0]
    return {
        **{"platform": device.platform, "kind": device.device_kind, "count": count},
        **{"processor": processor(), "cores": os.cpu_count()},
    }


def processor(cpuinfo: pathlib.Path = pathlib.Path("/proc/cpuinfo")) -> str:
    """What the operating system calls it, and its vectors where it says which."""
    name = platform.processor() or platform.machine()
    if not cpuinfo.exists():
        return name
    lines = (line.partition(":") for line in cpuinfo.read_text().splitlines())
    of_cpu = {key.strip(): value.strip() for key, _, value in lines}
    # On the vectors hang speed and rounding, and they do not follow from a name such as "AMD EPYC".
    flags = of_cpu.get("flags", "").split()
    vectors = next((name for flag, name in (("avx512f", "AVX-512"), ("avx2", "AVX2")) if flag in flags), "")
    return of_cpu.get("model name", name) + f" ({vectors})" * bool(vectors)


def in_words(device: Mapping[str, Any]) -> str:
    """Of `facts`, also of those of earlier versions, which lack the processor.

    Examples:
      >>> in_words({"platform": "cpu", "kind": "cpu", "count": 1, "processor": "Neoverse-N1", "cores": 4})
      '4 cores of Neoverse-N1'
      >>> in_words({"platform": "gpu", "kind": "NVIDIA H200", "count": 2, "processor": "Xeon (AVX-512)", "cores": 16})
      '2 x NVIDIA H200, 16 cores of Xeon (AVX-512)'
      >>> in_words({"platform": "cpu", "kind": "cpu", "count": 2})
      '2 x cpu'
    """
    devices = f"{device['count']} x {device['kind']}"
    if "processor" not in device:
        return devices
    machine = f"{device['cores']} cores of {device['processor']}"
    return machine if device["platform"] == "cpu" else f"{devices}, {machine}"
