"""The registry of methods: `rows()` has those that train a student and those derived from trained models.

A trained method is a row of `objectives.METHODS`, a derived one a row of `DERIVED`. A row is the only place to edit.
All else is read from it: what must be trained (`update.lineage`), how a derived method is computed
(`update.derivation`), which settings it needs (`config`), the legend of the report and `docs/methods.md`.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np

from mpt_jax import metrics, posttraining
from mpt_jax.models import Classifier
from mpt_jax.objectives import METHODS, Objective


@dataclasses.dataclass(frozen=True)
class Paper:
    """A publication that a method comes from."""

    authors: str
    title: str
    year: int
    arxiv: str = ""

    def __str__(self) -> str:
        return f"{self.authors}, {self.title.partition(':')[0]}, {self.year}"


PAPERS: dict[str, Paper] = {
    "anchor": Paper("Fard et al.", "Launch and Iterate: Reducing Prediction Churn", 2016),
    "averaging": Paper("Polyak and Juditsky", "Acceleration of Stochastic Approximation by Averaging", 1992),
    "balanced": Paper("Ren et al.", "Balanced Meta-Softmax for Long-Tailed Visual Recognition", 2020, "2007.10740"),
    "bansal": Paper(
        "Bansal et al.",
        "Updates in Human-AI Teams: Understanding and Addressing the Performance/Compatibility Tradeoff",
        2019,
    ),
    "bct": Paper("Shen et al.", "Towards Backward-Compatible Representation Learning", 2020, "2003.11942"),
    "bcwi": Paper(
        "Schumann et al.", "Backward Compatibility During Data Updates by Weight Interpolation", 2024, "2301.10546"
    ),
    "churn": Paper("Jiang et al.", "Churn Reduction via Distillation", 2022, "2106.02654"),
    "elodi": Paper(
        "Zhao et al.",
        "ELODI: Ensemble Logit Difference Inhibition for Positive-Congruent Training",
        2022,
        "2205.06265",
    ),
    "hinton": Paper("Hinton et al.", "Distilling the Knowledge in a Neural Network", 2015, "1503.02531"),
    "incremental": Paper(
        "Jodelet et al.", "Balanced Softmax Cross-Entropy for Incremental Learning", 2021, "2103.12532"
    ),
    "mpt": Paper("Ricci et al.", "Mitigating Negative Flips via Margin Preserving Training", 2026, "2511.08322"),
    "muscle": Paper(
        "Echterhoff et al.", "MUSCLE: A Model Update Strategy for Compatible LLM Evolution", 2024, "2407.09435"
    ),
    "pct": Paper(
        "Yan et al.", "Positive-Congruent Training: Towards Regression-Free Model Updates", 2021, "2011.09161"
    ),
    "smoothing": Paper(
        "Szegedy et al.", "Rethinking the Inception Architecture for Computer Vision", 2016, "1512.00567"
    ),
    "soup": Paper(
        "Wortsman et al.",
        "Model Soups: Averaging Weights of Multiple Fine-Tuned Models Improves Accuracy Without Increasing Inference "
        "Time",
        2022,
        "2203.05482",
    ),
    "xie": Paper(
        "Xie et al.",
        "Regression Bugs Are In Your Model! Measuring, Reducing and Analyzing Regressions In NLP Model Updates",
        2021,
        "2105.03048",
    ),
}
"""The papers that rows refer to, by key."""


class Ingredients(Protocol):
    """The models of one seed that a derived method is computed from; each is read when it is first used."""

    num_old_classes: int

    @property
    def old(self) -> Classifier:
        """The model of the previous release."""

    @property
    def parents(self) -> tuple[Classifier, ...]:
        """The models of `Derived.made_from`; an ensemble is a stack, leaves ``[models, ...]``."""

    @property
    def importance(self) -> Any:
        """Relative Fisher information of each weight of `old`, on images that it was trained on."""

    def refresh(self, classifier: Classifier) -> Classifier:
        """Measure the running statistics of averaged weights again, on the release's training images."""


@dataclasses.dataclass(frozen=True)
class Validation:
    """What the choice of a number is based on: held-out images, without the seeds whose models have diverged.

    Attributes:
      labels: integers, ``[n]``.
      num_old_classes: classes from this position on are new.
      old_predictions: of the previous release, ``[seeds, n]``.
      logits: of the first of `Derived.made_from`, ``[seeds, n, K]``.
      required_accuracy: the independent model's accuracy less `update.tolerance`.
    """

    labels: np.ndarray
    num_old_classes: int
    old_predictions: np.ndarray
    logits: np.ndarray
    required_accuracy: float


@dataclasses.dataclass(frozen=True)
class Number:
    """The number of a derived method: one for all seeds, with the fewest negative flips at the required accuracy.

    Attributes:
      name: its name in cards and reports.
      symbol: its name in formulas.
      candidates: the values to try. The first must not change the parent; its accuracy less `update.tolerance` is the
        required one.
      choose: used instead of `candidates`: from `Validation` to the number and the record of the choice for the card.
    """

    name: str
    symbol: str
    candidates: tuple[float, ...] = ()
    choose: Callable[[Validation], tuple[float, Mapping[str, Any]]] | None = None


Build = Callable[..., Classifier]  # takes `Ingredients`, and the number if the method has one


