"""What a result may depend on besides its config: versions, device, settings of JAX and XLA, and code."""

import functools
import os
import pathlib
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from mpt_jax import __version__
from mpt_jax.runtime import regular_file

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "tensorflow-datasets", "numpy")
PROVENANCE = {
    "versions": {...: str},
    "device": {"platform": str, "kind": str, "count": int, "processor?": str, "cores?": (int, None)},
    "git_revision?": (str, None),
    "settings?": dict,
}
"""What `provenance` returns, as a `files.schema`; earlier versions recorded less."""

# JAX's settings that change numbers: types, random numbers, the precision and the optimization of programs.
_JAX = (
    *("jax_enable_x64", "jax_default_prng_impl", "jax_threefry_partitionable", "jax_random_seed_offset"),
    *("jax_high_dynamic_range_gumbel", "jax_default_matmul_precision", "jax_allow_f16_reductions", "jax_disable_jit"),
    *("jax_optimization_level", "jax_exec_time_optimization_effort", "jax_memory_fitting_effort"),
)
# Flags of XLA that change no number, or by another number of devices, which `docs/results.md` allows. All others count.
_HARMLESS = (
    *("--xla_force_host_platform_device_count", "--xla_dump_", "--xla_hlo_profile", "--xla_gpu_cuda_data_dir"),
    *("--xla_gpu_per_fusion_autotune_cache_dir", "--xla_gpu_force_compilation_parallelism"),
    "--xla_cpu_parallel_codegen_split_count",
)


def settings() -> dict[str, Any]:
    """Return the settings of JAX, XLA and the libraries below them that change numbers.

    Texts name flags in a fixed order; None or "" is a setting that has no value.
    """
    import jax  # not needed for `PROVENANCE`

    values = {name: jax.config.values[name] for name in _JAX if name in jax.config.values}
    plain = {
        name: value if isinstance(value, bool | int | float | None) else str(value) for name, value in values.items()
    }
    flags = {name: " ".join(_flags(os.environ.get(name, ""))) for name in ("XLA_FLAGS", "LIBTPU_INIT_ARGS")}
    return {**plain, **flags, "NVIDIA_TF32_OVERRIDE": os.environ.get("NVIDIA_TF32_OVERRIDE", "")}


def _flags(text: str) -> list[str]:
    """Return the flags that may change numbers, sorted; of one that is given twice the last, which counts."""
    if text.strip() and not text.lstrip().startswith("-"):  # XLA takes it as the name of a file of flags
        text = regular_file.read_text(text.strip())
    flags = {flag.partition("=")[0]: flag for flag in text.split() if not flag.startswith(_HARMLESS)}
    return [flags[name] for name in sorted(flags)]


def provenance(device: Mapping[str, Any]) -> dict[str, Any]:
    """Return the versions of Python and of packages, the device (see `hardware.facts`), settings and git revision."""
    versions = {"mpt_jax": __version__, "python": sys.version.split()[0]} | {name: version(name) for name in PACKAGES}
    return {
        "versions": versions,
        "device": dict(device),
        "settings": settings(),
        "git_revision": _git_revision(),
    }


@functools.cache  # commits during a run do not change the code that was loaded
def _git_revision() -> str | None:
    """Return the commit of this package's checkout, with `-dirty` if its code was changed; None without a checkout."""
    package = pathlib.Path(__file__).parents[1]

    def git(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["git", *words], cwd=package, capture_output=True, text=True, timeout=10)

    if not (package.parent / ".git").exists():
        return None
    try:
        # Only changes of the package count: tables and pages that a command writes elsewhere do not make it dirty.
        head, changes = git("rev-parse", "HEAD"), git("diff", "--quiet", "HEAD", "--", ".")
    except (OSError, subprocess.SubprocessError):
        return None
    return None if head.returncode else head.stdout.strip() + "-dirty" * bool(changes.returncode)
