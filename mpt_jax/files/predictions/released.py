"""The predictions of a run's released models on its test images: `predictions/NAME.npz` in the work directory.

A file names what it holds, `about`: its release, the digest of the weights, and that of the test data.
"""

import json
import pathlib
from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from mpt_jax.errors import DAMAGED, InputError
from mpt_jax.files import sealed

ABOUT = "about"


def write(
    path: pathlib.Path,
    *,
    labels: np.ndarray,
    logits: np.ndarray,
    ids: np.ndarray,
    about: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Write labels ``[n]``, logits ``[n, K]`` as float32, ids ``[n]`` and their `digest`, completely or not at all.

    Args:
      about: what the predictions are of, by the name of its kind, the first of them `release`: `read` compares it.
    """
    own = {ABOUT: np.array(json.dumps(dict(about)))} if about else {}
    sealed.write_arrays(path, {"labels": labels, "logits": logits.astype(np.float32), "ids": ids, **own})


def read(path: pathlib.Path, about: Mapping[str, str] = MappingProxyType({})) -> dict[str, np.ndarray]:
    """Read `labels`, `logits` and `ids`, and check that they are those of `about`.

    Files of a version that did not record what they are of are not checked for it.

    Raises:
      InputError: the file is missing or damaged, or holds other predictions, or arrays of other types or shapes.
    """
    arrays = sealed.read_arrays(path, ("labels", "logits", "ids"), optional=(ABOUT,))
    _require(path, _parsed(path, arrays.pop(ABOUT, None)), about)
    _require_shapes(path, arrays)
    return arrays


def check(path: pathlib.Path, about: Mapping[str, str]) -> bool:
    """Check what a file says that it holds, without its digest; return whether it says so at all.

    Raises:
      InputError: the file is missing or unreadable, or holds other predictions.
    """
    found = _parsed(path, sealed.read_array(path, ABOUT))
    _require(path, found, about)
    return found is not None


def _require_shapes(path: pathlib.Path, arrays: Mapping[str, np.ndarray]) -> None:
    labels, logits, ids = (arrays[name] for name in ("labels", "logits", "ids"))
    types = labels.dtype.kind in "iu" and logits.dtype == np.float32 and ids.dtype.kind in "Uiu"
    shapes = labels.ndim == ids.ndim == 1 and logits.ndim == 2 and len(labels) == len(ids) == len(logits)
    if not (types and shapes and logits.shape[1]):
        found = ", ".join(f"{name} {array.dtype} {list(array.shape)}" for name, array in sorted(arrays.items()))
        raise InputError(
            f"{path} is damaged: it holds {found}; expected ids [n], labels int [n] and logits float32 [n, K]; "
            f"{sealed.AGAIN}"
        )


def _parsed(path: pathlib.Path, text: np.ndarray | None) -> dict[str, str] | None:
    try:
        return None if text is None else dict(json.loads(str(text)))
    except DAMAGED as error:
        raise InputError(f"{path} does not say what it holds ({type(error).__name__}); {sealed.AGAIN}") from error


def _require(path: pathlib.Path, found: Mapping[str, str] | None, about: Mapping[str, str]) -> None:
    differing = [kind for kind, expected in about.items() if found is not None and found.get(kind) != expected]
    if found is not None and differing:
        of = f"those of {found.get('release')}" if "release" in differing else f"of other {', '.join(differing)}"
        raise InputError(f"{path} holds other predictions, {of}; {sealed.AGAIN}")
