"""The rates of a comparison and the checks of its limits: pure functions on integers."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from scipy import special

from mpt_jax import metrics
from mpt_jax.compare import evidence
from mpt_jax.compare.evidence import PASS, REGRESSION, UNDECIDED, Evidence
from mpt_jax.compare.options import MINIMA, OF_SLICES, Limits
from mpt_jax.errors import InputError, counted_rows, listed

INTERVAL = (
    "Wilson's score interval; for the relative NFR, which is (NFR / new error) / old accuracy, that of the share of "
    "new errors that are negative flips, divided by the observed old accuracy"
)


OLD_ROWS, CLASS, ALL_ROWS = "old_classes_rows", "per_class", "all_rows"


def measure(
    old: np.ndarray,
    new: np.ndarray,
    labels: np.ndarray,
    *,
    classes: Sequence[str],
    num_old_classes: int,
    confidence: float = 0.95,
    weights: np.ndarray | None = None,
) -> dict[str, Any]:
    """Measure flips on the rows of classes that the old model knows, on all rows, and per class.

    Args:
      old: predictions, integers below `num_old_classes`, ``[n]``.
      new: predictions, positions in `classes`, ``[n]``.
      labels: positions in `classes`, ``[n]``.
      classes: names, those that the old model knows first.
      num_old_classes: how many classes the old model knows.
      confidence: of the intervals, between 0 and 1.
      weights: how much each row counts in the rates, from 0 to 1, ``[n]``. Intervals and tests then take
        `metrics.effective_rows` for the number of rows.

    Returns:
      `old_classes_rows` and `all_rows` (`flip_metrics`, `intervals` as [low, high], and `mcnemar_p`, the p-value of
      equal accuracy on these rows), and `per_class`, highest NFR first.

    Examples:
      >>> found = measure(np.array([0, 1]), np.array([0, 2]), np.array([0, 1]), classes="abc", num_old_classes=2)
      >>> found["old_classes_rows"]["nfr"], found["per_class"][0]["class"]
      (0.5, 'b')
    """
    is_old = labels < num_old_classes
    counts = metrics.per_class_flips(old, new, labels, num_classes=len(classes))
    totals, effective = counts, counts["count"]
    if weights is not None:
        totals = metrics.per_class_flips(old, new, labels, num_classes=len(classes), weights=weights)
        squares = np.bincount(labels, weights**2, minlength=len(classes))
        effective = metrics.effective_rows(totals["count"], squares)

    def of_class(place: int) -> dict[str, Any]:
        here = {key: values[place].item() for key, values in counts.items()}
        weighted = here if weights is None else {key: values[place].item() for key, values in totals.items()}
        return _class_row(classes[place], place < num_old_classes, here, weighted, float(effective[place]), confidence)

    rows = [of_class(place) for place in np.flatnonzero(counts["count"]).tolist()]
    old_weights = None if weights is None else weights[is_old]
    return {
        "old_classes_rows": _rates(old[is_old], new[is_old], labels[is_old], confidence, old_weights),
        "all_rows": _rates(old, new, labels, confidence, weights),
        "per_class": sorted(rows, key=lambda row: (-row["nfr"], -row["negative_flips"], -row["count"])),
    }


def doubt_of_old(measured: dict[str, Any], num_old_classes: int) -> str:
    """Return why the old model's accuracy on its own classes suggests labels in another order, or nothing.

    A wrong prediction of the old model can never flip, so a gate is blind where the old model is wrong throughout. The
    accuracy is in doubt if the upper end of its interval is below ``chance + (1 - chance) / 5`` with chance
    ``1 / num_old_classes``, or below the lower end of the new model's by more than ``1 / 4``; fewer than 30 rows say
    nothing.

    Examples:
      >>> labels, wrong = np.arange(100) % 10, (np.arange(100) + 1) % 10
      >>> found = measure(wrong, labels, labels, classes="abcdefghij", num_old_classes=10)
      >>> doubt_of_old(found, 10).split(";")[0]
      'the old model is right on 0 of 100 rows of its classes, close to chance'
    """
    rows = measured["old_classes_rows"]
    old, new = rows["intervals"]["accuracy_old"], rows["intervals"]["accuracy_new"]
    chance, right = 1 / num_old_classes, rows["both_right"] + rows["negative_flips"]
    found = f"the old model is right on {right:,} of {rows['count']:,} rows of its classes"
    if rows["count"] < 30:
        return ""
    if num_old_classes > 1 and old[1] < chance + (1 - chance) / 5:
        found += ", close to chance"
    elif old[1] < new[0] - 1 / 4:
        found += f", the new one on {rows['both_right'] + rows['positive_flips']:,}"
    else:
        return ""
    return (
        f"{found}; its wrong predictions can never be flips, so expected labels and predictions with the same classes "
        "in the same order (see --classes), or --allow-poor-old if it is that poor"
    )


class Group(NamedTuple):
    """Rows that a limit applies to: all, or those of a class or a slice, whose `name` it then has.

    `held` is what is held against the limit: the rate, or with `--confident` its bound, None if there is no interval.
    """

    name: str | None
    where: str
    rows: int
    allowed: float
    value: float
    interval: Sequence[float] | None
    held: float | None
    evidence: Evidence


def checks(
    measured: dict[str, Any],
    limits: Limits,
    *,
    confidence: float = 0.95,
    min_rows: int = 0,
    undecided: str = "fail",
    own: Mapping[str, Mapping[str, float]] = MappingProxyType({}),
) -> list[dict[str, Any]]:
    """Check each limit: the `value` found, its `interval`, the number `held` against the limit, and the `verdict`.

    A limit on classes or slices gives one check, with the numbers of its worst group and the others in `groups`.
    Examples that must pass give one, too.

    Args:
      measured: as of `measure`; also `slices` of `slices.measure`, and `must_pass` with `rows` and `negative_flips`.
      limits: of the new model.
      confidence: of the intervals.
      min_rows: classes and slices with fewer rows are not judged, nor those without weight, but for those with a limit
        of their own.
      undecided: "pass" if an undecided check has passed.
      own: limits of single classes by limit and class, in place of those for all.

    Examples:
      >>> labels = np.arange(100) % 2
      >>> found = measure(labels, labels, labels, classes="ab", num_old_classes=2)
      >>> [check["passed"] for check in checks(found, Limits(max_nfr=0.01))]
      [True]
      >>> [check["verdict"] for check in checks(found, Limits(max_nfr=0.01, confident=True))]  # too few rows
      ['undecided']
    """
    found = []
    for name in LIMITS:
        limit, special = getattr(limits, name), own.get(name, {})
        if limit is None and not special:
            continue

        def allowed(*names: str, limit: float | None = limit, special: Any = special) -> float | None:
            return next((special[name] for name in names if name in special), limit)

        groups = LIMITS[name](measured, allowed, _Reading(limits.confident, confidence))
        check = _check(name, limit, groups, special, limits.confident, confidence, min_rows)
        found.append(check | {"passed": check["verdict"] in ((PASS, UNDECIDED) if undecided == "pass" else (PASS,))})
    if "must_pass" in measured:
        found.append(_must_pass(measured["must_pass"]))
    return found


def _must_pass(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return the check that none of the chosen examples flips; these are all there are, so that nothing is tested."""
    flips, rows = found["negative_flips"], found["rows"]
    return {
        "limit": "must_pass",
        "allowed": 0,
        "where": f"{rows:,} examples that must pass",
        "value": flips / rows,
        "interval": None,
        "held": flips / rows,
        "verdict": REGRESSION if flips else PASS,
        "more_rows": None,
        "passed": not flips,
    }


