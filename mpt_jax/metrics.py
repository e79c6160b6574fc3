"""Flips between models on the same images: exact integer counts first, then one division per rate.

- Two models: `as_new`, `flip_metrics`, `class_growth_metrics`, `per_class_flips`, `ranked_flips`, `confidences`,
  `margins`.
- A sequence of releases: `sequence_metrics`, `mean_of_sequences`.
- Many candidates: `pareto_front`, `nfr_at_accuracy`.
- Uncertainty: `wilson_interval`, `effective_rows`, `mcnemar_exact`, `bootstrap_nfr_difference`.
"""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

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
    "nfr": "Negative flip rate: share of the images that the old model classifies correctly and the new one wrongly.",
    "relative_nfr": "Negative flip rate relative to that of two models whose errors are unrelated; below 1 is better.",
    "pfr": "Positive flip rate: share of the images that the old model classifies wrongly and the new one correctly.",
    "nfi": "Share of the new model's errors that are negative flips.",
    "pfi": "Share of the new model's correct predictions that are positive flips.",
    "churn": "Share of the images on which the two models' predictions differ, right or wrong.",
    "nfr_mc": "Share of the images on which the new model is wrong and its prediction differs from the old model's.",
    "btc": "Share of the old model's correct predictions that stay correct (backward trust compatibility).",
    "bec": "Share of the new model's errors that the old model made too (backward error compatibility).",
    "bec_old": "Share of the old model's errors that are still errors.",
    "accuracy": "Share of all the images that the new model classifies correctly.",
    "accuracy_old_classes": "The new model's accuracy on images of the old classes, choosing among all classes.",
    "accuracy_new_classes": "The new model's accuracy on images of the new classes; none without such images.",
    "accuracy_previous": "The old model's accuracy on images of the old classes.",
    "nfr_all_classes": "Negative flip rate on all the images; on new classes the old model is always wrong.",
    "accuracy_of_release": "Per release: its accuracy on images of all the classes that it knows.",
    "nfr_against_previous": "Per release: negative flip rate against the previous release, on images of its classes.",
    "flips_against": "Per release and ancestor: number of images that were right in the ancestor and are wrong in it.",
    "cumulative_flips": "Per release: number of images that are wrong in it and were right in any ancestor.",
    "cumulative_nfr": "Per release: its cumulative flips as a share of the images of the previous release's classes.",
    "task_accuracy": "Per release and task (the classes that one release added): accuracy on the task's images.",
    "average_incremental_accuracy": "Mean over all releases, including the first, of the accuracy on known classes.",
    "forgetting": "Per release: how far the accuracy on earlier tasks is below its best so far, averaged over them.",
}
"""The meaning of every key of `flip_metrics`, `class_growth_metrics` and `sequence_metrics`."""


def as_new(
    old_predictions: np.ndarray, new_predictions: np.ndarray, labels: np.ndarray, allowed: np.ndarray | None
) -> np.ndarray:
    """Return an old model's predictions as classes of the new one, if an update changes the classes.

    A prediction is read as the label if it stands for that, else as the new prediction if it stands for that, else as
    -1. So it is right where it equals the label, and an image is unchanged where it equals the new prediction.

    Args:
      old_predictions: positions among the old classes, ``[n]``.
      new_predictions: positions among the new classes, ``[n]``.
      labels: positions among the new classes, ``[n]``.
      allowed: which new classes each old one stands for, ``[K_old, K]``, see `class_map.matrix`; None: its own
        position, and the predictions are returned as they are.

    Examples:
      >>> allowed = np.array([[1, 1, 0], [0, 0, 1]], bool)  # the first class is split
      >>> as_new(np.array([0, 0, 0, 1]), np.array([1, 1, 0, 0]), np.array([1, 0, 2, 2]), allowed).tolist()
      [1, 0, 0, 2]
    """
    if allowed is None:
        return old_predictions
    agrees = np.where(allowed[old_predictions, new_predictions], new_predictions, -1)
    return np.where(allowed[old_predictions, labels], labels, agrees)


