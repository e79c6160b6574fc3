"""The choice of an objective's numbers on validation images: candidates, and the rule that picks one."""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from mpt_jax import metrics, objectives
from mpt_jax.objectives import Objective


@dataclasses.dataclass(frozen=True)
class Member:
    """One objective of a population: a method, and the numbers of it that were tuned."""

    method: str
    objective: Objective
    numbers: Mapping[str, float] = dataclasses.field(default_factory=dict)

    def label(self, seed: int) -> str:
        """Its name in `metrics.jsonl`."""
        others = "".join(f" {name}={value:g}" for name, value in self.numbers.items() if name != "bias")
        return f"{self.method} b={float(self.objective.bias):g}{others} seed={seed}"


def candidates(
    methods: Sequence[str], grid: Mapping[str, Sequence[float]], *, trials: int = 0, bias: float | None = None
) -> list[Member]:
    """One member per method, or one per combination of the candidates for the numbers that the method makes use of.

    Args:
      methods: names as in `objectives.named`; a number that a name fixes is not tried at others.
      grid: number -> candidates, names as in `objectives.check_number`.
      trials: at most so many combinations of each method, drawn at random (the same ones every time); 0: all.
      bias: b of the methods that have one; None: as published.

    Examples:
      >>> [(m.method, dict(m.numbers)) for m in candidates(["no_treatment", "mpt_kl"], {"bias": (0.0, 2.0)})]
      [('no_treatment', {}), ('mpt_kl', {'bias': 0.0}), ('mpt_kl', {'bias': 2.0})]
    """
    members = []
    for method in methods:
        objective, fixed = objectives.named(method), objectives.own_numbers(method)
        if bias is not None and objective.bias and "bias" not in fixed:
            objective = objective.replace(bias=float(bias))
        used = [key for key in grid if key not in fixed and objectives.makes_use_of(objective, key)]
        combinations = list(itertools.product(*(grid[key] for key in used)))
        if 0 < trials < len(combinations):
            drawn = np.random.default_rng(0).choice(len(combinations), trials, replace=False)
            combinations = [combinations[i] for i in sorted(drawn)]
        for values in combinations:
            numbers = {key: float(value) for key, value in zip(used, values, strict=True)}
            members.append(Member(method, objectives.with_numbers(objective, numbers), numbers))
    return members


def choose(accuracy: Sequence[float], nfr: Sequence[float], *, required_accuracy: float) -> int:
    """Index of the candidate with the fewest negative flips of those that reach the accuracy; else the most accurate.

    Ties go to the more accurate, then to the earlier one.
    """
    indices = range(len(accuracy))
    reaching = [i for i in indices if accuracy[i] >= required_accuracy]
    if reaching:
        return min(reaching, key=lambda i: (nfr[i], -accuracy[i], i))
    return max(indices, key=lambda i: (accuracy[i], -i))


def rates(
    old: Sequence[np.ndarray], new: Sequence[np.ndarray], labels: np.ndarray, num_old_classes: int
) -> dict[str, float]:
    """Mean over seeds of the accuracy and the negative flips: predictions of old and new model, one array a seed."""
    rows = [
        metrics.class_growth_metrics(before, after, labels, num_old_classes=num_old_classes)
        for before, after in zip(old, new, strict=True)
    ]
    return {key: float(np.mean([row[key] for row in rows])) for key in ("accuracy", "nfr")}


def diverged(params: Any) -> bool:
    """Whether any weight of a model is not finite."""
    return not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params))


def select(tried: Sequence[Mapping[str, Any]], *, required_accuracy: float, images: int) -> tuple[int, dict[str, Any]]:
    """The index of the chosen candidate, and the record of the choice for the card.

    Args:
      tried: per candidate its `numbers`, `accuracy` and `nfr`, and whether it `diverged` for any seed; those that did
        are chosen only if all did.
      required_accuracy: what a candidate should reach.
      images: of the validation part.
    """
    accuracy = [-1.0 if t.get("diverged") else t["accuracy"] for t in tried]
    best = choose(accuracy, [t["nfr"] for t in tried], required_accuracy=required_accuracy)
    return best, {
        "validation_images": images,
        "required_accuracy": required_accuracy,
        "candidates": [dict(t) for t in tried],
        "chosen": best,
    }
