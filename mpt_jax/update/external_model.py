"""An old model that this package did not train: its classes and their order, and weights from PyTorch.

`precomputed_logits` has old models of which only a file of predictions exists.
"""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from flax import linen as nn

from mpt_jax import config as configs
from mpt_jax import data
from mpt_jax.config import Config
from mpt_jax.errors import InputError
from mpt_jax.files import weights
from mpt_jax.files.predictions import columns, formats
from mpt_jax.models import Classifier, pytorch_weights

SHOWN = 5  # class names or ids in an error message


def class_names(config: Config, released: Sequence[str] = ()) -> tuple[str, ...]:
    """Return the names of the old model's classes in the order of its outputs; none if they are not known.

    Args:
      released: the classes of the model that `update.old` names. For other old models the names come from `old.classes`
        or from the predictions.

    Raises:
      InputError: predictions that cannot be read, or that disagree with `old.classes`.

    Examples:
      >>> class_names(Config(), ["owl", "cat"])
      ('owl', 'cat')
    """
    names = tuple(released) or configs.old_classes(config)
    if config.old.predictions:
        path = files_per_seed(config.old.predictions, config)[0]
        _, _, in_file = next(columns.read_scores(formats.open_source(path, str(path))), ((), None, None))
        names = output_names(path, in_file, names)
    return names if released or not _are_indices(names) else ()


def class_order(config: Config, known: Sequence[str]) -> Any:
    """Return `dataset.class_order`; if it is "natural", the classes that the old model knows come first, then others.

    Examples:
      >>> class_order(Config(), ["owl", "cat"]), class_order(Config(), [])
      (('owl', 'cat', '...'), 'natural')
    """
    order = config.dataset.class_order
    return (*known, "...") if order == "natural" and known else order


def require_weights(config: Config) -> None:
    """Check, before any data are read, that the files of `old.weights` exist and are of a known kind.

    Raises:
      InputError: no such file, or one of another kind.
    """
    for path in files_per_seed(config.old.weights, config) if config.old.weights else ():
        weights.check_file(path)


def read_weights(
    config: Config,
    dataset: data.Dataset,
    classes: Sequence[str],
    module: nn.Module,
    normalization: tuple[np.ndarray, np.ndarray],
) -> list[tuple[Classifier, dict[str, Any]]]:
    """Read the old models of `old.weights`: a classifier and a card per seed, as for a model that `update.old` names.

    Args:
      classes: of the first release.
      module: its network.
      normalization: mean and std of its inputs.

    Raises:
      InputError: files or arrays that do not fit the network.
    """
    name, count, shape = configs.old_model_of(config).name, len(classes), dataset.train.images.shape[1:]
    result = {}
    for path in dict.fromkeys(files_per_seed(config.old.weights, config)):
        state, dialect = weights.read(path), ""
        try:
            state, dialect, _ = pytorch_weights.select(state, module, shape, config.old.strip)
            params, batch_stats = pytorch_weights.convert(state, module, shape, dialect=dialect)
        except InputError as error:
            raise InputError(
                f"old.weights={path} does not fit {name} with {count} classes on images of shape {list(shape)}: "
                f"{error}; expected the network of old_model (without a name, of model) and its stem, the first number "
                f"of update.schedule, and dataset.image_size and channels as in its training"
                f"{_hint(state, module, dialect, count)}"
            ) from error
        outputs = output_indices(configs.old_classes(config), classes, config, path)
        params["head"] = {name: np.ascontiguousarray(values[..., outputs]) for name, values in params["head"].items()}
        card = {
            "classes": list(classes),
            "image_shape": list(shape),
            "dataset": "unknown",
            "objective": {},
            **{"steps": 0, "seconds": 0.0, "examples_per_second": 0.0, "adopted_from": str(path)},
        }
        result[path] = Classifier(module, params, batch_stats, *normalization), card
    return [result[path] for path in files_per_seed(config.old.weights, config)]


def _hint(state: Mapping[str, np.ndarray], module: nn.Module, dialect: str, count: int) -> str:
    """Return what a file with another number of classes is good for."""
    heads = [state[name] for name in pytorch_weights.head_names(module, dialect) if name in state]
    outputs = {head.shape[0] for head in heads if head.ndim} - {count}
    if not outputs:
        return ""
    return f"; to start from these weights of {outputs.pop():,} classes, give model.pretrained in place of old.weights"


def files_per_seed(pattern: str, config: Config) -> list[pathlib.Path]:
    """Return the file of each seed; several seeds may share one."""
    return [pathlib.Path(pattern.replace("{seed}", str(seed))) for seed in config.seeds]


def output_names(path: pathlib.Path, in_file: tuple[str, ...] | None, in_config: tuple[str, ...]) -> tuple[str, ...]:
    """Return the classes of a file's scores; numbers in the file are indices into `old.classes`.

    Raises:
      InputError: the file and `old.classes` name different classes.
    """
    if not in_config or not in_file or in_file == in_config:
        return in_file or in_config
    if _are_indices(in_file) and len(in_file) == len(in_config):
        return tuple(in_config[int(name)] for name in in_file)
    raise InputError(
        f"{path} has scores of the classes {', '.join(in_file[:SHOWN])} ..., but old.classes="
        f"{','.join(in_config[:SHOWN])} ...; expected the same classes, numbers from 0 on, or no old.classes"
    )


def output_indices(outputs: Sequence[str], classes: Sequence[str], config: Config, path: pathlib.Path) -> list[int]:
    """Return the old model's output for each of the run's old classes.

    Args:
      outputs: names of its outputs, or numbers if these are positions in the class order; empty: in the class order.
      classes: the run's old classes.
      config: for messages.
      path: for messages.

    Raises:
      InputError: a class without an output.
    """
    if not outputs:
        return list(range(len(classes)))
    by_position = _are_indices(outputs) and not _are_indices(classes)
    needed = [str(i) for i in range(len(classes))] if by_position else list(classes)
    missing = [name for name in needed if name not in outputs]
    if missing:
        remedy = "old.classes with their names"
        if all(name.isdecimal() for name in outputs):
            remedy = "columns that are numbered from 0 on or named by their classes"
        raise InputError(
            f"the classes of {path} are {', '.join(outputs[:SHOWN])}{' ...' * (len(outputs) > SHOWN)}, without "
            f"{missing[0]!r}, one of the first {len(classes)} of dataset.class_order={config.dataset.class_order!r}; "
            f"expected an order that begins with the old model's classes, or {remedy}"
        )
    return [list(outputs).index(name) for name in needed]


def _are_indices(names: Sequence[str]) -> bool:
    """Return whether these are the numbers from 0 on, in any order."""
    return sorted(names) == sorted(map(str, range(len(names))))