def is_negative_flip(old_predictions: np.ndarray, new_predictions: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return for each image whether it flips negatively: ``old == label and new != label``.

    This is the one definition. Two functions count by other means: `posttraining.posthoc_curve` by subtraction, at all
    biases in one pass, and `sequence_metrics` images that any earlier release gets right.

    Args:
      old_predictions: integers, ``[n]``.
      new_predictions: integers, ``[n]``.
      labels: integers, ``[n]``.

    Returns:
      Booleans, ``[n]``.

    Examples:
      >>> is_negative_flip(np.array([0, 0, 1]), np.array([0, 1, 0]), np.array([0, 0, 0])).tolist()
      [False, True, False]

    Source: Yan et al., Positive-Congruent Training: Towards Regression-Free Model Updates, 2021.
    """
    return (old_predictions == labels) & (new_predictions != labels)


def flip_metrics(
    old_predictions: ArrayLike, new_predictions: ArrayLike, labels: ArrayLike, *, weights: np.ndarray | None = None
) -> dict[str, int | float]:
    """Compare two models' predictions on the same images.

    With `nf` negative and `pf` positive flips, `br` both right, `bw` both wrong, `n = br + nf + pf + bw`; 0/0 is 0.
    `MEANINGS` explains each in a sentence.

    - `count`, `both_right`, `negative_flips`, `positive_flips`, `both_wrong`: n, br, nf, pf, bw (integers)
    - `accuracy_old`, `error_old`: (br + nf) / n, (pf + bw) / n
    - `accuracy_new`, `error_new`: (br + pf) / n, (nf + bw) / n
    - `nfr`, `pfr`: nf / n, pf / n
    - `relative_nfr`: nfr / (accuracy_old * error_new)
    - `nfi`, `pfi`: nfr / error_new, pfr / accuracy_new
    - `churn`: mean(1[old != new])
    - `nfr_mc`: mean(1[new wrong and new != old]), over all images
    - `btc`: br / (br + nf)
    - `bec`, `bec_old`: bw / (nf + bw), bw / (pf + bw)

    Args:
      old_predictions: integers, ``[n]``, NumPy or JAX.
      new_predictions: integers, ``[n]``.
      labels: integers, ``[n]``.
      weights: how much each image counts in the rates, 0 or more and not all 0, ``[n]``: nf, pf, br, bw and n are then
        sums of weights. The counts stay numbers of images.

    Returns:
      Python integers for the counts, Python floats for the rates, as fractions from 0 to 1 (`relative_nfr` from 0).

    Raises:
      TypeError: not integers.
      ValueError: not one-dimensional, of different lengths, or empty.

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
    groups = {
        "count": np.ones(labels.size, bool),
        "both_right": old_right & new_right,
        "negative_flips": is_negative_flip(old, new, labels),
        "positive_flips": ~old_right & new_right,
        "both_wrong": ~old_right & ~new_right,
        "churn": differ,
        "nfr_mc": ~new_right & differ,
    }
    counts: dict[str, int] = {key: int(np.count_nonzero(group)) for key, group in groups.items()}
    totals: Mapping[str, float] = counts
    if weights is not None:
        totals = {key: float(weights[group].sum()) for key, group in groups.items()}
    _, both_right, negative, positive, both_wrong, changed, changed_and_wrong = totals.values()
    count = both_right + negative + positive + both_wrong  # of weights, not below a part of it by rounding
    right_old, right_new = both_right + negative, both_right + positive
    wrong_old, wrong_new = positive + both_wrong, negative + both_wrong
    return {
        **{key: counts[key] for key in ("count", "both_right", "negative_flips", "positive_flips", "both_wrong")},
        "accuracy_old": right_old / count,
        "accuracy_new": right_new / count,
        "error_old": wrong_old / count,
        "error_new": wrong_new / count,
        "nfr": negative / count,
        "relative_nfr": _ratio(negative * count, right_old * wrong_new),
        "pfr": positive / count,
        "nfi": _ratio(negative, wrong_new),
        "pfi": _ratio(positive, right_new),
        "churn": min(1.0, changed / count),
        "nfr_mc": min(1.0, changed_and_wrong / count),
        "btc": _ratio(both_right, right_old),
        "bec": _ratio(both_wrong, wrong_new),
        "bec_old": _ratio(both_wrong, wrong_old),
    }


def class_growth_metrics(
    old_predictions: ArrayLike,
    new_predictions: ArrayLike,
    labels: ArrayLike,
    *,
    num_old_classes: int,
    allowed: np.ndarray | None = None,
) -> dict[str, float | None]:
    """Compare a model with its successor that knows more classes, with the protocol of the papers.

    Flips (`nfr relative_nfr pfr nfi churn btc`, see `flip_metrics`) are counted on the images of the old classes, while
    the new model chooses among all classes. `accuracy` and `nfr_all_classes` are computed on all images.

    Args:
      old_predictions: integers below `num_old_classes`, ``[n]``, on all images, NumPy or JAX.
      new_predictions: integers, ``[n]``.
      labels: integers, ``[n]``; those below `num_old_classes` are of old classes.
      num_old_classes: number of classes of the old model; with `allowed`, of the classes that any old one stands for.
      allowed: which classes each prediction of the old model stands for, see `as_new`; None: its own.

    Returns:
      Python floats, fractions from 0 to 1; `accuracy_new_classes` is None without images of new classes.

    Raises:
      TypeError: not integers.
      ValueError: as `flip_metrics`, no image of an old class, or an old prediction that is not an old class.

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
    if allowed is None and np.any(old >= num_old_classes):
        raise ValueError(f"old_predictions hold class {old.max()}; expected the old classes 0 to {num_old_classes - 1}")
    is_old = labels < num_old_classes
    if not is_old.any():
        raise ValueError(f"no image of an old class (label below {num_old_classes}); expected at least one")
    old = as_new(old, new, labels, allowed)
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


def per_class_flips(
    old_predictions: ArrayLike,
    new_predictions: ArrayLike,
    labels: ArrayLike,
    *,
    num_classes: int,
    weights: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """Count as in `flip_metrics` for each true class.

    Args:
      old_predictions: integers, ``[n]``, NumPy or JAX.
      new_predictions: integers, ``[n]``.
      labels: integers from 0 to `num_classes` - 1, ``[n]``.
      num_classes: length of the result.
      weights: how much each image counts, ``[n]``; None: each as 1.

    Returns:
      `count`, `both_right`, `negative_flips`, `positive_flips` and `both_wrong`, ``[num_classes]`` each: integers, with
      weights their sums.

    Raises:
      TypeError, ValueError: as `flip_metrics`; ValueError also for a label that is not a class.

    Examples:
      >>> import numpy as np
      >>> flips = per_class_flips(np.array([0, 0, 1]), np.array([0, 1, 1]), np.array([0, 0, 1]), num_classes=2)
      >>> flips["negative_flips"].tolist(), flips["both_right"].tolist()
      ([1, 0], [1, 1])
    """
    old, new, labels = _predictions(old_predictions, new_predictions, labels)
    if labels.size and not 0 <= labels.min() <= labels.max() < num_classes:
        raise ValueError(f"labels from {labels.min()} to {labels.max()}; expected classes 0 to {num_classes - 1}")
    old_right, new_right = old == labels, new == labels
    groups = {
        "count": np.ones_like(old_right),
        "both_right": old_right & new_right,
        "negative_flips": is_negative_flip(old, new, labels),
        "positive_flips": ~old_right & new_right,
        "both_wrong": ~old_right & ~new_right,
    }
    return {
        key: np.bincount(labels[group], None if weights is None else weights[group], minlength=num_classes)
        for key, group in groups.items()
    }


def confidences(logits: ArrayLike) -> np.ndarray:
    """Return the confidence of each prediction, ``max_k softmax(z)_k``, from 1/K to 1.

    Args:
      logits: floating point, ``[n, K]``, NumPy or JAX.

    Returns:
      Probabilities, float64, ``[n]``; NaN where a logit is NaN.

    Examples:
      >>> import numpy as np
      >>> confidences(np.log([[0.25, 0.75], [0.5, 0.5]])).round(6).tolist()
      [0.75, 0.5]
    """
    logits = np.asarray(logits, np.float64)
    with np.errstate(invalid="ignore"):  # inf - inf of a model that diverged
        return 1 / np.exp(logits - logits.max(-1, keepdims=True)).sum(-1)


def ranked_flips(
    old_logits: ArrayLike, new_logits: ArrayLike, labels: ArrayLike, *, allowed: np.ndarray | None = None
) -> np.ndarray:
    """Return the images that flip negatively, sorted by falling confidence of the new model's wrong prediction.

    Args:
      old_logits: floating point, ``[n, K_old]``.
      new_logits: floating point, ``[n, K]``.
      labels: integers, ``[n]``.
      allowed: see `as_new`.

    Returns:
      Positions, integers; equal confidences keep their order.

    Examples:
      >>> import numpy as np
      >>> old, new = np.array([[2.0, 0.0]] * 3), np.array([[0.0, 1.0], [1.0, 0.0], [0.0, 2.0]])
      >>> ranked_flips(old, new, np.array([0, 0, 0])).tolist()
      [2, 0]
    """
    old, new, labels = _predictions(np.argmax(old_logits, -1), np.argmax(new_logits, -1), labels)
    flipped = np.flatnonzero(is_negative_flip(as_new(old, new, labels, allowed), new, labels))
    return flipped[np.argsort(-confidences(np.asarray(new_logits)[flipped]), kind="stable")]


def margins(logits: ArrayLike, labels: ArrayLike) -> np.ndarray:
    """Return the margin of the true class over the best other one, ``z_y - max_{k != y} z_k``; negative if wrong.

    Args:
      logits: floating point, ``[n, K]`` with K of 2 or more, NumPy or JAX.
      labels: integers below K, ``[n]``.

    Returns:
      In logits, at least float32, ``[n]``.

    Raises:
      ValueError: shapes do not fit, or a label is not a class.

    Examples:
      >>> import numpy as np
      >>> margins(np.array([[3.0, 1.0, 0.0], [3.0, 1.0, 0.0]]), np.array([0, 1])).tolist()
      [2.0, -2.0]
    """
    logits, labels = np.asarray(logits), np.asarray(labels)
    if logits.ndim != 2 or logits.shape[1] < 2 or labels.shape != logits.shape[:1]:
        raise ValueError(f"logits {logits.shape} and labels {labels.shape} do not fit; expected [n, K] and [n]")
    if labels.size and not 0 <= labels.min() <= labels.max() < logits.shape[1]:
        raise ValueError(f"labels from {labels.min()} to {labels.max()}; expected classes 0 to {logits.shape[1] - 1}")
    others = logits.astype(np.promote_types(logits.dtype, np.float32))  # a copy
    rows = np.arange(len(labels))
    own = others[rows, labels]
    others[rows, labels] = -np.inf
    return own - others.max(-1)


def margin_histograms(
    old_logits: ArrayLike, new_logits: ArrayLike, labels: ArrayLike, *, num_old_classes: int, bins: int = 50
) -> dict[str, np.ndarray]:
    """Return histograms of the old classes' `margins` before and after an update, in the same bins.

    Args:
      old_logits: ``[n, K_old]``.
      new_logits: ``[n, K]``; the margins over these also compare with the new classes.
      labels: integers, ``[n]``; those below `num_old_classes` are of old classes.
      num_old_classes: K_old.
      bins: number of bins of equal width over the range of both.

    Returns:
      `edges`, in logits, ``[bins + 1]``, and the numbers of images `before` and `after`, ``[bins]``.

    Raises:
      ValueError: as `margins`, or no image of an old class.

    Examples:
      >>> import numpy as np
      >>> old, new = np.array([[4.0, 0.0], [2.0, 0.0]]), np.array([[4.0, 0.0, 3.0], [2.0, 0.0, 2.0]])
      >>> found = margin_histograms(old, new, np.array([0, 0]), num_old_classes=2, bins=2)
      >>> found["edges"].tolist(), found["before"].tolist(), found["after"].tolist()
      ([0.0, 2.0, 4.0], [0, 2], [2, 0])
    """
    labels = np.asarray(labels)
    is_old = labels < num_old_classes
    if not is_old.any():
        raise ValueError(f"no image of an old class (label below {num_old_classes}); expected at least one")
    return histograms(*(margins(np.asarray(z)[is_old], labels[is_old]) for z in (old_logits, new_logits)), bins=bins)


def histograms(before: np.ndarray, after: np.ndarray, *, bins: int) -> dict[str, np.ndarray]:
    """Return histograms of the values before and after an update, in the same bins, see `margin_histograms`.

    Args:
      before: ``[n]``.
      after: ``[m]``.
      bins: number of bins of equal width over the range of both.

    Examples:
      >>> histograms(np.array([0.0, 1.0]), np.array([4.0]), bins=2)["before"].tolist()
      [2, 0]
    """
    edges = np.histogram_bin_edges(np.concatenate([before, after]), bins)
    return {"edges": edges, "before": np.histogram(before, edges)[0], "after": np.histogram(after, edges)[0]}


def sequence_metrics(
    predictions_of_each_release: Sequence[ArrayLike], labels: ArrayLike, *, schedule: Sequence[int]
) -> dict[str, Any]:
    """Compute flips, accuracy and forgetting along a sequence of releases that know more and more classes.

    Release r knows the classes below ``schedule[r]`` and chooses among all of them. A task is the classes that one
    release added. ``R_r`` are the images that release r classifies correctly, ``N_r`` the images of its classes, and
    ``A_r,j`` its accuracy on task j (# counts images):

    - `accuracy_of_release`: #R_r / #N_r
    - `nfr_against_previous`: #(R_(r-1) without R_r) / #N_(r-1)
    - `flips_against`: #(R_a without R_r) for each ancestor a = 0 .. r-1
    - `cumulative_flips`: #((R_0 or .. or R_(r-1)) without R_r)
    - `cumulative_nfr`: `cumulative_flips` / #N_(r-1)
    - `task_accuracy`: A_r,j for j = 0 .. r; None for a task without images
    - `average_incremental_accuracy`: mean over r of `accuracy_of_release`, including the first release (one number)
    - `forgetting`: mean over j < r of (max over l = j .. r-1 of A_l,j) - A_r,j

    Forgetting can be negative. Since later releases choose among more classes, it includes images that are predicted as
    new classes.

    Args:
      predictions_of_each_release: per release, integers below ``schedule[r]``, ``[n]``, on all images.
      labels: integers below ``schedule[-1]``, ``[n]``.
      schedule: number of classes that each release knows, not decreasing.

    Returns:
      Lists with an entry per release, plain Python numbers; None if a release has no ancestor.

    Raises:
      TypeError: not integers.
      ValueError: shapes or schedule do not fit, or no image of the first release's classes.

    Examples:
      >>> import numpy as np
      >>> labels = np.array([0, 0, 1, 2])
      >>> releases = [np.array([0, 0, 0, 0]), np.array([0, 1, 1, 0]), np.array([2, 0, 1, 2])]
      >>> lineage = sequence_metrics(releases, labels, schedule=[1, 2, 3])
      >>> lineage["flips_against"], lineage["cumulative_flips"]
      ([[], [1], [1, 1]], [None, 1, 1])
      >>> lineage["forgetting"], lineage["accuracy_of_release"]
      ([None, 0.5, 0.25], [1.0, 0.6666666666666666, 0.75])

    Source: Rebuffi et al., iCaRL: Incremental Classifier and Representation Learning, 2017 (average incremental
    accuracy); Chaudhry et al., Riemannian Walk for Incremental Learning: Understanding Forgetting and Intransigence,
    2018 (forgetting); Yan et al., Positive-Congruent Training: Towards Regression-Free Model Updates, 2021 (nfr).
    """
    releases, num_classes = len(schedule), np.asarray(schedule)
    if releases != len(predictions_of_each_release) or not releases:
        given = len(predictions_of_each_release)
        raise ValueError(f"{given} releases and a schedule of {releases}; expected equal lengths of 1 or more")
    if np.any(np.diff(num_classes) < 0):
        raise ValueError(f"schedule={num_classes.tolist()} decreases; expected numbers of classes that do not decrease")
    pairs = [_predictions(predictions, predictions, labels) for predictions in predictions_of_each_release]
    for r, (predictions, _, _) in enumerate(pairs):
        if np.any(predictions >= schedule[r]):
            raise ValueError(f"release {r} predicts class {predictions.max()}; expected classes below {schedule[r]}")
    labels = pairs[0][2]
    if labels.size and labels.max() >= schedule[-1]:
        raise ValueError(f"labels hold class {labels.max()}; expected classes below {schedule[-1]}")
    known = labels < num_classes[:, None]
    if not known[0].any():
        raise ValueError(f"no image of the first release's classes, those below {schedule[0]}; expected at least one")
    right = np.stack([predictions == labels for predictions, _, _ in pairs])
    task = np.searchsorted(num_classes, labels, side="right")
    sizes = np.bincount(task, minlength=releases)
    task_right = np.stack([np.bincount(task[row], minlength=releases) for row in right])
    filled = sizes > 0
    by_task = task_right / np.where(filled, sizes, 1)

    def forgetting(r: int) -> float:
        # before release j, the accuracy on its task is 0, which is never the largest
        fallen = by_task[:r].max(0) - by_task[r]
        return float(fallen[:r][filled[:r]].mean())

    accuracies = [int(right[r].sum()) / int(known[r].sum()) for r in range(releases)]
    flips = [
        [int(is_negative_flip(earlier, predictions, labels).sum()) for earlier, _, _ in pairs[:r]]
        for r, (predictions, _, _) in enumerate(pairs)
    ]
    lost = [int((right[:r].any(0) & ~right[r]).sum()) for r in range(1, releases)]
    known_before = [int(images.sum()) for images in known[:-1]]
    return {
        "accuracy_of_release": accuracies,
        "nfr_against_previous": [None, *(f[-1] / count for f, count in zip(flips[1:], known_before, strict=True))],
        "flips_against": flips,
        "cumulative_flips": [None, *lost],
        "cumulative_nfr": [None, *(count / images for count, images in zip(lost, known_before, strict=True))],
        "task_accuracy": [[float(by_task[r, j]) if filled[j] else None for j in range(r + 1)] for r in range(releases)],
        "average_incremental_accuracy": sum(accuracies) / releases,
        "forgetting": [forgetting(r) if r else None for r in range(releases)],
    }


def mean_of_sequences(sequences: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Average several results of `sequence_metrics` with the same schedule, elementwise; None stays None.

    Examples:
      >>> mean_of_sequences([{"forgetting": [None, 0.25]}, {"forgetting": [None, 0.5]}])
      {'forgetting': [None, 0.375]}
    """

    def mean(values: Sequence[Any]) -> Any:
        if isinstance(values[0], list):
            return [mean(entries) for entries in zip(*values, strict=True)]
        return None if values[0] is None else statistics.fmean(values)

    return {key: mean([sequence[key] for sequence in sequences]) for key in sequences[0]}


def pareto_front(accuracy: ArrayLike, nfr: ArrayLike) -> np.ndarray:
    """Return the indices of the candidates on the Pareto front of high accuracy and few negative flips.

    Args:
      accuracy: floats, ``[n]``, NumPy or JAX.
      nfr: floats, ``[n]``.

    Returns:
      Integers, sorted by rising accuracy and therefore rising nfr; of equal candidates the first.

    Raises:
      ValueError: shapes do not fit, or NaN.

    Examples:
      >>> pareto_front([0.90, 0.80, 0.85, 0.80], [0.05, 0.01, 0.06, 0.02]).tolist()
      [1, 0]
    """
    accuracy, nfr = np.asarray(accuracy, np.float64), np.asarray(nfr, np.float64)
    if accuracy.ndim != 1 or accuracy.shape != nfr.shape:
        raise ValueError(f"accuracy {accuracy.shape} and nfr {nfr.shape}; expected one number per candidate in each")
    if np.isnan(accuracy).any() or np.isnan(nfr).any():
        raise ValueError("accuracy or nfr holds NaN; expected numbers")
    order = np.lexsort((np.arange(accuracy.size), nfr, -accuracy))
    fewest_before = np.minimum.accumulate(np.append(np.inf, nfr[order]))[:-1]
    return order[nfr[order] < fewest_before][::-1]


def nfr_at_accuracy(
    accuracies: ArrayLike, nfrs: ArrayLike, accuracy: float, *, hold_below: bool = False
) -> float | None:
    """Return a method's negative flip rate at an accuracy, by linear interpolation along its `pareto_front`.

    A point between two neighbours is achievable: predicting each image with one of the two models at random gives their
    mean accuracy and negative flip rate, weighted by the share of each model.

    Args:
      accuracies: of the method's candidates, floats, ``[n]``; candidates that are not on the front are ignored.
      nfrs: floats, ``[n]``.
      accuracy: a fraction.
      hold_below: for an accuracy below the front, return the rate at the front's lowest accuracy instead of None.

    Returns:
      A fraction; None for an accuracy outside the front, or without candidates.

    Raises:
      ValueError: as `pareto_front`.

    Examples:
      >>> accuracies, nfrs = [0.80, 0.90], [0.02, 0.06]
      >>> round(nfr_at_accuracy(accuracies, nfrs, 0.85), 9), nfr_at_accuracy(accuracies, nfrs, 0.91)
      (0.04, None)
      >>> nfr_at_accuracy(accuracies, nfrs, 0.7), nfr_at_accuracy(accuracies, nfrs, 0.7, hold_below=True)
      (None, 0.02)
    """
    front = pareto_front(accuracies, nfrs)
    x, y = np.asarray(accuracies, np.float64)[front], np.asarray(nfrs, np.float64)[front]
    if not front.size or accuracy > x[-1] or (accuracy < x[0] and not hold_below):
        return None
    return float(np.interp(accuracy, x, y))


def wilson_interval(successes: float, count: float, *, confidence: float = 0.95) -> tuple[float, float]:
    """Return Wilson's score interval of a rate: the true rates that the counts are compatible with.

    All p with ``|successes / count - p| <= z sqrt(p (1 - p) / count)``, z the normal quantile of the confidence.

    Args:
      successes: number of images counted, from 0 to `count`; of weighted images the effective number, a fraction.
      count: number of all images, above 0.
      confidence: between 0 and 1.

    Returns:
      Lower and upper end, fractions.

    Raises:
      ValueError: counts that do not fit.

    Examples:
      >>> ["%.4f" % end for end in wilson_interval(8, 10)]
      ['0.4902', '0.9433']

    Source: Wilson, Probable Inference, the Law of Succession, and Statistical Inference, 1927.
    """
    if not 0 <= successes <= count or not count:
        raise ValueError(f"{successes} of {count} images; expected a count above 0, and 0 to count successes")
    low, high = wilson_intervals(np.array([successes]), np.array([count]), confidence=confidence)[0].tolist()
    return low, high


def wilson_intervals(successes: np.ndarray, counts: np.ndarray, *, confidence: float = 0.95) -> np.ndarray:
    """Return `wilson_interval` of many rates, ``[m, 2]``; 0 to 1 where there are no images.

    Args:
      successes: from 0 to the count, ``[m]``.
      counts: 0 or more, ``[m]``.
      confidence: between 0 and 1.

    Examples:
      >>> wilson_intervals(np.array([8, 0]), np.array([10, 0])).round(4).tolist()
      [[0.4902, 0.9433], [0.0, 1.0]]
    """
    from scipy import special  # slow to import

    _check_confidence(confidence)
    successes, counts = np.asarray(successes, float), np.asarray(counts, float)
    square = special.ndtri((1 + confidence) / 2) ** 2
    middle = (successes + square / 2) / (counts + square)
    failures = counts - successes
    half = np.sqrt(square * (successes * failures / np.where(counts > 0, counts, 1) + square / 4)) / (counts + square)
    low = np.where(successes > 0, middle - half, 0.0)
    return np.stack([low, np.where(failures > 0, middle + half, 1.0)], -1)


def effective_rows(total: Any, squares: Any) -> Any:
    """Return the number of images of equal weight that tell as much, ``(sum w)^2 / sum w^2``; 0 if there are none.

    Args:
      total: the sum of the weights, or several such sums.
      squares: the same of their squares.

    Examples:
      >>> effective_rows(4.0, 4.0), effective_rows(1.5, 1.25)  # weights 1, 1, 1, 1 and 1, 0.5
      (4.0, 1.8)

    Source: Kish, Survey Sampling, 1965.
    """
    found = np.divide(np.square(total), squares, out=np.zeros_like(squares, float), where=np.asarray(squares) > 0)
    return found if np.ndim(found) else float(found)


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence={confidence}; expected a number between 0 and 1, such as 0.95")


def mcnemar_exact(only_first: float, only_second: float) -> float:
    """Return the p-value of McNemar's exact two-sided test that two models are equally good, on the same images.

    Under this hypothesis, each of the ``n = only_first + only_second`` images that only one model has right is a fair
    coin:
    ``min(1, 2 P(Binomial(n, 1/2) <= min(only_first, only_second)))``.

    Args:
      only_first: number of images that only the first model classifies correctly; for an update, its negative flips. To
        compare two updates, the number of images that only the first one flips. Of weighted images the effective
        number, a fraction; the binomial tail is then that of the beta distribution.
      only_second: the same for the second model; for an update, its positive flips.

    Returns:
      The p-value; 1 for equal counts.

    Raises:
      ValueError: negative counts.

    Examples:
      >>> "%.4f" % mcnemar_exact(1, 9)  # 2 (1 + 10) / 2^10
      '0.0215'

    Source: McNemar, Note on the Sampling Error of the Difference Between Correlated Proportions or Percentages, 1947.
    """
    from scipy import special

    if only_first < 0 or only_second < 0:
        raise ValueError(f"counts {only_first} and {only_second}; expected 0 or more")
    fewer, more = sorted((float(only_first), float(only_second)))
    return min(1.0, 2 * float(special.betainc(more, fewer + 1, 0.5))) if more else 1.0


def bootstrap_nfr_difference(
    old_predictions: ArrayLike,
    first_predictions: ArrayLike,
    second_predictions: ArrayLike,
    labels: ArrayLike,
    *,
    seed: int,
    resamples: int = 10_000,
    confidence: float = 0.95,
) -> dict[str, float]:
    """Return ``NFR_first - NFR_second`` of two updates of one old model, with its percentile bootstrap interval.

    Images are drawn with replacement, the same ones for both updates. Only ``1[first flips] - 1[second flips]`` of an
    image counts, which is -1, 0 or 1. So a resample is one multinomial draw of three counts. The interval covers the
    randomness of the test images, not that of the training seeds.

    Args:
      old_predictions: integers, ``[n]``, NumPy or JAX; pass only images of old classes for the NFR of the papers.
      first_predictions: integers, ``[n]``.
      second_predictions: integers, ``[n]``.
      labels: integers, ``[n]``.
      seed: of the random resamples; the same seed gives the same interval.
      resamples: number of resamples.
      confidence: between 0 and 1.

    Returns:
      `nfr_difference` and the ends `low` and `high` of its interval, differences of fractions.

    Raises:
      TypeError, ValueError: as `flip_metrics`.

    Examples:
      >>> import numpy as np
      >>> labels = np.zeros(100, int)
      >>> first, second = (np.arange(100) < flips for flips in (20, 5))
      >>> found = bootstrap_nfr_difference(labels, first.astype(int), second.astype(int), labels, seed=0)
      >>> {key: round(value, 2) for key, value in found.items()}
      {'nfr_difference': 0.15, 'low': 0.08, 'high': 0.22}

    Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993.
    """
    old, first, labels = _predictions(old_predictions, first_predictions, labels)
    _, second, _ = _predictions(old, second_predictions, labels)
    _check_confidence(confidence)
    if resamples < 1:
        raise ValueError(f"{resamples} resamples; expected 1 or more")
    if not labels.size:
        raise ValueError("no images to compare; expected at least one")
    difference = is_negative_flip(old, first, labels).astype(int) - is_negative_flip(old, second, labels)
    counts = np.bincount(difference + 1, minlength=3)
    drawn = np.random.default_rng(seed).multinomial(labels.size, counts / labels.size, size=resamples)
    tail = (1 - confidence) / 2
    low, high = np.quantile((drawn[:, 2] - drawn[:, 0]) / labels.size, [tail, 1 - tail])
    return {"nfr_difference": int(difference.sum()) / labels.size, "low": float(low), "high": float(high)}


def _predictions(old: ArrayLike, new: ArrayLike, labels: ArrayLike) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    arrays = np.asarray(old), np.asarray(new), np.asarray(labels)
    named = dict(zip(("old_predictions", "new_predictions", "labels"), arrays, strict=True))
    for name, values in named.items():
        if values.size and not np.issubdtype(values.dtype, np.integer):
            raise TypeError(f"{name} have dtype {values.dtype}; expected integers, the position of each class")
        if values.ndim != 1 or values.shape != named["labels"].shape:
            shapes = ", ".join(f"{key} {array.shape}" for key, array in named.items())
            raise ValueError(f"shapes do not fit: {shapes}; expected one integer per image in each")
    return arrays


def _ratio(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator else 0.0
