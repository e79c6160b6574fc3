"""The mean F1 over classes of predictions, and how much each row moves it."""

from typing import NamedTuple

import numpy as np

from mpt_jax import metrics


class MacroF1(NamedTuple):
    """Mean F1 over the classes with rows, and the influence of each row on it, ``[n]``.

    The standard error of the mean is ``sqrt(sum_i (w_i influence_i)^2)`` (delta method).
    """

    value: float
    influence: np.ndarray


def macro_f1(
    predictions: np.ndarray, labels: np.ndarray, *, num_classes: int, weights: np.ndarray | None = None
) -> MacroF1:
    """Compute ``mean_c 2 TP_c / (2 TP_c + FP_c + FN_c)`` over the classes that are some row's label.

    The influence of a row is the derivative of the mean by the row's weight.

    Args:
      predictions: integers below `num_classes`, ``[n]``.
      labels: integers below `num_classes`, ``[n]``.
      num_classes: number of classes.
      weights: of the rows, ``[n]``; None: 1.

    Examples:
      >>> found = macro_f1(np.array([0, 0, 1]), np.array([0, 1, 1]), num_classes=2)
      >>> round(found.value, 4)
      0.6667
    """
    right = predictions == labels

    def total(codes: np.ndarray, rows: np.ndarray) -> np.ndarray:
        return np.bincount(codes[rows], None if weights is None else weights[rows], num_classes)

    everything = np.ones(len(labels), bool)
    true_positives = total(labels, right)
    of_label, of_prediction = total(labels, everything), total(predictions, everything)
    size = of_label + of_prediction  # 2 TP + FP + FN
    present = of_label > 0
    count = max(1, int(present.sum()))
    inverse = np.where(present, 1 / np.where(size > 0, size, 1), 0.0)
    f1 = 2 * true_positives * inverse
    # A row adds 1 to the size of its label's class and of its prediction's, and 2 to 2 TP if they are the same.
    influence = 2 * right * inverse[labels] - f1[labels] * inverse[labels] - f1[predictions] * inverse[predictions]
    return MacroF1(float(f1.sum() / count), influence / count)


def standard_error(influence: np.ndarray, weights: np.ndarray | None = None) -> float:
    """Return the standard error of a mean F1, or with the difference of two influences that of a difference.

    With weights it is times ``sqrt(n / (n - 1))`` with n the effective number of rows, and at most 1: if a few rows
    have all the weight, the others tell little of how far these are from what is true.
    """
    if weights is None:
        return float(np.sqrt(np.sum(influence**2)))
    n = metrics.effective_rows(weights.sum(), (weights**2).sum())
    error = np.sqrt(np.sum((weights * influence) ** 2))
    return float(min(1.0, error * np.sqrt(n / (n - 1)))) if n > 1 else 1.0
