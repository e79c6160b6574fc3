"""The predictions of a run's released models on its test images: `predictions/NAME.npz` in the work directory.

A file names what it holds, `about`: its release, the digest of the weights, and that of the test data. `class_names`
are the classes of its logits, `label_names` those of its labels, which may be of a later release. With them the release
gate compares files of different runs by name.
"""

import json
import pathlib
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np

from mpt_jax.errors import DAMAGED, InputError
from mpt_jax.files import sealed

ABOUT = "about"
NAMES = ("class_names", "label_names")


def write(
    path: pathlib.Path,
    *,
    labels: np.ndarray,
    logits: np.ndarray,
    ids: np.ndarray,
    about: Mapping[str, str] = MappingProxyType({}),
    class_names: Sequence[str] = (),
    label_names: Sequence[str] = (),
) -> None:
    """Write labels ``[n]``, logits ``[n, K]`` as float32, ids ``[n]`` and their `digest`, completely or not at all.

    Args:
      about: what the predictions are of, by the name of its kind, the first of them `release`: `read` compares it.
      class_names: of the logits, ``[K]``.
      label_names: what the labels mean.
    """
    own = {ABOUT: np.array(json.dumps(dict(about)))} if about else {}
    own |= {name: np.array(names) for name, names in zip(NAMES, (class_names, label_names), strict=True) if names}
    sealed.write_arrays(path, {"labels": labels, "logits": logits.astype(np.float32), "ids": ids, **own})


def read(path: pathlib.Path, about: Mapping[str, str] = MappingProxyType({})) -> dict[str, np.ndarray]:
    """Read `labels`, `logits` and `ids`, and check that they are those of `about`.

    Files of a version that did not record what they are of, or no names of classes, are not checked for it.

    Raises:
      InputError: the file is missing or damaged, or holds other predictions, or arrays of other types or shapes.
    """
    arrays = sealed.read_arrays(path, ("labels", "logits", "ids"), optional=(ABOUT, *NAMES))
    _require(path, _parsed(path, arrays.pop(ABOUT, None)), about)
    class_names, label_names = (arrays.pop(name, None) for name in NAMES)
    _require_shapes(path, arrays)
    _require_names(path, arrays, class_names, label_names)
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


def _require_names(
    path: pathlib.Path,
    arrays: Mapping[str, np.ndarray],
    class_names: np.ndarray | None,
    label_names: np.ndarray | None,
) -> None:
    classes, labels = arrays["logits"].shape[1], arrays["labels"]
    named = class_names is None or (class_names.dtype.kind == "U" and class_names.shape == (classes,))
    if label_names is not None:
        named &= label_names.dtype.kind == "U" and label_names.ndim == 1
        named &= not len(labels) or (int(labels.min()) >= 0 and int(labels.max()) < len(label_names))
    if not named:
        raise InputError(
            f"{path} is damaged: its names are not those of its logits and labels; expected text [K] and a name for "
            f"every label; {sealed.AGAIN}"
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
