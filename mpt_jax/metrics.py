"""Flips between two models on the same images: exact integer counts first, then one division per rate."""

from typing import Any

import numpy as np

MEANINGS: dict[str, str] = {
    "count": "Number of images compared.",
    "both_right": "Number of images that both models classify correctly.",
    "negative_flips": "Number of images that the old model classifies correctly and the new one wrongly.",
    "positive_flips": "Number of images that the old model classifies wrongly and the new one correctly.",
    "both_wrong": "Number of images that both models classify wrongly.",
    "accuracy_old": "Share of the images that the old model classifies correctly.",
    "accuracy_new": "Share of the images that the new model classifies correctly.",
    "error_old": "Share of the images that the old model classifies wrongly.",
    "error_new": "Share of the images that the new model classifies wrongly.",
    "nfr": "Negative flip rate: share of the images that the old model had right and the new one has wrong.",
    "relative_nfr": "Negative flip rate relative to that of two models whose errors are unrelated; below 1 is better.",
    "pfr": "Positive flip rate: share of the images that the old model had wrong and the new one has right.",
    "nfi": "Share of the new model's errors that are negative flips.",
    "pfi": "Share of the new model's right answers that are positive flips.",
    "churn": "Share of the images on which the two models' predictions differ, right or wrong.",
    "nfr_mc": "Share of the images on which the new model is wrong and says something else than the old one.",
    "btc": "Share of the old model's right answers that stay right (backward trust compatibility).",
    "bec": "Share of the new model's errors that the old one made too (backward error compatibility).",
    "bec_old": "Share of the old model's errors that are still errors.",
    "accuracy": "Share of all the images that the new model classifies correctly.",
    "accuracy_old_classes": "The new model's accuracy on images of the old classes, choosing among all classes.",
    "accuracy_new_classes": "The new model's accuracy on images of the new classes; none without such images.",
    "accuracy_previous": "The old model's accuracy on images of the old classes.",
    "nfr_all_classes": "Negative flip rate on all the images; on new classes the old model is always wrong.",
}
"""One sentence for every key of `flip_metrics` and `class_growth_metrics`."""


def flip_metrics(old_predictions: Any, new_predictions: Any, labels: Any) -> dict[str, int | float]:
    """Compare two models' predictions on the same images.

    With `nf` negative and `pf` positive flips, `br` both right, `bw` both wrong, `n = br + nf + pf + bw`; 0/0 is 0.
    What each means in a sentence: `MEANINGS`.

    | key | formula |
    |---|---|
    | `count`, `both_right`, `negative_flips`, `positive_flips`, `both_wrong` | n, br, nf, pf, bw (integers) |
    | `accuracy_old`, `error_old` | (br + nf) / n, (pf + bw) / n |
    | `accuracy_new`, `error_new` | (br + pf) / n, (nf + bw) / n |
    | `nfr`, `pfr` | nf / n, pf / n |
    | `relative_nfr` | nfr / (accuracy_old * error_new) |
    | `nfi`, `pfi` | nfr / error_new, pfr / accuracy_new |
    | `churn` | mean(1[old != new]) |
    | `nfr_mc` | mean(1[new wrong and new != old]), over all images |
    | `btc` | br / (br + nf) |
    | `bec`, `bec_old` | bw / (nf + bw), bw / (pf + bw) |

    Args:
      old_predictions: integers, ``[n]``, NumPy or JAX.
      new_predictions: integers, ``[n]``.
      labels: integers, ``[n]``.

    Returns:
      Python integers for the counts, Python floats for the rates, as fractions from 0 to 1 (`relative_nfr` from 0).

    Raises:
      TypeError: not integers.
      ValueError: not of one dimension, of different lengths, or empty.

    Examples:
      >>> import numpy as np
      >>> labels = np.array([0, 0, 1, 1, 2])
      >>> flips = flip_metrics(np.array([0, 0, 1, 0, 0]), np.array([0, 1, 1, 1, 1]), labels)
      >>> flips["nfr"], flips["pfr"], flips["churn"], flips["btc"], flips["nfi"]
      (0.2, 0.2, 0.6, 0.6666666666666666, 0.5)

    Source: Yan et al., Positive-Congruent Training: Towards Regression-Free Model Updates, 2021 (nfr, relative_nfr);
    Echterhoff et al., MUSCLE: A Model Update Strategy for Compatible LLM Evolution, 2024 (nfr_mc);
    Srivastava et al., An Empirical Analysis of Backward Compatibility in Machine Learning Systems, 2020 (btc, bec).
    """
    old, new, labels = _predictions(old_predictions, new_predictions, labels)
    if not labels.size:
        raise ValueError("no images to compare; expected at least one")
    old_right, new_right, differ = old == labels, new == labels, old != new
    count = labels.size
    both_right = int(np.sum(old_right & new_right))
    negative = int(np.sum(old_right & ~new_right))
    positive = int(np.sum(~old_right & new_right))
    both_wrong = count - both_right - negative - positive
    right_old, right_new = both_right + negative, both_right + positive
    wrong_old, wrong_new = positive + both_wrong, negative + both_wrong
    return {
        "count": count,
        "both_right": both_right,
        "negative_flips": negative,
        "positive_flips": positive,
        "both_wrong": both_wrong,
        "accuracy_old": right_old / count,
        "accuracy_new": right_new / count,
        "error_old": wrong_old / count,
        "error_new": wrong_new / count,
        "nfr": negative / count,
        "relative_nfr": _ratio(negative * count, right_old * wrong_new),
        "pfr": positive / count,
        "nfi": _ratio(negative, wrong_new),
        "pfi": _ratio(positive, right_new),
        "churn": int(np.sum(differ)) / count,
        "nfr_mc": int(np.sum(~new_right & differ)) / count,
        "btc": _ratio(both_right, right_old),
        "bec": _ratio(both_wrong, wrong_new),
        "bec_old": _ratio(both_wrong, wrong_old),
    }