@dataclasses.dataclass(frozen=True)
class Derived:
    """A method that trains no student: each of its models is computed from models of its release and the old one.

    Attributes:
      doc: formula, in one line.
      build: computes the model. None if the population that `made_from` names is itself the method.
      made_from: methods of the same release: trained ones, "independent" or "ensemble". "update.KEY" stands for the
        method that this setting names.
      number: the number that is chosen on validation images.
      papers: keys of `PAPERS`, or free text.
      family: heading in `docs/methods.md`.
      fine_tuned: the method averages weights, so the models must be fine-tuned from the old model. This needs
        `update.start=old`, two releases, and an old model whose weights are known.
      needs_new_classes: the method needs an update that adds classes.
    """

    doc: str
    build: Build | None
    made_from: tuple[str, ...]
    number: Number | None = None
    papers: tuple[str, ...] = ()
    family: str = "Derived methods"
    fine_tuned: bool = False
    needs_new_classes: bool = False


def _lowered(models: Ingredients, c: float) -> Classifier:
    return posttraining.with_new_class_bias(models.parents[0], c, models.num_old_classes)


def _choose_exactly(validation: Validation) -> tuple[float, Mapping[str, Any]]:
    """Choose c on the exact curve; record its Pareto front, since the full curve has as many steps as images."""
    curve = posttraining.mean_curve(
        [
            posttraining.posthoc_curve(logits, old, validation.labels, num_old_classes=validation.num_old_classes)
            for logits, old in zip(validation.logits, validation.old_predictions, strict=True)
        ]
    )
    chosen = posttraining.choose_posthoc_bias(curve, required_accuracy=validation.required_accuracy)
    front = [float(curve.starts[i]) for i in metrics.pareto_front(curve.accuracy, curve.nfr)]
    constants = sorted({0.0, chosen, *front})
    rates = [posttraining.rates_at(curve, c) for c in constants]
    return chosen, {
        "validation_images": len(validation.labels),
        "required_accuracy": validation.required_accuracy,
        "candidates": [
            {"numbers": {"posthoc_bias": c}, "accuracy": values["accuracy"], "nfr": values["nfr"]}
            for c, values in zip(constants, rates, strict=True)
        ],
        "chosen": constants.index(chosen),
    }


def _soup(models: Ingredients) -> Classifier:
    return models.refresh(posttraining.soup(models.parents[0]))


def _bcwi(models: Ingredients, share: float) -> Classifier:
    return _between(models, models.parents[0], share)


def _bcwi_fisher(models: Ingredients, share: float) -> Classifier:
    return _between(models, models.parents[0], share, importance=models.importance)


def _bcwi_soup(models: Ingredients, share: float) -> Classifier:
    return _between(models, posttraining.soup(models.parents[0]), share)


def _between(models: Ingredients, new: Classifier, share: float, importance: Any = None) -> Classifier:
    mixed = posttraining.interpolate(models.old, new, np.float32(share), importance=importance)
    return models.refresh(mixed) if 0 < share < 1 else mixed


_SHARE = Number("share_of_old", "a", candidates=tuple(i / 10 for i in range(11)))  # the grid of the BCWI paper

DERIVED: dict[str, Derived] = {
    "posthoc_bias": Derived(
        "c subtracted from the new classes' logits of the independent model (or of `update.posthoc_of`)",
        _lowered,
        made_from=("update.posthoc_of",),
        number=Number("posthoc_bias", "c", choose=_choose_exactly),
        papers=("baseline of this project",),
        family="Bias after training",
        needs_new_classes=True,
    ),
    "bcwi": Derived(
        "a theta_old + (1 - a) theta, theta the weights of no_treatment fine-tuned from the old model",
        _bcwi,
        made_from=("no_treatment",),
        number=_SHARE,
        papers=("bcwi",),
        family="Averaged weights",
        fine_tuned=True,
    ),
    "bcwi_fisher": Derived(
        "bcwi with F a in place of a, F the relative Fisher information of each weight of the old model",
        _bcwi_fisher,
        made_from=("no_treatment",),
        number=_SHARE,
        papers=("bcwi",),
        family="Averaged weights",
        fine_tuned=True,
    ),
    "bcwi_soup": Derived(
        "bcwi with theta the mean weights of `update.ensemble_size` fine-tuned models",
        _bcwi_soup,
        made_from=("ensemble",),
        number=_SHARE,
        papers=("bcwi",),
        family="Averaged weights",
        fine_tuned=True,
    ),
    "soup": Derived(
        "mean weights of `update.ensemble_size` models fine-tuned from the old one",
        _soup,
        made_from=("ensemble",),
        papers=("soup",),
        family="Averaged weights",
        fine_tuned=True,
    ),
    "ensemble": Derived(
        "mean logits of `update.ensemble_size` independent models: an upper reference, at that many times the cost of "
        "inference",
        None,
        made_from=("ensemble",),
        papers=("pct",),
        family="Ensembles",
    ),
}
"""The methods that train no student, by name."""


def rows() -> dict[str, Objective | Derived]:
    """Return every method by name, trained ones first.

    Examples:
      >>> rows()["bcwi"].family, rows()["mpt_kl"].family
      ('Averaged weights', 'Margin Preserving Training')
    """
    return {**METHODS, **DERIVED}


def describe(row: Objective | Derived) -> str:
    """Return the formula of a method with its sources.

    Examples:
      >>> describe(METHODS["pct_kl"])
      'CE + FD-KL(old) (Yan et al., Positive-Congruent Training, 2021)'
    """
    sources = "; ".join(str(PAPERS.get(paper, paper)) for paper in row.papers)
    return f"{row.doc} ({sources})" if sources else row.doc
