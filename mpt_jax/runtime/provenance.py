"""What a result may depend on besides its config: versions, device and code."""

import functools
import pathlib
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from mpt_jax import __version__

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "tensorflow-datasets", "numpy")


def provenance(device: Mapping[str, Any]) -> dict[str, Any]:
    """Return the versions of Python and of packages, the device (see `hardware.facts`) and the git revision."""
    versions = {"mpt_jax": __version__, "python": sys.version.split()[0]} | {name: version(name) for name in PACKAGES}
    return {"versions": versions, "device": dict(device), "git_revision": _git_revision()}


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
