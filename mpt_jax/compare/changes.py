"""What class maps and corrected labels mean for a result: retired and split classes, and explained flips."""

import operator
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from mpt_jax import class_map
from mpt_jax.compare import slices
from mpt_jax.compare.factors import Factor
from mpt_jax.compare.pairs import Pair
from mpt_jax.compare.taxonomy import Mapped

_READING = ("accuracy_new", "negative_flips", "nfr", "interval")


def old_taxonomy(pair: Pair, old: np.ndarray, new: np.ndarray, *, confidence: float) -> dict[str, Any]:
    """Measure flips as the old model's classes allow: any part of a split class is right where another one is.

    Args:
      pair: with `mapped`.
      old: predictions of the old model, those of the pair or with ties broken otherwise, ``[n]``.
      new: the same of the new model.
      confidence: of the interval.

    Returns:
      Counts and rates on the rows of old classes as of a slice.
    """
    known, weights = pair.labels < pair.num_old_classes, pair.extras.weights
    whole = {"all": Factor(np.zeros(len(known), np.int32), ("",))}
    kinds = _coarse_kinds(pair, _mapped(pair), old, new)
    row = slices.measure(whole, kinds, known, weights=weights, confidence=confidence)[0]
    return {key: value for key, value in row.items() if key not in ("column", "value", "simultaneous")}


def of_map(pair: Pair, *, confidence: float) -> dict[str, Any]:
    """Return what a class map did.

    Returns:
      - `maps`: from the old model's release to the last one
      - `retired`: of each retired class the `rows` that were not compared, and how often the old model still `predicts`
        it in the others, which is wrong
      - `split`: of each split class its `parts`, the `rows` of these, both accuracies, flips and their rate in the new
        classes, and `accuracy_new`, flips and their rate in the `old_taxonomy`
    """
    mapped = _mapped(pair)
    old = mapped.old
    predicted = np.bincount(old.codes, minlength=len(old.names))
    # Not a name that is only a label of another release.
    is_gone = old.first >= len(pair.classes) - mapped.retired_codes
    gone = [name for name, retired in zip(old.names, is_gone.tolist(), strict=True) if retired]
    predicts = dict(zip(old.names, predicted.tolist(), strict=True))
    return {
        "maps": [each.as_dict() for each in mapped.maps],
        "retired": [
            {"class": name, "rows": mapped.retired.get(name, 0), "predicts": predicts.get(name, 0)}
            for name in dict.fromkeys([*mapped.retired, *gone])
        ],
        "split": _splits(pair, mapped, confidence),
    }


def of_corrections(pair: Pair, *, examples: int) -> dict[str, Any]:
    """Return what corrected labels changed: flips with the former labels, with the corrected ones, and with one alone.

    Returns:
      - `listed`: corrected labels in the file, and `rows`, those that are compared
      - `former` and `corrected`: the counts of `slices.KINDS` with either label, on these rows
      - `explained`: negative flips by the former label that are none by the corrected one
      - `revealed`: negative flips by the corrected label that are none by the former one
      - `examples` of both
    """
    corrected = pair.corrected
    if corrected is None:
        raise ValueError("no corrected labels")
    places = corrected.places
    number = {name: code for code, name in enumerate(pair.classes)}
    former = [[number[label] for label in meaning.labels if label in number] for meaning in corrected.former]
    before = [
        np.array(
            [any(map(partial(stands_for, code), labels)) for code, labels in zip(codes, former, strict=True)], bool
        )
        for codes, stands_for in _answers(pair, places)
    ]
    after = [each[places] == pair.labels[places] for each in (pair.old, pair.new)]
    kinds = [2 * ~old + ~new for old, new in (before, after)]
    flips = [kind == slices.KINDS.index("negative_flips") for kind in kinds]
    explained, revealed = flips[0] & ~flips[1], flips[1] & ~flips[0]
    shown = np.flatnonzero(explained | revealed)[:examples]
    return {
        "listed": corrected.listed,
        "rows": len(places),
        **{
            key: dict(zip(slices.KINDS, np.bincount(kind, minlength=len(slices.KINDS)).tolist(), strict=True))
            for key, kind in zip(("former", "corrected"), kinds, strict=True)
        },
        "explained": int(explained.sum()),
        "revealed": int(revealed.sum()),
        "examples": [
            {
                "id": id_,
                "former": corrected.names[place],
                "label": pair.classes[pair.labels[places[place]]],
                "old": old,
                "new": new,
                "flip": "explained" if explained[place] else "revealed",
            }
            for id_, place, old, new in zip(
                pair.ids(places[shown]), shown.tolist(), *as_given(pair, places[shown]), strict=True
            )
        ],
    }


def as_given(pair: Pair, rows: np.ndarray) -> tuple[list[str], list[str]]:
    """Return both models' predictions of some rows in the models' own classes."""
    if pair.mapped is None:
        old, new = ([pair.classes[code] for code in codes[rows].tolist()] for codes in (pair.old, pair.new))
    else:
        both = pair.mapped.old, pair.mapped.new
        old, new = ([given.names[code] for code in given.codes[rows].tolist()] for given in both)
    return old, new


def _answers(pair: Pair, rows: np.ndarray) -> list[tuple[list[int], Callable[[int, int], bool]]]:
    """Return both models' predictions of some rows, and whether one of them stands for a label."""
    if pair.mapped is None:
        return [(codes[rows].tolist(), operator.eq) for codes in (pair.old, pair.new)]
    both = pair.mapped.old, pair.mapped.new
    return [(given.codes[rows].tolist(), partial(_is_allowed, given.allowed)) for given in both]


def _is_allowed(allowed: np.ndarray, answer: int, label: int) -> bool:
    return bool(allowed[answer, label])


def _splits(pair: Pair, mapped: Mapped, confidence: float) -> list[dict[str, Any]]:
    """Return counts and rates of each split class in both readings, those with the most flips first."""
    old, split = mapped.old, [mapped.old.names.index(name) for name in mapped.split()]
    if not split:
        return []
    owner = np.full(len(pair.classes), -1, np.int32)
    for place, row in enumerate(split):
        owner[old.allowed[row]] = place
    codes = owner[pair.labels]
    factors = {"split": Factor(np.maximum(codes, 0), tuple(old.names[row] for row in split))}
    known = (codes >= 0) & (pair.labels < pair.num_old_classes)
    now, coarse = (
        {
            row["value"]: row
            for row in slices.measure(factors, kinds, known, weights=pair.extras.weights, confidence=confidence)
        }
        for kinds in (slices.kinds(pair.old, pair.new, pair.labels), _coarse_kinds(pair, mapped, pair.old, pair.new))
    )
    found = []
    for row in split:
        name = old.names[row]
        here = {key: now[name][key] for key in ("rows", "accuracy_old", *_READING)}
        parts = [pair.classes[code] for code in np.flatnonzero(old.allowed[row])]
        in_old = {key: coarse[name][key] for key in _READING}
        found.append({"class": name, "parts": parts, **here, "old_taxonomy": in_old})
    return sorted(found, key=lambda row: (-row["nfr"], -row["rows"], row["class"]))


def _coarse_kinds(pair: Pair, mapped: Mapped, old: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Return what happened to each row if a part of a split class is right where another one is, see `slices.kinds`."""
    _, group = class_map.groups(mapped.old.allowed)
    in_group = (group[new] == group[pair.labels]) & (group[new] >= 0)
    return (2 * (old != pair.labels) + ~(in_group | (new == pair.labels))).astype(np.uint8)


def _mapped(pair: Pair) -> Mapped:
    if pair.mapped is None:
        raise ValueError("no class map")
    return pair.mapped
