"""Prediction of a train step on many devices, from its program compiled for virtual ones; nothing is run.

The predicted efficiency is ``compute / (compute + communication)``: counted FLOPs at the published peak rate, and bytes
at the published bandwidth as a ring moves them, without overlap and without latency. Real programs reach neither rate.
A device that computes below its peak waits relatively less for the others.

Sources of the figures (per chip, dense, bytes in one direction):
  TPU v5e: 197 TFLOP/s in bfloat16, 16 GB of memory, 400 GB/s of interconnect in both directions together, up to 256
    chips (Google Cloud, TPU v5e, https://docs.cloud.google.com/tpu/docs/v5e). JAX multiplies float32 in bfloat16 there
    by default.
  H100 SXM: 989.4 TFLOP/s in bfloat16 and 494.7 in TF32, 80 GB of memory, 900 GB/s of NVLink in both directions
    together, 8 in a node (NVIDIA, H100 Tensor Core GPU Architecture, 2022; https://www.nvidia.com/data-center/h100).
"""

import dataclasses
import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax

from mpt_jax.benchmark import collectives, flops
from mpt_jax.benchmark.program import lower, program_bytes
from mpt_jax.benchmark.rounds import Log, last_line
from mpt_jax.benchmark.workload import Setup
from mpt_jax.errors import InputError
from mpt_jax.objectives import METHODS, Objective
from mpt_jax.training import device_memory, sharding


class Hardware(NamedTuple):
    """A kind of accelerator: FLOP/s by dtype, bytes of memory, bytes/s sent by a device, devices in a group."""

    flops: Mapping[str, float]
    memory: float
    bandwidth: float
    devices: int


HARDWARE: Mapping[str, Hardware] = {
    "TPU v5e": Hardware({"bfloat16": 197e12, "float32": 197e12}, 16e9, 400e9 / 2, 256),
    "H100": Hardware({"bfloat16": 989.4e12, "float32": 494.7e12}, 80e9, 900e9 / 2, 8),
}


def measure(setup: Setup, log: Log, *, method: str, devices: Sequence[int], weak: bool) -> list[dict]:
    """Describe and predict a step for each number of devices, each in a process with as many virtual ones.

    Args:
      weak: the batch is that of one device, and grows with their number.
    """
    rows, batches = [], {number: setup.job.batch * (number if weak else 1) for number in devices}
    for number, batch in batches.items():
        pieces = number * setup.accumulate
        if batch % pieces:
            raise InputError(f"--devices {number}: --batch {batch}; expected a multiple of {pieces}, or fewer devices")
        if number % (setup.fsdp or 1):
            raise InputError(f"--devices {number}: --fsdp {setup.fsdp}; expected multiples of it, or --fsdp 0")
    for number, batch in batches.items():
        row = _describe_elsewhere({**dataclasses.asdict(setup), "batch": batch}, method, number)
        rows.append({**row, "predicted": predict(row, setup.dtype)})
        log(f"compiled for {number} device{'s' if number > 1 else ''}")
    return rows


def describe(setup: Setup, rows: Sequence[Objective], mesh: jax.sharding.Mesh) -> dict[str, Any]:
    """Compile the program of these students for a mesh; return what a step sends and what a device holds."""
    state, inputs, _, lowered = lower(setup, rows, mesh, native=True)
    compiled, devices = lowered.compile(), mesh.size
    teachers = [teacher.module for teacher in inputs.teachers.values()]
    work = flops.step(setup.network(), teachers, setup.job.image_shape, batch=setup.job.batch, students=len(rows))
    return {
        "devices": devices,
        "images_per_device": setup.job.batch / devices,
        "gflop_per_device": 1e-9 * work.dense / devices,
        "bytes_per_device": program_bytes(compiled),
        "collectives": [dataclasses.asdict(each) for each in collectives.of_step(compiled.as_text() or "")],
        "gradient_bytes": device_memory.tree_bytes(state.params),
        "statistics_bytes": device_memory.tree_bytes(state.batch_stats),
    }


def predict(row: Mapping[str, Any], dtype: str) -> dict[str, dict[str, float]]:
    """Return the milliseconds of a step and the efficiency on each kind of hardware that has enough devices."""
    found = {}
    for name, hardware in HARDWARE.items():
        if row["devices"] <= hardware.devices and dtype in hardware.flops:
            compute = 1e12 * row["gflop_per_device"] / hardware.flops[dtype]
            sent = sum(bytes_sent(each["kind"], each["bytes"], row["devices"]) for each in row["collectives"])
            communication = 1e3 * sent / hardware.bandwidth
            total = compute + communication
            found[name] = {"ms": total, "communication_ms": communication, "efficiency": compute / total}
    return found


def bytes_sent(kind: str, size: float, devices: int) -> float:
    """Return the bytes that each device of a ring sends for a collective whose result takes `size` bytes on a device.

    Examples:
      >>> [bytes_sent(kind, 8.0, 4) for kind in ("all-reduce", "all-gather", "reduce-scatter", "collective-permute")]
      [12.0, 6.0, 24.0, 8.0]
    """
    others = devices - 1
    share = {"all-reduce": 2 * others / devices, "all-gather": others / devices, "all-to-all": others / devices}
    return size * share.get(kind, others if kind == "reduce-scatter" else 1)


_CODE = "import sys; from mpt_jax.benchmark import scaling; scaling.print_description(sys.argv[1])"


def _describe_elsewhere(setup: Mapping[str, Any], method: str, devices: int) -> dict[str, Any]:
    flags = re.sub(
        r"--xla_(force_host_platform_device_count|backend_optimization_level)=\S+", "", os.environ.get("XLA_FLAGS", "")
    )
    flags += f" --xla_force_host_platform_device_count={devices} --xla_backend_optimization_level=0"
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
    command = [sys.executable, "-c", _CODE, json.dumps({"setup": setup, "method": method})]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise InputError(f"no program for {devices} devices: {last_line(done.stderr)}")
    return json.loads(done.stdout.splitlines()[-1])


def print_description(request: str) -> None:
    """Describe the step on all devices of this process and print it as a JSON line, for the parent process."""
    values = json.loads(request)
    setup = Setup(**values["setup"])
    print(json.dumps(describe(setup, [METHODS[values["method"]]], sharding.make_mesh(fsdp=setup.fsdp))))
