"""The memory that a device needs for a train step, from the compiled program, and advice if it has less."""

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from jax.sharding import Mesh

from mpt_jax.benchmark.program import lower
from mpt_jax.benchmark.workload import Setup
from mpt_jax.errors import InputError
from mpt_jax.objectives import Objective
from mpt_jax.training import device_memory, sharding

GiB = 2**30


def predict(setup: Setup, rows: Sequence[Objective], mesh: Mesh, *, native: bool) -> dict[str, int]:
    """Return the bytes that one device needs to train these students, by use, and their ``total``, without running.

    `temporaries` are activations, gradients and everything else that the compiler keeps within a call. A CPU's compiler
    undoes rematerialisation; for an accelerator, its saving is estimated by `device_memory.activations`.

    Args:
      native: use the convolutions of accelerators; the form for CPUs needs more (patches of every convolution).
    """
    state, inputs, window, lowered = lower(setup, rows, mesh, native=native)
    sizes = lowered.compile().memory_analysis()
    if sizes is None:
        raise InputError(f"the compiler of {jax.default_backend()} does not report memory; expected one that does")
    temporaries = sizes.temp_size_in_bytes
    if native and setup.remat and jax.default_backend() == "cpu":
        at_once = min(setup.recipe().members_at_once, len(rows))
        images = at_once * setup.job.batch // (sharding.data_devices(mesh) * setup.accumulate)
        temporaries = max(0, temporaries - round(images * (1 - _share_kept_by_remat(setup)) * _activations(setup)))
    parts = {
        "state": _bytes_per_device(state),
        "images": _bytes_per_device((window, inputs.labels)),
        "teachers": _bytes_per_device(inputs.teachers),
        "temporaries": temporaries,
    }
    return {**parts, "total": sum(parts.values())}


def advice(parts: Mapping[str, int], limit: float, setup: Setup, *, students: int, devices: int) -> list[str]:
    """Return settings that reduce the memory of a step, each with the memory needed then; [] if `limit` bytes suffice.

    This is an estimate. Activations are the temporaries less a gradient and a copy of the parameters; they shrink with
    micro-batches, with fewer members side by side and as `device_memory.activations` says. The state shrinks with the
    devices.

    Examples:
      >>> parts = {"state": 4 * GiB, "images": GiB, "teachers": GiB, "temporaries": 10 * GiB, "total": 16 * GiB}
      >>> advice(parts, 12 * GiB, Setup(model="convnet"), students=1, devices=1)
      ['optimizer.accumulate=2: 13.0 GiB; 4: 11.5 GiB']
    """
    if parts["total"] <= limit:
        return []
    at_once = min(setup.members_at_once or students, students)
    of_parameters = min(parts["temporaries"], parts["state"] // students * at_once)
    activations, rest = parts["temporaries"] - of_parameters, parts["total"] - parts["temporaries"] + of_parameters
    lines, per_device = [], setup.job.batch // devices
    tried = []
    for pieces in (2**i for i in range(1, per_device.bit_length())):
        if per_device % (pieces * setup.accumulate):
            break
        tried.append(f"{pieces * setup.accumulate}: {(rest + activations / pieces) / GiB:.1f} GiB")
        if rest + activations / pieces <= limit:
            break
    if tried:
        lines.append(f"optimizer.accumulate={'; '.join(tried)}")
    if not setup.remat and hasattr(setup.network(), "remat"):
        lines.append(f"training.remat=true: {(rest + activations * _share_kept_by_remat(setup)) / GiB:.1f} GiB")
    if devices > 1 and setup.fsdp == 1:
        lines.append(f"mesh.fsdp=0: {(parts['total'] - parts['state'] * (1 - 1 / devices)) / GiB:.1f} GiB")
    if at_once > 1:
        needed = parts["total"] - parts["temporaries"] * (1 - 1 / at_once)
        lines.append(f"training.members_at_once=1: {needed / GiB:.1f} GiB")
    if students > 1:
        each = (parts["state"] + parts["temporaries"]) / students
        fit = math.floor((limit - parts["images"] - parts["teachers"]) / each)
        if fit >= 1:
            lines.append(f"a population of {fit}: {(parts['total'] - (students - fit) * each) / GiB:.1f} GiB")
    if parts["images"] > limit / 2:
        lines.append("stream the images instead of keeping them on the device")
    return lines


@functools.cache
def _activations(setup: Setup, remat: bool = False) -> int:
    return device_memory.activations(setup.network(), setup.job.image_shape, remat=remat)


def _share_kept_by_remat(setup: Setup) -> float:
    return _activations(setup, remat=True) / _activations(setup)


def _bytes_per_device(shapes: Any) -> int:
    leaves = jax.tree.leaves(shapes)
    return sum(math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize for leaf in leaves)