def class_growth_metrics(
    old_predictions: Any, new_predictions: Any, labels: Any, *, num_old_classes: int
) -> dict[str, float | None]:
    """Compare a model with its successor that knows more classes, by the protocol of the papers.

    Flips (`nfr relative_nfr pfr nfi churn btc`, see `flip_metrics`) are those on the images of the old classes, the
    new model choosing among all classes; `accuracy` and `nfr_all_classes` are on all the images.

    Args:
      old_predictions: integers below `num_old_classes`, ``[n]``, on all the images, NumPy or JAX.
      new_predictions: integers, ``[n]``.
      labels: integers, ``[n]``; those below `num_old_classes` are of old classes.
      num_old_classes: number of classes of the old model.

    Returns:
      Python floats, fractions from 0 to 1; `accuracy_new_classes` is None without images of new classes.

    Raises:
      TypeError: not integers.
      ValueError: as `flip_metrics`, no image of an old class, or an old prediction that is no old class.

    Examples:
      >>> import numpy as np
      >>> labels = np.array([0, 0, 1, 1, 2])
      >>> old, new = np.array([0, 0, 1, 0, 0]), np.array([0, 2, 1, 1, 2])
      >>> row = class_growth_metrics(old, new, labels, num_old_classes=2)
      >>> row["accuracy"], row["accuracy_new_classes"], row["nfr"], row["nfr_all_classes"]
      (0.8, 1.0, 0.25, 0.2)

    Source: Yan et al., Positive-Congruent Training: Towards Regression-Free Model Updates, 2021.
    """
    old, new, labels = _predictions(old_predictions, new_predictions, labels)
    if np.any(old >= num_old_classes):
        raise ValueError(f"old_predictions hold class {old.max()}; expected the old classes 0 to {num_old_classes - 1}")
    is_old = labels < num_old_classes
    if not is_old.any():
        raise ValueError(f"no image of an old class (label below {num_old_classes}); expected at least one")
    all_classes = flip_metrics(old, new, labels)
    old_classes = flip_metrics(old[is_old], new[is_old], labels[is_old])
    is_new = ~is_old
    return {
        "accuracy": all_classes["accuracy_new"],
        "accuracy_old_classes": old_classes["accuracy_new"],
        "accuracy_new_classes": float(np.mean(new[is_new] == labels[is_new])) if is_new.any() else None,
        "accuracy_previous": old_classes["accuracy_old"],
        **{key: old_classes[key] for key in ("nfr", "relative_nfr", "pfr", "nfi", "churn", "btc")},
        "nfr_all_classes": all_classes["nfr"],
    }


def _predictions(old: Any, new: Any, labels: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    arrays = {"old_predictions": old, "new_predictions": new, "labels": labels}
    arrays = {name: np.asarray(values) for name, values in arrays.items()}
    for name, values in arrays.items():
        if values.size and not np.issubdtype(values.dtype, np.integer):
            raise TypeError(f"{name} have dtype {values.dtype}; expected integers, the position of each class")
        if values.ndim != 1 or values.shape != arrays["labels"].shape:
            shapes = ", ".join(f"{key} {array.shape}" for key, array in arrays.items())
            raise ValueError(f"shapes do not fit: {shapes}; expected one integer per image in each")
    return tuple(arrays.values())


def _ratio(numerator: int, denominator: int) -> float:
    return numerator / denominator if denominator else 0.0