def worst_verdict(checks: Sequence[Mapping[str, Any]]) -> str | None:
    """Return the worst verdict of some checks, None if there are none."""
    return max((check["verdict"] for check in checks), key=_SEVERITY.index, default=None)


def check_groups(own: Mapping[str, Mapping[str, float]], measured: Mapping[str, Any]) -> None:
    """Reject limits of classes and slices without rows, which would limit nothing."""
    classes = {row["class"] for row in measured["per_class"] if row["known"]}
    found = measured.get("slices", [])
    divided = {row["column"] for row in found} | {f"{row['column']}={row['value']}" for row in found}
    for limit, named in own.items():
        what, valid = ("class", classes) if limit in OF_CLASSES else ("slice", divided)
        for name in named:
            if name not in valid:
                raise InputError(
                    f"the policy has limits of {what} {name!r}, which no row has that the old model knows; expected "
                    f"one of {listed(sorted(map(repr, valid)))}"
                )


def could_change(checks: Sequence[Mapping[str, Any]], others: Sequence[Sequence[Mapping[str, Any]]]) -> list[str]:
    """Return the limits whose check passes in one outcome, such as of tied scores, and fails in another."""
    return [
        check["limit"]
        for place, check in enumerate(checks)
        if any(other[place]["passed"] != check["passed"] for other in others)
    ]


