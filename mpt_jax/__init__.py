"""Updates of image classifiers without negative flips: Margin Preserving Training and related methods in JAX."""

import importlib
from typing import Any

__version__ = "0.1.0"
__all__ = ["Report", "compare", "losses", "metrics", "objectives", "run"]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: `import mpt_jax` itself imports neither JAX nor NumPy."""
    if name in ("run", "Report"):
        return getattr(importlib.import_module(f"{__name__}.api"), name)
    if name in __all__:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
