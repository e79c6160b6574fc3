"""The measurements and predictions; each returns a JSON object that also describes the machine."""

import dataclasses
import functools
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
from jax.sharding import Mesh

from mpt_jax import objectives, training
from mpt_jax.benchmark import flops, input_pipeline, network, program_memory
from mpt_jax.benchmark import scaling as scaling_of_steps
from mpt_jax.benchmark.program import Program
from mpt_jax.benchmark.rounds import Log, alternate, check_command, compare, peer_milliseconds
from mpt_jax.benchmark.workload import Setup, examples
from mpt_jax.errors import InputError
from mpt_jax.objectives import METHODS, Objective
from mpt_jax.runtime import hardware
from mpt_jax.runtime.provenance import provenance
from mpt_jax.training import sharding
from mpt_jax.training.device_memory import limit as memory_limit

DTYPES = ("float32", "bfloat16")
PUBLISHED = (
    *("no_treatment", "pct_naive", "pct_kl", "pct_lm", "mpt_no_distillation"),
    *("mpt_kl_no_bias", "mpt_lm_no_bias", "mpt_kl", "mpt_lm"),
)

Shared = tuple[jax.Array, jax.Array]  # images and labels


def step(setup: Setup, log: Log, *, method: str, against: str) -> dict[str, Any]:
    """Measure one student: time, rate, compilation, memory and utilisation; against a peer's command if given."""
    mesh = _prepare(setup, [method], against)
    shared = examples(setup.job, mesh)
    programs, found = _measure(setup, log, mesh, shared, method, [1], against)
    (row,) = found.pop("rows")
    empty = programs[1].call_milliseconds()
    return {**_facts("step", setup, mesh, shared), "method": method, **row, "call_ms": empty, **found}


def memory(setup: Setup, log: Log, *, method: str, students: int, device_memory: float) -> dict[str, Any]:
    """Predict the memory that a device needs for a step, by use, with advice if it has less; compile only.

    Args:
      device_memory: GiB of an accelerator to predict for; 0: the devices of this machine.
    """
    mesh, elsewhere = _prepare(setup, [method]), bool(device_memory)
    if elsewhere and not setup.members_at_once:
        setup = dataclasses.replace(setup, members_at_once=students)
    rows = _students_of(method, students)
    log(f"compiling for {_students(students)}")
    parts = program_memory.predict(setup, rows, mesh, native=elsewhere)
    limit = device_memory * 2**30 if elsewhere else memory_limit()
    found: dict[str, Any] = {
        "limit_bytes": limit,
        "bytes": parts,
        "students": students,
        "form": "accelerator" if elsewhere else "own",
    }
    found["advice"] = program_memory.advice(parts, limit, setup, students=students, devices=mesh.size) if limit else []
    return {**_facts("memory", setup, mesh), "method": method, "dtype": setup.dtype, **found}


def scaling(setup: Setup, log: Log, *, method: str, devices: Sequence[int], weak: bool) -> dict[str, Any]:
    """Predict what a step sends, computes and holds on this many devices, and its efficiency, without running it."""
    _check_method(method)
    setup.network()
    rows = scaling_of_steps.measure(setup, log, method=method, devices=devices, weak=weak)
    found = {"method": method, "dtype": setup.dtype, "teachers": list(objectives.sources(METHODS[method]))}
    return {**_facts("scaling", setup, sharding.make_mesh(jax.devices()[:1])), **found, "weak": weak, "rows": rows}


def population(setup: Setup, log: Log, *, method: str, sizes: Sequence[int]) -> dict[str, Any]:
    """Measure the time per student of populations that share data and teachers, as a share of one student alone.

    The students differ in their margin.
    """
    mesh = _prepare(setup, [method])
    shared = examples(setup.job, mesh)
    _, found = _measure(setup, log, mesh, shared, method, sizes)
    return {**_facts("population", setup, mesh, shared), "method": method, **found}


