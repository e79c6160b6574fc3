"""An old model from elsewhere: its classes and their order, weights that PyTorch saved, or a file of its logits."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from flax import linen as nn

from mpt_jax import config as configs
from mpt_jax import data
from mpt_jax.config import Config
from mpt_jax.errors import InputError
from mpt_jax.files import sealed
from mpt_jax.files.predictions import columns, formats
from mpt_jax.models import Classifier, pytorch_weights

SMALLEST = 1e-12  # of a probability, whose logarithm is taken
_OFF = 1e-2  # by how much probabilities may miss a sum of 1: they may be rounded to a few digits
_NAMED = 5  # of the images that something is wrong with


@dataclasses.dataclass(frozen=True, eq=False)
class PrecomputedLogits:
    """Models that are known by their answers alone: one for all seeds, or one for each."""

    logits: np.ndarray  # float32 [1 or seeds, n, K_old]
    row_of: Mapping[str, int]  # by the image's id
    files: tuple[str, ...]  # as many as logits
    digests: tuple[str, ...]  # likewise

    def of(self, ids: np.ndarray) -> np.ndarray:
        """Their logits on these images, ``[1 or seeds, len(ids), K_old]``."""
        return self.logits[:, [self.row_of[name] for name in ids.tolist()]]

    def one(self, i: int) -> "PrecomputedLogits":
        """The model of the i-th seed."""
        i %= len(self.files)
        return PrecomputedLogits(self.logits[i : i + 1], self.row_of, self.files[i : i + 1], self.digests[i : i + 1])


def class_order(config: Config, released: Sequence[str] = ()) -> Any:
    """`dataset.class_order`; where it is "natural", the old model's classes first and all others after.

    Args:
      released: the classes of the model that `update.old` names. Of others `old.classes` or the predictions tell.

    Raises:
      InputError: predictions that cannot be read, or that disagree with `old.classes`.

    Examples:
      >>> class_order(Config(), ["owl", "cat"]), class_order(Config())
      (('owl', 'cat', '...'), 'natural')
    """
    spec, names = config.dataset.class_order, tuple(released) or configs.old_classes(config)
    if config.old.predictions:
        path = _paths(config.old.predictions, config)[0]
        _, _, called = next(columns.read_scores(formats.open_source(path, str(path))), ((), None, None))
        names = _outputs(path, called, names)
    return (*names, "...") if spec == "natural" and names and (released or not _are_places(names)) else spec


def require_weights(config: Config) -> None:
    """Find out before any data are read whether the files of `old.weights` are there.

    Raises:
      InputError: no such file, or one of another kind.
    """
    for path in _paths(config.old.weights, config) if config.old.weights else ():
        pytorch_weights.check_file(path)


def read_weights(
    config: Config,
    dataset: data.Dataset,
    module: nn.Module,
    normalization: tuple[np.ndarray, np.ndarray],
) -> list[tuple[Classifier, dict[str, Any]]]:
    """The old models of `old.weights`, one per seed, as `update.old` would give them: classifier and card.

    Args:
      module: the network of the first release.
      normalization: mean and std of its inputs.

    Raises:
      InputError: files or arrays that do not fit the network.
    """
    name, count = configs.old_model_of(config).name, config.update.schedule[0]
    shape, classes = dataset.train.images.shape[1:], dataset.class_names[:count]
    result = {}
    for path in dict.fromkeys(_paths(config.old.weights, config)):
        state = pytorch_weights.read(path)
        try:
            params, batch_stats = pytorch_weights.convert(state, module, shape)
        except InputError as error:
            raise InputError(
                f"{path} does not fit {name} with {count} classes on images of shape {list(shape)}: {error}; "
                "expected the network of old_model (without a name: of model) with its stem, update.schedule's first "
                "number of classes, and dataset.image_size and channels as in its training"
            ) from error
        places = _places(configs.old_classes(config), classes, config, path)
        params["head"] = {name: np.ascontiguousarray(values[..., places]) for name, values in params["head"].items()}
        card = {
            "classes": list(classes),
            "image_shape": list(shape),
            "dataset": "unknown",
            "objective": {},
            **{"steps": 0, "seconds": 0.0, "examples_per_second": 0.0, "adopted_from": str(path)},
        }
        result[path] = Classifier(module, params, batch_stats, *normalization), card
    return [result[path] for path in _paths(config.old.weights, config)]


def read_predictions(config: Config, dataset: data.Dataset) -> PrecomputedLogits:
    """The old models of `old.predictions`: their logits on all images that a run asks them about, and no others.

    These are the test images, the validation images of the first update, and its training images where a method learns
    from the old model.

    Raises:
      InputError: images without a row or with several, values that are not finite or no probabilities.
    """
    num_classes = config.update.schedule[1]
    parts = {"test": dataset.test.ids, "validation": _known(dataset.validation, num_classes)}
    if "old" in configs.sources(config):
        parts["training"] = _known(dataset.train, num_classes)
    row_of: dict[str, int] = {}
    for ids in parts.values():
        row_of |= zip(ids.tolist(), range(len(row_of), len(row_of) + len(ids)), strict=True)
    if len(row_of) != sum(map(len, parts.values())):
        raise InputError(
            f"images of {dataset.name} in different parts have the same id, and old.predictions="
            f"{config.old.predictions} cannot tell them apart; expected ids that are unique in the whole data set"
        )
    paths = dict.fromkeys(_paths(config.old.predictions, config))
    ends = np.cumsum([len(ids) for ids in parts.values()])
    logits = [_logits(path, row_of, dict(zip(parts, ends, strict=True)), config, dataset) for path in paths]
    ids = np.array(list(row_of))
    digests = tuple(sealed.digest({"ids": ids, "logits": values}) for values in logits)
    return PrecomputedLogits(
        np.stack(logits) if len(logits) > 1 else logits[0][None], row_of, tuple(map(str, paths)), digests
    )


def _logits(
    path: pathlib.Path,
    row_of: Mapping[str, int],
    ends: Mapping[str, int],
    config: Config,
    dataset: data.Dataset,
) -> np.ndarray:
    """One file's logits, ``float32 [n, K_old]``, in the rows of `row_of` and with the run's old classes in order."""
    count = config.update.schedule[0]
    source = formats.open_source(path, str(path))
    answers = np.full((len(row_of), count), np.nan, np.float32)
    times = np.zeros(len(row_of), np.int64)
    for ids, scores, names in columns.read_scores(source):
        if scores.shape[1] != count:
            raise InputError(
                f"{path} has scores of {scores.shape[1]} classes, but update.schedule={list(config.update.schedule)} "
                f"says that the old model knows {count}; expected as many"
            )
        rows = np.array([row_of.get(name, -1) for name in ids], np.int64)
        asked = np.flatnonzero(rows >= 0)
        outputs = _outputs(path, names, configs.old_classes(config))
        places = _places(outputs, dataset.class_names[:count], config, path)
        np.add.at(times, rows[asked], 1)
        answers[rows[asked]] = scores[asked][:, places]
    probabilities = columns.score_columns(source)[0].startswith("probabilit")
    wrong = (times > 0) & ~np.isfinite(answers).all(-1)
    improper = np.zeros_like(wrong)
    if probabilities:
        improper = (times > 0) & ~wrong & ((np.abs(answers.sum(-1) - 1) > _OFF) | (answers < 0).any(-1))
    begin, found = 0, []
    for part, end in ends.items():
        found.append((f"{part} images without a row", begin + np.flatnonzero(times[begin:end] == 0)))
        begin = end
    found += [
        ("ids that are there more than once", np.flatnonzero(times > 1)),
        ("rows with scores that are not finite numbers", np.flatnonzero(wrong)),
        (f"rows with probabilities below 0 or not of sum 1 to within {_OFF}", np.flatnonzero(improper)),
    ]
    names = list(row_of)
    problems = [
        f"{what} ({rows.size:,}): {', '.join(map(repr, [names[row] for row in rows[:_NAMED]]))}"
        + ", ..." * (rows.size > _NAMED)
        for what, rows in found
        if rows.size
    ]
    if problems:
        raise InputError(
            f"old.predictions={path}: {'; '.join(problems)}; expected one row of finite scores for each image"
        )
    return np.log(np.maximum(answers, np.float32(SMALLEST))) if probabilities else answers


def _outputs(path: pathlib.Path, named: tuple[str, ...] | None, given: tuple[str, ...]) -> tuple[str, ...]:
    """The classes of a file's scores: as the file says, its numbers being places among those that the config gives."""
    if not given or not named or named == given:
        return named or given
    if _are_places(named) and len(named) == len(given):
        return tuple(given[int(name)] for name in named)
    raise InputError(
        f"{path} has scores of the classes {', '.join(named[:_NAMED])} ..., but old.classes={','.join(given[:_NAMED])} "
        "...; expected the same, numbers from 0 on, or no old.classes"
    )


