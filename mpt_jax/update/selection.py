"""The choice of an objective's numbers on validation images: the candidates, and the rule that picks one."""

import dataclasses
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from mpt_jax import config as configs
from mpt_jax import metrics, objectives
from mpt_jax.config import Config
from mpt_jax.objectives import METHODS, Objective
from mpt_jax.update.lineage import Stage


@dataclasses.dataclass(frozen=True)
class Member:
    """One objective of a population: a method, and those of its numbers that are tuned."""

    method: str
    objective: Objective
    numbers: Mapping[str, float] = dataclasses.field(default_factory=dict)

    def label(self, seed: int) -> str:
        """Return its name in `metrics.jsonl`."""
        others = "".join(f" {name}={value:g}" for name, value in self.numbers.items() if name != "bias")
        return f"{self.method} b={float(self.objective.bias):g}{others} seed={seed}"


def members_of(config: Config, stage: Stage) -> list[Member]:
    """Return the objectives of a stage's population: one per method, or one per combination of candidate numbers."""
    if not stage.has_students:
        return [Member(stage.methods[0], METHODS["no_treatment"])]
    update = config.update
    bias = None if update.bias in ("published", "auto") else float(update.bias)
    return candidates(stage.methods, configs.tuned(config), trials=update.tune_trials, bias=bias)


def candidates(
    methods: Sequence[str], grid: Mapping[str, Sequence[float]], *, trials: int = 0, bias: float | None = None
) -> list[Member]:
    """Return one member per method, or one per combination of the candidates for the numbers that the method uses.

    Args:
      methods: names as in `objectives.named`; a number that is fixed by a name is not tuned.
      grid: number -> candidates, names as in `objectives.check_number`.
      trials: the most combinations of each method, drawn at random (always the same ones); 0: all.
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
        used = [key for key in grid if key not in fixed and objectives.uses(objective, key)]
        combinations = list(itertools.product(*(grid[key] for key in used)))
        if 0 < trials < len(combinations):
            drawn = np.random.default_rng(0).choice(len(combinations), trials, replace=False)
            combinations = [combinations[i] for i in sorted(drawn)]
        for values in combinations:
            numbers = {key: float(value) for key, value in zip(used, values, strict=True)}
            members.append(Member(method, objectives.with_numbers(objective, numbers), numbers))
    return members


def choose(accuracy: Sequence[float], nfr: Sequence[float], *, required_accuracy: float) -> int:
    """Return the index of the candidate with the fewest negative flips among those that reach the required accuracy.

    If none reaches it, return the most accurate one. Ties go to the more accurate, then to the earlier candidate.
    """
    indices = range(len(accuracy))
    reaching = [i for i in indices if accuracy[i] >= required_accuracy]
    if reaching:
        return min(reaching, key=lambda i: (nfr[i], -accuracy[i], i))
    return max(indices, key=lambda i: (accuracy[i], -i))


def rates(
    old: Iterable[np.ndarray],
    new: Iterable[np.ndarray],
    labels: np.ndarray,
    num_old_classes: int,
    allowed: np.ndarray | None = None,
) -> dict[str, float]:
    """Return accuracy and negative flip rate, averaged over seeds.

    Args:
      old: predicted classes of the old model, one array per seed.
      new: predicted classes of the new model, one array per seed.
      allowed: see `metrics.class_growth_metrics`.
    """
    rows = [
        metrics.class_growth_metrics(before, after, labels, num_old_classes=num_old_classes, allowed=allowed)
        for before, after in zip(old, new, strict=True)
    ]
    return {key: float(np.mean([row[key] for row in rows])) for key in ("accuracy", "nfr")}


def diverged(params: Any) -> bool:
    """Return whether any weight of a model is not finite."""
    return not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params))


def select(tried: Sequence[Mapping[str, Any]], *, required_accuracy: float, images: int) -> tuple[int, dict[str, Any]]:
    """Return the index of the chosen candidate, and the record of the choice for the card.

    Args:
      tried: per candidate its `numbers`, `accuracy` and `nfr`, and whether it `diverged` for any seed. Candidates that
        diverged are chosen only if all did.
      required_accuracy: what a candidate should reach.
      images: the number of validation images.
    """
    accuracy = [-1.0 if t.get("diverged") else t["accuracy"] for t in tried]
    best = choose(accuracy, [t["nfr"] for t in tried], required_accuracy=required_accuracy)
    return best, {
        "validation_images": images,
        "required_accuracy": required_accuracy,
        "candidates": [dict(t) for t in tried],
        "chosen": best,
    }