def table(setup: Setup, log: Log, *, methods: Sequence[str]) -> dict[str, Any]:
    """Measure methods (default: the published nine) as one population against a separate run of each.

    Data and schedule are the same; a separate run has only its own terms and teachers. Each run counts with its own
    compilation time, although methods that differ in numbers alone are compiled once here.
    """
    methods = methods or PUBLISHED
    mesh = _prepare(setup, methods)
    shared = examples(setup.job, mesh)
    rows = [METHODS[method] for method in methods]
    together = _compile(setup, log, rows, shared, mesh)
    alone: dict[str, Program] = {}
    compile_seconds: dict[jax.tree_util.PyTreeDef, float] = {}
    for method, row in zip(methods, rows, strict=True):
        alone[method] = _compile(setup, log, [row], shared, mesh)
        compile_seconds.setdefault(_structure(row), alone[method].compile_seconds)
    programs = {"population": together, **alone}
    times = alternate(setup.rounds, {name: program.milliseconds for name, program in programs.items()}, log)
    separate = [sum(times[method][i] for method in methods) for i in range(setup.rounds)]
    seconds = [compile_seconds[_structure(row)] for row in rows]
    return {
        **_facts("table", setup, mesh, shared),
        "dtype": setup.dtype,
        "members_at_once": together.at_once,
        "median_ms": statistics.median(times["population"]),
        "ms": times["population"],
        "separate_ms": statistics.median(separate),
        **compare(times["population"], separate),
        "compile_seconds": together.compile_seconds,
        "separate_compile_seconds": sum(seconds),
        "compile_ratio": together.compile_seconds / sum(seconds),
        "program_bytes": together.program_bytes,
        "peak_bytes": together.peak_bytes,
        "rows": [
            {
                "method": method,
                "teachers": list(objectives.sources(row)),
                "median_ms": statistics.median(times[method]),
                "ms": times[method],
                "compile_seconds": compiled,
                "program_bytes": alone[method].program_bytes,
                "peak_bytes": alone[method].peak_bytes,
            }
            for method, row, compiled in zip(methods, rows, seconds, strict=True)
        ],
    }


def device(
    setup: Setup, log: Log, *, method: str, sizes: Sequence[int], peer: str, data_dir: str, toy: bool
) -> dict[str, Any]:
    """Measure an accelerator in one command: both dtypes, populations, a peer, a full epoch, memory."""
    if toy:
        sizes = sizes[:2]
        setup = dataclasses.replace(setup, model="convnet", stem="", batch=16, steps=2, rounds=1)
    if data_dir and setup.model == "convnet":
        raise InputError("--data-dir is for CIFAR-100, whose images convnet is not made for; omit one of them")
    mesh = _prepare(setup, [method], peer)
    shared = examples(setup.job, mesh, data_dir)
    dtypes = {}
    for dtype in DTYPES:
        chosen = dataclasses.replace(setup, dtype=dtype)
        against = f"{peer} --dtype {dtype}" if peer else ""
        programs, dtypes[dtype] = _measure(chosen, log, mesh, shared, method, sizes, against)
        steps = programs[1].steps_per_epoch
        seconds = programs[1].run(steps)
        dtypes[dtype]["epoch"] = {"images": len(shared[1]), "steps": steps, "seconds": seconds}
        log(f"{dtype}: an epoch of {len(shared[1])} images in {seconds:.2f} s")
    return {**_facts("device", setup, mesh, shared), "method": method, "dtypes": dtypes}


MEASUREMENTS: Mapping[str, Callable[..., dict[str, Any]]] = {
    "step": step,
    "memory": memory,
    "population": population,
    "table": table,
    "device": device,
    "scaling": scaling,
    "input": input_pipeline.measure,
    "network": network.measure,
}


def _prepare(setup: Setup, methods: Sequence[str], against: str = "") -> Mesh:
    """Check all input before anything is compiled; return the mesh."""
    for method in methods:
        _check_method(method)
    setup.network()
    if against:
        check_command(against)
    mesh = sharding.run_mesh(_cores(setup), fsdp=setup.fsdp)
    sharding.check_batch(mesh, setup.job.batch, setup.accumulate, key="--batch")
    return mesh


def _check_method(method: str) -> None:
    if method not in METHODS:
        raise InputError(f"unknown method {method!r}; expected one of {', '.join(METHODS)}")


def _cores(setup: Setup) -> Sequence[jax.Device]:
    """Return the CPU cores that members are spread over; none if other devices are requested."""
    return hardware.core_devices() if setup.fsdp == 1 else ()