def _are_places(names: Sequence[str]) -> bool:
    """Whether these are the numbers from 0 on, in any order."""
    return sorted(names) == sorted(map(str, range(len(names))))


def _places(outputs: Sequence[str], classes: Sequence[str], config: Config, path: pathlib.Path) -> list[int]:
    """For each of the run's old classes the old model's output; numbers that name no class are places in the order."""
    if not outputs:
        return list(range(len(classes)))
    by_place = _are_places(outputs) and not _are_places(classes)
    wanted = [str(i) for i in range(len(classes))] if by_place else list(classes)
    lacking = [name for name in wanted if name not in outputs]
    if lacking:
        numbered = all(name.isdecimal() for name in outputs)
        remedy = (
            "its columns numbered from 0 on or called by their classes" if numbered else "old.classes with their names"
        )
        raise InputError(
            f"the classes of {path} are {', '.join(outputs[:_NAMED])}{' ...' * (len(outputs) > _NAMED)}, without "
            f"{lacking[0]!r}, one of the first {len(classes)} of dataset.class_order={config.dataset.class_order!r}; "
            f"expected an order that begins with the old model's classes, or {remedy}"
        )
    return [list(outputs).index(name) for name in wanted]


def _paths(pattern: str, config: Config) -> list[pathlib.Path]:
    """A file per seed."""
    return [pathlib.Path(pattern.replace("{seed}", str(seed))) for seed in config.seeds]


def _known(split: data.Split, num_classes: int) -> np.ndarray:
    return split.ids[: data.count(split, num_classes)]
