"""Flips of the last release: per class, between classes, the images, and their margins."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence, Set
from typing import Any

import numpy as np

from mpt_jax import metrics
from mpt_jax.errors import InputError
from mpt_jax.report import class_changes
from mpt_jax.update import chain, lineage
from mpt_jax.update.class_change import ClassChange

_MOST_CONFUSIONS, _MOST_IMAGES, _BINS = 500, 24, 40


@dataclasses.dataclass(frozen=True)
class Pair:
    """A model and the one it replaces, on test images sorted by label: those of the old classes come first."""

    labels: np.ndarray  # [n]
    ids: np.ndarray  # [n]
    old: np.ndarray  # logits [n, K_old]
    new: np.ndarray  # logits [n, K]
    change: ClassChange | None = None  # of the classes; None: the old ones are the first of the new ones

    @property
    def before(self) -> np.ndarray:
        """The old model's predictions as classes of the new one, ``[n]``."""
        return metrics.as_new(self.old.argmax(-1), self.new.argmax(-1), self.labels, self.allowed)

    @property
    def allowed(self) -> np.ndarray | None:
        """Which classes each old one stands for."""
        return self.change.allowed if self.change else None


def has_predictions(folder: pathlib.Path, config: Mapping[str, Any], methods: Sequence[str]) -> bool:
    """Return whether the predictions of every model of the last update exist; a user may have deleted some."""
    last = len(config["update"]["schedule"]) - 1
    pairs = [p for method in methods for p in (lineage.previous(last, method), (last, method))]
    names = [lineage.release_name(*pair, seed) for pair in pairs for seed in config["seeds"]]
    return all(chain.predictions_path(folder, name).is_file() for name in names)


def read(
    predictions: chain.Predictions,
    config: Mapping[str, Any],
    method: str,
    seed: int,
    change: ClassChange | None = None,
) -> Pair:
    """Read the last release of a method and the previous one.

    Args:
      predictions: of the run.
      config: of the run.
      method: of the releases.
      seed: of the releases.
      change: of the classes by the last update.

    Raises:
      InputError: a file is missing or damaged, or the two are of different images.
    """
    last = len(config["update"]["schedule"]) - 1
    names = [lineage.release_name(*release, seed) for release in (lineage.previous(last, method), (last, method))]
    old, new = map(predictions, names)
    if not all(np.array_equal(old[key], new[key]) for key in ("labels", "ids")):
        raise InputError(
            f"predictions of {names[0]} and {names[1]} are of different images; run the same command again"
        )
    return Pair(new["labels"], new["ids"], old["logits"], new["logits"], change)


def describe(pairs: Sequence[Pair], num_old: int, thumbnails: Set[str]) -> dict[str, Any]:
    """Describe the flips of one method, given a pair per seed; classes are positions in the run's order.

    Returns:
      `per_class`: `count`, `negative_flips` and `positive_flips` of each old class, sums over the seeds. `confusion`:
      `[class, new prediction, negative flips]`, most first. Of the first seed: `images`, the negative flips with the
      most confident errors (only those with a thumbnail, if any has one), and `margins`.
    """
    known = [_known(pair, num_old) for pair in pairs]
    counts = [metrics.per_class_flips(p.before, p.new.argmax(-1), p.labels, num_classes=num_old) for p in known]
    return {
        "per_class": {
            key: np.sum([count[key] for count in counts], 0).tolist()
            for key in ("count", "negative_flips", "positive_flips")
        },
        "confusion": _confusion(known),
        "images": _images(known[0], thumbnails),
        "margins": _margins(known[0], num_old),
    }


def events(pairs: Sequence[Pair], num_old: int) -> dict[str, np.ndarray]:
    """Return for each image the share of seeds in which it is correct, and, of the old classes, in which it flips."""
    right = [pair.new.argmax(-1) == pair.labels for pair in pairs]
    known = [_known(pair, num_old) for pair in pairs]
    flipped = [metrics.is_negative_flip(p.before, p.new.argmax(-1), p.labels) for p in known]
    return {"accuracy": np.mean(right, 0), "nfr": np.mean(flipped, 0)}


def count_changes(pair: Pair) -> dict[str, list[int]]:
    """Return `class_changes.count` of a pair whose classes changed, on the images of classes that are not new."""
    assert pair.change is not None
    known = _known(pair, pair.change.num_carried)
    return class_changes.count(pair.change, known.old.argmax(-1), known.new.argmax(-1), known.labels)


def _known(pair: Pair, num_old: int) -> Pair:
    rows = slice(int(np.searchsorted(pair.labels, num_old)))
    return dataclasses.replace(pair, **{key: getattr(pair, key)[rows] for key in ("labels", "ids", "old", "new")})


def _confusion(pairs: Sequence[Pair]) -> list[list[int]]:
    flips = []
    for pair in pairs:
        rows = metrics.ranked_flips(pair.old, pair.new, pair.labels, allowed=pair.allowed)
        flips.append(np.stack([pair.labels[rows], pair.new[rows].argmax(-1)], -1))
    between, counts = np.unique(np.concatenate(flips), axis=0, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:_MOST_CONFUSIONS]
    return [[*map(int, between[i]), int(counts[i])] for i in order]


def _images(pair: Pair, thumbnails: Set[str]) -> list[dict[str, Any]]:
    if not np.isfinite(pair.new).all():
        return []  # predictions of a diverged model are meaningless
    rows = metrics.ranked_flips(pair.old, pair.new, pair.labels, allowed=pair.allowed)
    shown = [i for i in rows if not thumbnails or str(pair.ids[i]) in thumbnails][:_MOST_IMAGES]
    before, after = (metrics.confidences(logits[shown]) for logits in (pair.old, pair.new))
    return [
        {
            "id": str(pair.ids[i]),
            "label": int(pair.labels[i]),
            "answer": int(pair.new[i].argmax()),
            "confidence_old": round(float(before[n]), 4),
            "confidence_new": round(float(after[n]), 4),
        }
        for n, i in enumerate(shown)
    ]


def _margins(pair: Pair, num_old: int) -> dict[str, Any] | None:
    """Return histograms before and after, and medians: of all images, and in the old model of those that flip."""
    finite = np.isfinite(pair.old).all() and np.isfinite(pair.new).all()
    own = pair.change.in_common(pair.old, pair.labels) if pair.change else (pair.old, pair.labels)
    if not finite or num_old < 2 or own[0].shape[1] < 2 or not len(pair.labels):
        return None
    before, after = metrics.margins(*own), metrics.margins(pair.new, pair.labels)
    found = metrics.histograms(before, after, bins=_BINS)
    flipped = metrics.ranked_flips(pair.old, pair.new, pair.labels, allowed=pair.allowed)
    return {
        "edges": [round(float(edge), 5) for edge in found["edges"]],
        **{key: found[key].tolist() for key in ("before", "after")},
        "median_before": float(np.median(before)),
        "median_after": float(np.median(after)),
        "median_before_of_flipped": float(np.median(before[flipped])) if flipped.size else None,
    }