def _check(
    name: str,
    limit: float | None,
    groups: Sequence[Group],
    own: Mapping[str, float],
    confident: bool,
    confidence: float,
    min_rows: int,
) -> dict[str, Any]:
    family = name in FAMILIES

    def is_judged(group: Group) -> bool:
        return not family or group.name in own or (group.rows >= min_rows and group.evidence.rows > 0)

    judged = [group for group in groups if is_judged(group)]
    verdicts = evidence.judge(
        [group.evidence for group in judged],
        [_is_within(name, group) and not (family and not group.evidence.rows) for group in judged],
        family=family,
        bound=(1 - confidence) / 2 if confident else None,
    )
    pairs = [(group, _in_rows(each, group)) for group, each in zip(judged, verdicts, strict=True)]
    if not pairs:
        check: dict[str, Any] = {
            **{"limit": name, "allowed": limit, "where": f"no group has {min_rows:,} rows", "value": None},
            **{"interval": None, "held": None, "verdict": UNDECIDED, "more_rows": None},
        }
    else:
        worst, verdict = max(pairs, key=lambda pair: (_SEVERITY.index(pair[1].verdict), *_excess(name, pair[0])))
        check = {
            "limit": name,
            "allowed": worst.allowed,
            "where": worst.where,
            "value": worst.value,
            "interval": list(worst.interval) if worst.interval else None,
            "held": worst.held,
            "verdict": verdict.verdict,
            "more_rows": max((each.more_rows for _, each in pairs if each.more_rows), default=None),
        }
    left_out = [group for group in groups if not is_judged(group)]
    return check | ({"groups": _groups(pairs, left_out)} if family else {})


def _in_rows(judged: evidence.Judged, group: Group) -> evidence.Judged:
    """Return the verdict with rows of the files in place of those of the test: effective ones, or errors."""
    if judged.more_rows is None or not group.evidence.rows:
        return judged
    return judged._replace(more_rows=math.ceil(judged.more_rows * group.rows / group.evidence.rows))


_SEVERITY = (PASS, UNDECIDED, REGRESSION)


def _excess(name: str, group: Group) -> tuple[float, float]:
    """Return how far beyond its limit a group is: without an interval, beyond any other."""
    sign = -1 if name in MINIMA else 1
    return math.inf if group.held is None else sign * (group.held - group.allowed), sign * group.value


def _is_within(name: str, group: Group) -> bool:
    if group.held is None:
        return False
    return group.held >= group.allowed if name in MINIMA else group.held <= group.allowed


def _groups(pairs: Sequence[tuple[Group, evidence.Judged]], left_out: Sequence[Group]) -> dict[str, Any]:
    """Return the groups of a family that did not pass, the worst first, and those with too few rows."""

    def of(verdict: str) -> list[dict[str, Any]]:
        chosen = [(group, each) for group, each in pairs if each.verdict == verdict]
        return [
            {"group": group.name, "value": group.value, "rows": group.rows, "more_rows": each.more_rows}
            for group, each in sorted(chosen, key=lambda pair: -pair[0].value)
        ]

    not_judged = [{"group": group.name, "rows": group.rows} for group in left_out]
    return {"count": len(pairs), "regression": of(REGRESSION), "undecided": of(UNDECIDED), "not_judged": not_judged}