def _measure(
    setup: Setup, log: Log, mesh: Mesh, shared: Shared, method: str, sizes: Sequence[int], against: str = ""
) -> tuple[Mapping[int, Program], dict[str, Any]]:
    """Measure populations of size 1 and of `sizes`, the peak rate and a peer in alternating rounds."""
    students = _students_of(method, max(sizes))
    # From small to large, so that the peak memory so far is that of the size.
    programs = {size: _compile(setup, log, students[:size], shared, mesh) for size in sorted({1, *sizes})}
    contestants = {_students(size): program.milliseconds for size, program in programs.items()}
    if not setup.peak_tflops:
        contestants["peak"], product, source = flops.square_product(setup.dtype, mesh)
    if against:
        contestants["peer"] = functools.partial(peer_milliseconds, against, setup.job.batch)
    times = alternate(setup.rounds, contestants, log)
    if setup.peak_tflops:
        peak = {"tflops": setup.peak_tflops, "source": "as given"}
    else:
        peak = {"tflops": 1e-9 * product / min(times["peak"]), "source": source}
    one = times[_students(1)]
    found: dict[str, Any] = {"peak": peak}
    if against:
        median = statistics.median(times["peer"])
        found["against"] = {"command": against, "median_ms": median, "ms": times["peer"]} | compare(one, times["peer"])
    found["rows"] = [_row(setup, program, times[_students(size)], one, found) for size, program in programs.items()]
    return programs, found


def _row(
    setup: Setup, program: Program, ms: Sequence[float], one: Sequence[float], found: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the numbers of one population; `one` is the milliseconds of a student alone."""
    median, peak = statistics.median(ms), 1e9 * found["peak"]["tflops"]  # FLOP per millisecond
    row = {
        "students": program.students,
        "dtype": setup.dtype,
        "members_at_once": program.at_once,
        "median_ms": median,
        "ms": ms,
        "steps_per_call": program.steps,
        "examples_per_second": 1e3 * program.students * setup.job.batch / median,
        "share_of_one": compare([time / program.students for time in ms], one),
        "compile_seconds": program.compile_seconds,
        "program_bytes": program.program_bytes,
        "peak_bytes": program.peak_bytes,
        "gflop": 1e-9 * program.work.dense,
        "gflop_on_data": 1e-9 * program.work.on_data,
        "utilisation": program.work.dense / median / peak,
        "utilisation_on_data": program.work.on_data / median / peak,
    }
    if "against" in found:
        row["times_peer"] = program.students * found["against"]["median_ms"] / median  # in examples per second
    return row


def _compile(setup: Setup, log: Log, rows: Sequence[Objective], shared: Shared, mesh: Mesh) -> Program:
    mesh = training.choose_mesh(mesh, _cores(setup), setup.network(), shared[0], 1, len(rows))
    program = Program(setup, rows, *shared, mesh)
    log(f"compiled {setup.dtype}, {_students(len(rows))}: {program.compile_seconds:.1f} s")
    return program


def _students_of(method: str, count: int) -> list[Objective]:
    objective = METHODS[method]
    return [objective.replace(bias=objective.bias + 0.25 * i) for i in range(count)]


def _students(count: int) -> str:
    return f"{count} student{'s' if count > 1 else ''}"


def _structure(row: Objective) -> jax.tree_util.PyTreeDef:
    """Return the part of an objective that its compiled program depends on."""
    return jax.tree.structure(row.replace(doc=""))


def _facts(name: str, setup: Setup, mesh: Mesh, shared: Shared | None = None) -> dict[str, Any]:
    return {
        "benchmark": name,
        **provenance(hardware.facts(mesh.size)),
        "model": setup.model,
        "stem": getattr(setup.network(), "stem", None),
        "batch": setup.job.batch,
        "images": len(shared[1]) if shared else setup.job.num_images,
        "rounds": setup.rounds,
        "float32_products": jax.config.values["jax_default_matmul_precision"]
        or "default",  # on NVIDIA the default allows TF32
        "peak_bytes_of": "device" if "peak_bytes_in_use" in (jax.devices()[0].memory_stats() or {}) else "process",
        "compilation_cache": jax.config.values[
            "jax_compilation_cache_dir"
        ],  # with one, compile seconds may be of a warm start
    }
