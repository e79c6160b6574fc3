"""A network against the same one of a PyTorch package: inference, and a step of AdamW."""

import dataclasses
import functools
import shlex
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from mpt_jax import models
from mpt_jax.benchmark import torch_network
from mpt_jax.benchmark.program import CALLS, Program, peak_bytes
from mpt_jax.benchmark.rounds import Log, alternate, compare, peer_milliseconds
from mpt_jax.benchmark.workload import Setup, examples
from mpt_jax.errors import InputError
from mpt_jax.models import Classifier, registry
from mpt_jax.objectives import METHODS
from mpt_jax.runtime import hardware
from mpt_jax.runtime.provenance import provenance
from mpt_jax.training import inference, sharding


def measure(setup: Setup, log: Log, *, names: str) -> dict[str, Any]:
    """Measure both passes of a network and of its twin in a PyTorch package, in alternating rounds.

    Args:
      setup: the network, the batch and the side of its images.
      log: prints progress.
      names: the package that has the network; empty: the first that has it.

    Raises:
      InputError: no package has the network, or not this one.
    """
    setup = dataclasses.replace(setup, batch=setup.batch or 64, image_size=setup.image_size or 160)
    setup = dataclasses.replace(setup, images=setup.images or 4 * setup.batch, optimizer="adamw")
    setup.network()
    packages = list(registry.NETWORKS[setup.model].twins)
    names = names or next(iter(packages), "")
    if names not in packages:
        raise InputError(f"{names or setup.model} is not known to have {setup.model}; expected one of {packages}")
    mesh = sharding.run_mesh(hardware.core_devices())
    images, labels = examples(setup.job, mesh)
    program = Program(setup, [METHODS["no_treatment"]], images, labels, mesh)
    log(f"compiled: {program.compile_seconds:.1f} s")
    size, classes = setup.job.image_shape[0], setup.job.num_classes["new"]
    same: dict[str, Any] = {
        "model": setup.model,
        "names": names,
        "batch": setup.batch,
        "image_size": size,
        "classes": classes,
    }
    ours = {"forward": _forward(setup, mesh, np.asarray(images[: setup.batch])), "step": program.milliseconds}
    contestants: dict[str, Callable[[], float]] = {}
    for work in torch_network.WORKS:
        peer = f"{shlex.quote(sys.executable)} -c {shlex.quote(torch_network.script(work, **same))}"
        contestants |= {work: ours[work], f"{work}, peer": functools.partial(peer_milliseconds, peer, setup.batch)}
    times = alternate(setup.rounds, contestants, log)
    rows = [
        {
            "work": work,
            "median_ms": statistics.median(times[work]),
            "ms": times[work],
            "peer_median_ms": statistics.median(times[f"{work}, peer"]),
            "peer_ms": times[f"{work}, peer"],
            **compare(times[work], times[f"{work}, peer"]),
        }
        for work in torch_network.WORKS
    ]
    return {
        "benchmark": "network",
        **provenance(hardware.facts(mesh.size)),
        "model": setup.model,
        "stem": None,
        "batch": setup.batch,
        "image_size": setup.job.image_shape[0],
        "dtype": setup.dtype,
        "rounds": setup.rounds,
        "peer": names,
        "compile_seconds": program.compile_seconds,
        "program_bytes": program.program_bytes,
        "peak_bytes": peak_bytes(),
        "rows": rows,
    }


def _forward(setup: Setup, mesh: jax.sharding.Mesh, images: np.ndarray) -> Any:
    """Return a function that measures the inference of a batch, folded as `predict` does, from images to logits."""
    module, middle = setup.network(), np.full(images.shape[-1], 0.5, np.float32)
    params, batch_stats = models.init(module, jax.random.key(0), images.shape[1:])
    classifier = Classifier(module, params, batch_stats, middle, middle)

    def milliseconds(calls: int = 3 * CALLS) -> float:
        batches = ((number, images) for number in range(calls + 1))
        ends = []
        for _ in inference.stream(classifier, batches, batch_size=setup.batch, mesh=mesh):
            ends.append(time.perf_counter())
        return 1e3 * statistics.median(np.diff(ends))

    return milliseconds