Allowed = Callable[..., float | None]  # the limit of the first of some names that has one, else that of all


@dataclass(frozen=True)
class _Reading:
    """How limits are read: what they are held against, and the confidence of the intervals."""

    confident: bool
    confidence: float

    def held(self, value: float, interval: Sequence[float] | None, *, minimum: bool = False) -> float | None:
        if not self.confident:
            return value
        return interval[0 if minimum else 1] if interval else None


def _shares(part: str, key: str, where: str) -> Callable[[dict[str, Any], Allowed, _Reading], list[Group]]:
    """Return the group of a limit on a rate of all rows or of those of the old model's classes."""

    def groups(measured: dict[str, Any], allowed: Allowed, reading: _Reading) -> list[Group]:
        found, limit = measured[part], _required(allowed())
        value, interval = found[key], found["intervals"][key]
        rows = _effective(found)
        tested = evidence.share(value * rows, rows, limit)
        place = f"{where.format(found['count'])}"
        return [Group(None, place, found["count"], limit, value, interval, reading.held(value, interval), tested)]

    return groups


def _relative_nfr(measured: dict[str, Any], allowed: Allowed, reading: _Reading) -> list[Group]:
    """Return the group of the relative NFR: of the new model's errors, the share that are flips is bounded."""
    found, limit = measured[OLD_ROWS], _required(allowed())
    value, interval = found["relative_nfr"], found["intervals"]["relative_nfr"]
    errors = _effective(found) * found["error_new"]
    share = min(1.0, limit * found["accuracy_old"])
    tested = evidence.share(found["nfr"] * _effective(found), errors, share)
    where = f"{found['count']:,} rows of old classes"
    return [Group(None, where, found["count"], limit, value, interval, reading.held(value, interval), tested)]


def _min_accuracy(measured: dict[str, Any], allowed: Allowed, reading: _Reading) -> list[Group]:
    found, limit = measured[ALL_ROWS], _required(allowed())
    value, interval = found["accuracy_new"], found["intervals"]["accuracy_new"]
    tested = evidence.share(found["error_new"] * _effective(found), _effective(found), 1 - limit)
    held, where = reading.held(value, interval, minimum=True), f"all {found['count']:,} rows"
    return [Group(None, where, found["count"], limit, value, interval, held, tested)]


def _accuracy_drop(measured: dict[str, Any], allowed: Allowed, reading: _Reading) -> list[Group]:
    found = measured[OLD_ROWS]
    where = f"{found['count']:,} rows of old classes"
    return _drops([(found, None, where, _required(allowed()))], reading)


def _class_nfr(measured: dict[str, Any], allowed: Allowed, reading: _Reading) -> list[Group]:
    groups = []
    for row in measured[CLASS]:
        if row["known"] and (limit := allowed(row["class"])) is not None:
            rows, value, interval = _effective(row), row["nfr"], row["interval"]
            tested = evidence.share(value * rows, rows, limit)
            where = f"class {row['class']}, {counted_rows(row['count'])}"
            held = reading.held(value, interval)
            groups.append(Group(row["class"], where, row["count"], limit, value, interval, held, tested))
    return groups


def _recall_drop(measured: dict[str, Any], allowed: Allowed, reading: _Reading) -> list[Group]:
    parts = [
        (row, row["class"], f"class {row['class']}, {counted_rows(row['count'])}", limit)
        for row in measured[CLASS]
        if row["known"] and (limit := allowed(row["class"])) is not None
    ]
    return _drops(parts, reading)


def _macro_f1(measured: dict[str, Any], allowed: Allowed, reading: _Reading) -> list[Group]:
    found, limit = measured["macro_f1"], _required(allowed())
    value, error, rows = found["new"], found["error_new"], measured[ALL_ROWS]["count"]
    interval = _normal(value, error, reading.confidence)
    tested, where = evidence.estimate(1 - value, error, rows, 1 - limit), f"all {rows:,} rows"
    return [Group(None, where, rows, limit, value, interval, reading.held(value, interval, minimum=True), tested)]


