"""A released model made of weights that PyTorch saved, with their own head."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mpt_jax import models
from mpt_jax.data import COVER, Resizing
from mpt_jax.errors import InputError, listed, unknown
from mpt_jax.export import output
from mpt_jax.files import released_model, weights
from mpt_jax.models import Classifier, pytorch_weights, recognition, registry
from mpt_jax.runtime import regular_file


def write(
    source: str,
    folder: pathlib.Path,
    *,
    model: str,
    image_size: Sequence[int],
    classes: str = "",
    options: Mapping[str, Any] | None = None,
    strip: str = "",
    mean: Sequence[float] = (),
    std: Sequence[float] = (),
    resizing: Resizing = COVER,
) -> dict[str, Any]:
    """Write a weight file and its head as a released model to a new or empty folder.

    Args:
      source: a file, or `package:NAME`, as for `model.pretrained`.
      folder: target.
      model: name of the network.
      image_size: height and width of its inputs, or one side.
      classes: a file with the name of a class in each line, in the order of the outputs; empty: their numbers, from 0.
      options: of the network.
      strip: prefix of the names in the file; empty: found.
      mean: of the inputs per channel, in units of pixel / 255; empty: that of the package's weights.
      std: likewise.
      resizing: how image files are brought to the size.

    Returns:
      Contents of the card.

    Raises:
      InputError: a folder that is not empty, an unknown network, weights that cannot be read or do not fit it, a file
        without a head, or other numbers of classes or channels than the head and the images have.
      OSError: the disk is full, or cannot be written.
    """
    output.require_new(folder)
    if model not in registry.WITH_WEIGHTS:
        raise InputError(unknown(f"--model {model!r}", model, registry.WITH_WEIGHTS))
    path = weights.find(source)
    if path.is_dir():
        raise InputError(f"{source} is a folder; expected a weight file of PyTorch, or package:NAME")
    shape = (image_size[0], image_size[-1], 3)
    classifier, dialect = _read(path, source, model, shape, dict(options or {}), strip)
    if mean or std:
        classifier = classifier.replace(mean=np.asarray(mean, np.float32), std=np.asarray(std, np.float32))
        if {len(mean), len(std)} != {shape[-1]}:
            raise InputError(
                f"--mean has {len(mean)} values and --std {len(std)}; expected one per channel, {shape[-1]}"
            )
        if not (np.isfinite([*mean, *std]).all() and min(std) > 0):
            raise InputError(f"--mean {list(mean)} and --std {list(std)}; expected finite numbers, and std above 0")
    card = {
        **{"name": folder.name, "method": "old", "release": 0, "seed": 0, "dataset": "unknown", "objective": {}},
        **{"steps": 0, "seconds": 0.0, "examples_per_second": 0.0, "parents": {}, "metrics": {}},
        "architecture": {"name": model, "options": {"dtype": "float32", **(options or {})}},
        "image_shape": list(shape),
        "resizing": resizing._asdict(),
        "classes": _class_names(classes, classifier.module.num_classes),
        "pretrained": {"source": source, "digest": released_model.identity(classifier), "names": dialect},
    }
    released_model.write(folder, classifier, card)
    return released_model.read_card(folder)


def _read(
    path: pathlib.Path, source: str, model: str, shape: tuple[int, int, int], options: Mapping[str, Any], strip: str
) -> tuple[Classifier, str]:
    """Return the network with its head and the package's normalisation, and the package whose names the file has."""
    everything, some = weights.read(path), models.build(model, 2, **options)
    try:
        state, dialect, _ = pytorch_weights.select(everything, some, shape, strip)
        names = pytorch_weights.head_names(some, dialect)
        outputs = {state[name].shape[0] for name in names if name in state and state[name].ndim}
        module = models.build(model, min(outputs, default=1), **options)
        params, batch_stats = pytorch_weights.convert(state, module, shape, dialect=dialect)
    except InputError as error:
        if not recognition.fits(everything, some, shape, strip):
            found = recognition.network_of(everything, strip).get("name")
            remedy = f"; these are weights of {found}: expected --model {found}" if found else ""
        elif not outputs:
            remedy = "; expected the weights of a classifier, or model.pretrained to train a head on these"
        else:
            remedy = "; expected --image-size as in its training"
        raise InputError(f"{source} does not fit --model {model}: {error}{remedy}") from error
    mean, std = np.asarray(registry.dialects(module)[dialect].statistics, np.float32)
    return Classifier(module, params, batch_stats, mean, std), dialect


def _class_names(file: str, count: int) -> list[str]:
    """Read the name of each output.

    Raises:
      InputError: no such file, or names that are not one for each output.
    """
    if not file:
        return [str(number) for number in range(count)]
    try:
        names = [line.strip() for line in regular_file.read_text(file, "utf-8-sig").splitlines()]
    except (OSError, ValueError) as error:
        raise InputError(
            f"--classes {file} cannot be read ({regular_file.reason(error)}); expected a text file"
        ) from error
    while names and not names[-1]:
        names.pop()
    if len(names) != count:
        raise InputError(
            f"--classes {file} has {len(names)} lines, but the head has {count} outputs; expected a name for each"
        )
    if wrong := [f"{name!r}" for name in dict.fromkeys(names) if not name or names.count(name) > 1]:
        raise InputError(f"--classes {file} has empty or repeated names: {listed(wrong)}; expected one for each class")
    return names
