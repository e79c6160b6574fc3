"""Updates of image classifiers without negative flips: Margin Preserving Training and related methods in JAX."""

import importlib
from typing import Any

__version__ = "0.1.0"
__all__ = ["compare", "losses", "metrics", "objectives"]


def __getattr__(name: str) -> Any:
    """Import a module when it is first used, so that `import mpt_jax` alone is instant."""
    if name in __all__:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