def _macro_f1_drop(measured: dict[str, Any], allowed: Allowed, reading: _Reading) -> list[Group]:
    found, limit = measured["macro_f1"], _required(allowed())
    value, error, rows = found["drop"], found["error_drop"], measured[OLD_ROWS]["count"]
    interval = _normal(value, error, reading.confidence)
    tested, where = evidence.estimate(value, error, rows, limit), f"{rows:,} rows of old classes"
    return [Group(None, where, rows, limit, value, interval, reading.held(value, interval), tested)]


def _normal(value: float, error: float, confidence: float) -> tuple[float, float]:
    """Return the interval of an estimate that is normally distributed."""
    half = -float(special.ndtri((1 - confidence) / 2)) * error
    return value - half, value + half


def _part_nfr(part: str, where: str) -> Callable[[dict[str, Any], Allowed, _Reading], list[Group]]:
    """Return the group of a limit on flips that are counted otherwise, such as of `top_k` or `accepted` answers."""

    def groups(measured: dict[str, Any], allowed: Allowed, reading: _Reading) -> list[Group]:
        found, limit = measured[part], _required(allowed())
        rows, value, interval = found.get("effective_rows", found["rows"]), found["nfr"], found["interval"]
        tested, held = evidence.share(value * rows, rows, limit), reading.held(value, interval)
        return [Group(None, where.format(found["rows"]), found["rows"], limit, value, interval, held, tested)]

    return groups


def _slice_nfr(measured: dict[str, Any], allowed: Allowed, reading: _Reading) -> list[Group]:
    groups = []
    for row, name, where, limit in _judged_slices(measured, allowed):
        rows, value, interval = _effective(row), row["nfr"], row["interval"]
        tested = evidence.share(value * rows, rows, limit)
        groups.append(Group(name, where, row["rows"], limit, value, interval, reading.held(value, interval), tested))
    return groups


def _slice_drop(measured: dict[str, Any], allowed: Allowed, reading: _Reading) -> list[Group]:
    return _drops(list(_judged_slices(measured, allowed)), reading)


def _judged_slices(measured: dict[str, Any], allowed: Allowed) -> Iterator[tuple[dict[str, Any], str, str, float]]:
    """Yield the slices with rows, what they are called, and their limit: their own, their column's or that of all."""
    for row in measured["slices"]:
        name = f"{row['column']}={row['value']}"
        limit = allowed(name, row["column"])
        if row["rows"] and limit is not None:
            yield row | {"count": row["rows"]}, name, f"slice {name}, {counted_rows(row['rows'])}", limit


def _drops(parts: Sequence[tuple[dict[str, Any], str | None, str, float]], reading: _Reading) -> list[Group]:
    """Return the groups of a limit on a loss of accuracy: of the rates, name, place and limit of each."""
    rows = np.array([_effective(found) for found, *_ in parts])
    before, after, flipped = (
        np.array([found[key] for found, *_ in parts]) * rows for key in ("accuracy_old", "accuracy_new", "nfr")
    )
    gained = after - before + flipped
    ends = np.stack(evidence.difference_interval(flipped, gained, rows, reading.confidence), -1).tolist()
    groups = []
    for place, (found, name, where, limit) in enumerate(parts):
        value, interval = found["accuracy_old"] - found["accuracy_new"], ends[place]
        tested = evidence.difference(float(flipped[place]), float(gained[place]), float(rows[place]), limit)
        held = reading.held(value, interval)
        groups.append(Group(name, where, found["count"], limit, value, interval, held, tested))
    return groups


def _effective(found: dict[str, Any]) -> float:
    """Return the number of rows, or with weights the number that tells as much."""
    return found.get("effective_rows", found["count"])


def _required(limit: float | None) -> float:
    if limit is None:
        raise ValueError("a limit of all rows has no value")
    return limit


