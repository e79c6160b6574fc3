"""Old models of which only a file of predictions exists: their logits on the images of a run."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from mpt_jax import config as configs
from mpt_jax import data
from mpt_jax.config import Config
from mpt_jax.errors import InputError
from mpt_jax.files import sealed
from mpt_jax.files.predictions import columns, formats
from mpt_jax.update.external_model import SHOWN, files_per_seed, output_indices, output_names

SMALLEST = 1e-12  # probability before the logarithm is taken
_TOLERANCE = 1e-2  # of the sum of probabilities, which may be rounded to a few digits


@dataclasses.dataclass(frozen=True, eq=False)
class PrecomputedLogits:
    """Logits in place of models: one table for all seeds, or one per seed."""

    logits: np.ndarray  # float32 [1 or seeds, n, K_old]
    row_of: Mapping[str, int]  # by image id
    files: tuple[str, ...]  # one per table
    digests: tuple[str, ...]  # one per table

    def of(self, ids: np.ndarray) -> np.ndarray:
        """Return the logits on these images, ``[1 or seeds, len(ids), K_old]``."""
        return self.logits[:, [self.row_of[name] for name in ids.tolist()]]

    def one(self, i: int) -> "PrecomputedLogits":
        """Return the table of the i-th seed."""
        i %= len(self.files)
        return PrecomputedLogits(self.logits[i : i + 1], self.row_of, self.files[i : i + 1], self.digests[i : i + 1])


def read(config: Config, dataset: data.Dataset, classes: Sequence[str]) -> PrecomputedLogits:
    """Read the logits of `old.predictions` on the images that the run needs.

    These are the test images, the validation images of the first update, and its training images if a method learns
    from the old model.

    Args:
      classes: of the old model, in the order of the logits.

    Raises:
      InputError: images without a row or with several, scores that are not finite, or improper probabilities.
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
            f"different parts of {dataset.name} have images with the same id, which old.predictions="
            f"{config.old.predictions} cannot distinguish; expected ids that are unique in the data set"
        )
    paths = list(dict.fromkeys(files_per_seed(config.old.predictions, config)))
    part_of = np.repeat(list(parts), [len(ids) for ids in parts.values()])
    logits = [_read_file(path, row_of, part_of, config, classes) for path in paths]
    ids = np.array(list(row_of))
    digests = tuple(sealed.digest({"ids": ids, "logits": values}) for values in logits)
    return PrecomputedLogits(np.stack(logits), row_of, tuple(map(str, paths)), digests)


def _read_file(
    path: pathlib.Path, row_of: Mapping[str, int], part_of: np.ndarray, config: Config, classes: Sequence[str]
) -> np.ndarray:
    """Read a file's logits into the rows of `row_of`, ``float32 [n, K_old]``, with the old classes in order."""
    count = len(classes)
    source = formats.open_source(path, str(path))
    scores = np.full((len(row_of), count), np.nan, np.float32)
    times_found = np.zeros(len(row_of), np.int64)
    first = None
    for ids, values, names in columns.read_scores(source):
        first = ids[0] if first is None and len(ids) else first
        if values.shape[1] != count:
            raise InputError(
                f"{path} has scores of {values.shape[1]} classes, but the old model of update.schedule="
                f"{list(config.update.schedule)} knows {count}; expected {count} scores per row"
            )
        rows = np.array([-1 if name is None else row_of.get(name, -1) for name in ids], np.int64)
        needed = np.flatnonzero(rows >= 0)
        outputs = output_names(path, names, configs.old_classes(config))
        indices = output_indices(outputs, classes, config, path)
        np.add.at(times_found, rows[needed], 1)
        scores[rows[needed]] = values[needed][:, indices]
    probabilities = columns.score_columns(source)[0].startswith("probabilit")
    try:
        _check_rows(path, list(row_of), part_of, times_found, scores, probabilities)
    except InputError as error:
        if times_found.any():
            raise
        raise InputError(f"{error}; none of the file's ids is an image of the run, the first is {first!r}") from error
    return np.log(np.maximum(scores, np.float32(SMALLEST))) if probabilities else scores


def _check_rows(
    path: pathlib.Path,
    ids: list[str],
    part_of: np.ndarray,
    times_found: np.ndarray,
    scores: np.ndarray,
    probabilities: bool,
) -> None:
    """Require one row of finite scores for each image, and proper probabilities."""
    found = times_found > 0
    not_finite = found & ~np.isfinite(scores).all(-1)
    problems = {f"{part} images without a row": (part_of == part) & ~found for part in dict.fromkeys(part_of.tolist())}
    problems["ids in more than one row"] = times_found > 1
    problems["rows with scores that are not finite numbers"] = not_finite
    if probabilities:
        improper = (np.abs(scores.sum(-1) - 1) > _TOLERANCE) | (scores < 0).any(-1)
        problems[f"rows with probabilities below 0 or whose sum is not 1 to within {_TOLERANCE}"] = (
            found & ~not_finite & improper
        )
    texts = []
    for what, mask in problems.items():
        if rows := np.flatnonzero(mask).tolist():
            shown = ", ".join(repr(ids[row]) for row in rows[:SHOWN]) + ", ..." * (len(rows) > SHOWN)
            texts.append(f"{what} ({len(rows):,}): {shown}")
    if texts:
        raise InputError(
            f"old.predictions={path}: {'; '.join(texts)}; expected one row of finite scores for each image"
        )


def _known(split: data.Split, num_classes: int) -> np.ndarray:
    return split.ids[: data.count(split, num_classes)]
