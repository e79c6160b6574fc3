"""Further ways to count an answer as right: mean F1, the k largest scores, and answers that a system acts on."""

from typing import Any

import numpy as np

from mpt_jax.compare import slices
from mpt_jax.compare.f1 import macro_f1, standard_error
from mpt_jax.compare.factors import Factor
from mpt_jax.compare.options import Options
from mpt_jax.compare.pairs import Pair
from mpt_jax.errors import InputError

_ROUNDING = 0.01  # of probabilities in few bits


def measure(pair: Pair, old: np.ndarray, new: np.ndarray, options: Options) -> dict[str, Any]:
    """Measure what the options ask for, see `options.Limits`.

    Args:
      pair: both models' answers.
      old: predictions of the old model, those of the pair or with ties broken otherwise, ``[n]``.
      new: the same of the new model.
      options: of the comparison.

    Returns:
      - `macro_f1`: `old` and `new` on the rows of old classes and on all rows, the `drop` on the former, and the
        standard errors `error_new` and `error_drop`
      - `top_k` with `top_k`: `k`, `rows` of old classes, counts, accuracies, `nfr` and `interval` as of a slice
      - `accepted` with `threshold`: the same on the rows that the old model accepts, where a negative flip is an answer
        that both accept, right before and wrong now; also `rows_new`, how many the new model accepts

    Raises:
      InputError: mean F1 with a class map that splits, a threshold that a model never reaches, or a `top_k` of all
        classes.
    """
    known, weights = pair.labels < pair.num_old_classes, pair.extras.weights
    found: dict[str, Any] = {}
    if options.min_macro_f1 is not None or options.max_macro_f1_drop is not None:
        found["macro_f1"] = _macro_f1(pair, old, new, known)

    def rated(kinds: np.ndarray, rows: np.ndarray) -> dict[str, Any]:
        """Return counts and rates of some rows."""
        whole = {"all": Factor(np.zeros(len(kinds), np.int32), ("",))}
        row = slices.measure(whole, kinds, rows, weights=weights, confidence=options.confidence)[0]
        return {key: value for key, value in row.items() if key not in ("column", "value", "simultaneous")}

    if pair.top:
        if (kept := pair.top[1].shape[1]) < options.top_k or kept >= len(pair.classes):
            raise InputError(
                f"top_k is {options.top_k} and {pair.names[1]} has scores of {kept} classes, so that no label can "
                "leave the largest scores; expected fewer"
            )
        old_right, new_right = ((each == pair.labels[:, None]).any(-1) for each in pair.top)
        found["top_k"] = {"k": options.top_k, **rated(_kinds(old_right, new_right), known)}
    if pair.confidences and options.threshold is not None:
        _require_one_scale(pair)
        old_accepts, new_accepts = (each >= options.threshold for each in pair.confidences)
        for accepts, largest, name in zip((old_accepts, new_accepts), pair.confidences, pair.names, strict=True):
            if not (known & accepts).any():
                low, high = largest[known].min(), largest[known].max()
                raise InputError(
                    f"threshold is {options.threshold:g}, which no answer of {name} on classes that the old model "
                    f"knows reaches: its largest scores are {low:.3g} to {high:.3g}; expected a threshold among these"
                )
        # An answer that is not accepted does no harm, so that losing one is no flip.
        kinds = _kinds(old == pair.labels, (new == pair.labels) | ~new_accepts)
        accepted = {"threshold": options.threshold, "rows_new": int(np.count_nonzero(known & new_accepts))}
        found["accepted"] = accepted | rated(kinds, known & old_accepts)
    return found


def _require_one_scale(pair: Pair) -> None:
    """Check that a threshold can mean the same for both models' scores.

    Raises:
      InputError: one file has probabilities, and the other has logits or percentages.
    """
    ranges = [(float(each.min()), float(each.max())) for each in pair.confidences or ()]
    if len({low >= 0 and high <= 1 + _ROUNDING for low, high in ranges}) > 1:
        found = " and ".join(
            f"{low:.3g} to {high:.3g} in {name}" for (low, high), name in zip(ranges, pair.names, strict=True)
        )
        raise InputError(
            f"the largest scores are {found}, so one threshold cannot mean the same for both; expected scores of one "
            "kind, such as probabilities in both files"
        )


def _kinds(old_right: np.ndarray, new_right: np.ndarray) -> np.ndarray:
    """Return the positions in `slices.KINDS` of what happened to each row."""
    return (2 * ~old_right + ~new_right).astype(np.uint8)


def _macro_f1(pair: Pair, old: np.ndarray, new: np.ndarray, known: np.ndarray) -> dict[str, float]:
    if pair.mapped and (split := pair.mapped.split()):
        raise InputError(
            f"mean F1 does not apply with the split class {split[0]!r}: a wrong answer {split[0]!r} is of none of its "
            "parts; expected no min_macro_f1 and no max_macro_f1_drop"
        )
    count, weights = len(pair.classes), pair.extras.weights
    of_known = None if weights is None else weights[known]
    whole = macro_f1(new, pair.labels, num_classes=count, weights=weights)
    before, after = (
        macro_f1(each[known], pair.labels[known], num_classes=count, weights=of_known) for each in (old, new)
    )
    return {
        "old": before.value,
        "new": whole.value,
        "drop": before.value - after.value,
        "error_new": standard_error(whole.influence, weights),
        "error_drop": standard_error(before.influence - after.influence, of_known),
    }