LIMITS: Mapping[str, Callable[[dict[str, Any], Allowed, _Reading], list[Group]]] = MappingProxyType(
    {
        "max_nfr": _shares(OLD_ROWS, "nfr", "{:,} rows of old classes"),
        "max_relative_nfr": _relative_nfr,
        "max_class_nfr": _class_nfr,
        "min_accuracy": _min_accuracy,
        "max_accuracy_drop": _accuracy_drop,
        "max_recall_drop": _recall_drop,
        "max_churn": _shares(ALL_ROWS, "churn", "all {:,} rows"),
        "min_macro_f1": _macro_f1,
        "max_macro_f1_drop": _macro_f1_drop,
        "max_top_k_nfr": _part_nfr("top_k", "{:,} rows of old classes"),
        "max_accepted_nfr": _part_nfr("accepted", "{:,} rows that the old model accepts"),
        "max_old_taxonomy_nfr": _part_nfr("old_taxonomy", "{:,} rows of old classes, in the old taxonomy"),
        "max_slice_nfr": _slice_nfr,
        "max_slice_accuracy_drop": _slice_drop,
    }
)
"""Each limit and the groups that it applies to."""

OF_CLASSES = ("max_class_nfr", "max_recall_drop")
FAMILIES = (*OF_CLASSES, *OF_SLICES)  # limits on classes or slices, of which some are beyond it by chance


def _rates(
    old: np.ndarray, new: np.ndarray, labels: np.ndarray, confidence: float, weights: np.ndarray | None
) -> dict[str, Any]:
    flips = metrics.flip_metrics(old, new, labels, weights=weights)
    rows = flips["count"] if weights is None else float(metrics.effective_rows(weights.sum(), (weights**2).sum()))
    negative, right_old, wrong_new = (_whole(flips[key] * rows) for key in ("nfr", "accuracy_old", "error_new"))

    def interval(successes: float, out_of: float = rows) -> list[float]:
        # Rates times rows are whole numbers but for their rounding, and must not exceed the rows.
        return list(metrics.wilson_interval(min(_whole(successes), out_of), out_of, confidence=confidence))

    intervals = {
        **{key: interval(flips[key] * rows) for key in ("accuracy_old", "accuracy_new", "nfr", "pfr", "churn")},
        # Without new errors the share of them that are flips is unknown, as in Wilson's interval of 0 / 0.
        "relative_nfr": [end * rows / right_old for end in (interval(negative, wrong_new) if wrong_new else (0, 1))]
        if right_old
        else None,
    }
    p = metrics.mcnemar_exact(negative, _whole(flips["pfr"] * rows))
    effective = {} if weights is None else {"effective_rows": rows}
    return {**flips, **effective, "intervals": intervals, "mcnemar_p": p}


def _whole(number: float) -> float:
    """Return the nearest whole number if the difference is that of rounding."""
    return float(round(number)) if abs(number - round(number)) < 1e-6 else number


def _class_row(
    name: str, known: bool, counts: Mapping[str, float], totals: Mapping[str, float], rows: float, confidence: float
) -> dict[str, Any]:
    """Return the rates of a class: of its counts of rows, the sums of their weights, and the effective rows."""
    # The sum of its parts is not below one of them by rounding; all weights may be 0.
    total = totals["both_right"] + totals["negative_flips"] + totals["positive_flips"] + totals["both_wrong"] or 1.0
    nfr = totals["negative_flips"] / total
    return {
        "class": name,
        "known": known,
        **{key: int(count) for key, count in counts.items()},
        **({} if totals is counts else {"effective_rows": rows}),
        "accuracy_old": (totals["both_right"] + totals["negative_flips"]) / total,
        "accuracy_new": (totals["both_right"] + totals["positive_flips"]) / total,
        "nfr": nfr,
        "interval": metrics.wilson_intervals(
            np.array([min(_whole(nfr * rows), rows)]), np.array([rows]), confidence=confidence
        )[0].tolist(),
    }
