"""Training objectives as rows of numbers: an `Objective` is a pytree, `METHODS` the table of published ones.

    loss(i) = cross_entropy * CE(z_i + offset, y_i)
            + sum over terms t of  weight_t * (alpha_t + beta_t * gate_t(i)) * D_t(z_i[:K_s], z_s,i)
    offset_k = bias(progress) * scale_y ** bias_power * 1[k is new]
               + balance * log(n_k * old_count_factor ** 1[k is old])

A source that knows other classes than the student, such as an old model whose classes the update merges or splits,
brings `CommonClasses`, on which the two are compared; to know the first K_s classes is the simplest case.

Numbers are leaves; the structure (source, distance, gate) is static. So several objectives `stack` into one and train
in a single vmapped program. To add a method, add a row to `METHODS`. To add a gate or a distance, add an entry to
`GATES` or `DISTANCES`.
"""

import dataclasses
import functools
import math
import operator
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from mpt_jax import class_map, losses

GATES: dict[str, Callable[[jax.Array, jax.Array, jax.Array], jax.Array]] = {
    "teacher_right": lambda logits, teacher_logits, labels: losses.teacher_right(teacher_logits, labels),
    "none": lambda logits, teacher_logits, labels: jnp.zeros(labels.shape, bool),
    "teacher_wrong": lambda logits, teacher_logits, labels: ~losses.teacher_right(teacher_logits, labels),
    "teacher_knows": lambda logits, teacher_logits, labels: labels.astype(int) < teacher_logits.shape[-1],
    "better_teacher": lambda logits, teacher_logits, labels: losses.better_teacher(logits, teacher_logits, labels),
    "student_right": lambda logits, teacher_logits, labels: losses.teacher_right(logits, labels),
    "student_wrong": lambda logits, teacher_logits, labels: ~losses.teacher_right(logits, labels),
}
"""Gates by name: functions of (student logits, teacher logits, labels) that return ``[...]``, without gradient.

A gate selects the images on which a term's beta counts. On images of classes that a teacher does not know, it counts as
wrong and as not better. Several names joined by "&" are a gate too: it is open where all of them are, as
"teacher_right&student_wrong" is on the negative flips of the moment.
"""

SOURCES = ("old", "new", "ensemble", "old_head")
"""Names of the teachers: the old model; a model trained independently on all classes; the mean logits of several such
models; the frozen old head on the student's features."""

DISTANCES: dict[str, Callable[["Term", jax.Array, jax.Array, jax.Array], jax.Array]] = {
    "kl": lambda term, logits, teacher_logits, labels: losses.kl_distance(
        logits,
        teacher_logits,
        temperature=term.temperature,
        scale_by_temperature_squared=term.scale_by_temperature_squared,
    ),
    "lm": lambda term, logits, teacher_logits, labels: losses.logit_matching(
        logits, teacher_logits, matching=term.matching, top_k=term.top_k
    ),
    "ce": lambda term, logits, teacher_logits, labels: losses.cross_entropy(
        logits, labels, label_smoothing=term.label_smoothing
    ),
    "soft_ce": lambda term, logits, teacher_logits, labels: losses.soft_cross_entropy(logits, teacher_logits),
    "ldi": lambda term, logits, teacher_logits, labels: losses.logit_difference_inhibition(
        logits, teacher_logits, slack=term.slack, power=term.power, top_k=term.top_k
    ),
    "influence": lambda term, logits, teacher_logits, labels: losses.influence_loss(teacher_logits, labels),
}
"""Distances by name: functions of (term, student logits, teacher logits, labels) that return ``[...]``.

The target of "ce" is the label; its teacher is used by the gate only. The target of "soft_ce" is the teacher's
probabilities. "influence" is the cross-entropy of the source's logits, and the only distance whose gradient flows into
them.
"""


OF_OLD_MODEL = ("old", "old_head")
"""The sources whose classes are those of the old model."""

_CLASSES_OF = {
    **dict.fromkeys(("teacher_right", "teacher_wrong"), "source"),
    **dict.fromkeys(("student_right", "student_wrong", "ce"), "student"),
}
"""The classes on which a gate or a distance is computed if those of source and student differ; else the common ones."""


@dataclasses.dataclass(frozen=True)
class CommonClasses:
    """The classes on which a student is compared with a source that knows other ones, see `class_map.groups`.

    The source's logit of a common class is the logsumexp of those of its classes, and so is the student's. A class of
    the source that is in none is retired, one of the student is new.

    Attributes:
      of_source: for each common class, the source's classes.
      of_student: for each common class, the student's classes.
      right: for each of the source's classes, the student's classes that it stands for: its prediction is right on
        images of these.
    """

    of_source: tuple[tuple[int, ...], ...]
    of_student: tuple[tuple[int, ...], ...]
    right: tuple[tuple[int, ...], ...]


def common_classes(allowed: np.ndarray) -> CommonClasses | None:
    """Return the classes on which a source and a student are compared; None if the source knows the first ones.

    Args:
      allowed: which of the student's classes each of the source's stands for, ``[K_s, K]``, see `class_map.matrix`.

    Examples:
      >>> common_classes(np.array([[1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 1, 0], [0, 0, 0, 0]], bool))
      CommonClasses(of_source=((0,), (1, 2)), of_student=((0, 1), (2,)), right=((0, 1), (2,), (2,), ()))
      >>> common_classes(np.eye(2, 3, dtype=bool))
    """
    if np.array_equal(allowed, np.eye(*allowed.shape, dtype=bool)):
        return None

    def members(groups: np.ndarray) -> tuple[tuple[int, ...], ...]:
        return tuple(tuple(np.flatnonzero(groups == g).tolist()) for g in range(groups.max() + 1))

    of_source, of_student = class_map.groups(allowed)
    return CommonClasses(
        members(of_source), members(of_student), tuple(tuple(np.flatnonzero(row).tolist()) for row in allowed)
    )


class Term(struct.PyTreeNode):
    """One term of an objective, ``weight * (alpha + beta * gate) * D(z[:K_s], z_s)``.

    A term has no effect if its weight is 0 or its epoch has not come, even if its teacher's logits are not finite.

    Static fields are the structure; the others are leaves, numbers or scalar arrays. Public implementations disagree on
    `scale_by_temperature_squared`, `unknown_classes` and `matching`. The defaults are those of the code of Margin
    Preserving Training; see `losses.focal_distillation`.

    Attributes:
      source: the teacher, one of `SOURCES` (static).
      distance: one of `DISTANCES` (static).
      gate: one of `GATES`, or several joined by "&" (static).
      weight: of the term.
      alpha: weight of every image.
      beta: additional weight where the gate is open.
      temperature: used by "kl".
      scale_by_temperature_squared: used by "kl" (static).
      unknown_classes: one of `losses.UNKNOWN_CLASSES` (static).
      matching: used by "lm", one of `losses.MATCHINGS` (static).
      top_k: used by "lm" and "ldi" (static).
      slack: used by "ldi".
      power: used by "ldi".
      label_smoothing: used by "ce".
      start_epoch: the first epoch in which the term counts; epochs are counted from 0.

    Raises:
      ValueError: unknown source, distance, gate or option.

    Examples:
      >>> Term("old", "lm", weight=0.4).alpha
      1.0
    """

    source: str = struct.field(pytree_node=False)
    distance: str = struct.field(pytree_node=False)
    gate: str = struct.field(pytree_node=False, default="teacher_right")
    weight: float | jax.Array = 1.0
    alpha: float | jax.Array = 1.0
    beta: float | jax.Array = 5.0
    temperature: float | jax.Array = 5.0
    scale_by_temperature_squared: bool = struct.field(pytree_node=False, default=False)
    unknown_classes: str = struct.field(pytree_node=False, default="keep")
    matching: str = struct.field(pytree_node=False, default="half_mean")
    top_k: int | None = struct.field(pytree_node=False, default=None)
    slack: float | jax.Array = 0.0
    power: float | jax.Array = 2.0
    label_smoothing: float | jax.Array = 0.0
    start_epoch: float | jax.Array = 0.0

    def __post_init__(self):
        options = {"source": SOURCES, "distance": DISTANCES, "gate": GATES}
        options |= {"unknown_classes": losses.UNKNOWN_CLASSES, "matching": losses.MATCHINGS}
        for name, valid in options.items():
            chosen = getattr(self, name)
            for one in chosen.split("&") if name == "gate" else (chosen,):
                if one not in valid:
                    raise ValueError(f"unknown {name} {one!r}; valid: {', '.join(valid)}")


class Objective(struct.PyTreeNode):
    """A training objective: cross-entropy with an offset per class, and distillation terms.

    Static fields describe it; the others are leaves, numbers or scalar arrays.

    Attributes:
      cross_entropy: weight of the cross-entropy.
      bias: b, added to the logits of the new classes in the training softmax.
      terms: the distillation terms.
      doc: formula, in one line (static).
      bias_start: factor on b at the start of training; it changes linearly to `bias_end`.
      bias_end: factor on b at the end of training.
      balance: exponent on the number of training images of each class; 1 is Balanced Softmax.
      old_count_factor: factor on that number for the old classes.
      label_smoothing: over all classes.
      bias_power: b is multiplied by this power of a scale per label, which the caller gives.
      average: decay of the moving average of the weights that is released; 0 releases the last weights.
      sampler_rate: step size of the log-rates at which classes are drawn; 0 visits every image once per epoch.
      papers: where it comes from, keys of `methods.PAPERS` or free text (static).
      family: heading in `docs/methods.md` (static).

    Examples:
      >>> METHODS["mpt_kl"].replace(bias=2.0).bias
      2.0
    """

    cross_entropy: float | jax.Array = 1.0
    bias: float | jax.Array = 0.0
    terms: tuple[Term, ...] = ()
    doc: str = struct.field(pytree_node=False, default="")
    bias_start: float | jax.Array = 1.0
    bias_end: float | jax.Array = 1.0
    balance: float | jax.Array = 0.0
    old_count_factor: float | jax.Array = 1.0
    label_smoothing: float | jax.Array = 0.0
    bias_power: float | jax.Array = 0.0
    average: float | jax.Array = 0.0
    sampler_rate: float | jax.Array = 0.0
    papers: tuple[str, ...] = struct.field(pytree_node=False, default=(), compare=False)
    family: str = struct.field(pytree_node=False, default="Others", compare=False)


_MPT: dict[str, Any] = {"family": "Margin Preserving Training", "papers": ("mpt",)}
_VARIATION: dict[str, Any] = {
    "family": "Variations of Margin Preserving Training",
    "papers": ("variation by this project",),
}
_PCT: dict[str, Any] = {"family": "Positive-Congruent Training", "papers": ("pct",)}
_ELODI: dict[str, Any] = {"family": "Ensemble distillation", "papers": ("elodi",)}
_BALANCED: dict[str, Any] = {"family": "Balanced Softmax", "papers": ("balanced", "incremental")}
_BASELINE, _COMPATIBLE = "Baselines", "Distillation and compatibility"
_OLD_KL, _OLD_LM = Term("old", "kl"), Term("old", "lm", weight=0.4)
_NEW_KL, _NEW_LM = Term("new", "kl"), Term("new", "lm", weight=0.4)
_GATE_OPEN: dict[str, Any] = {"alpha": 0.0, "beta": 1.0}
_GATE_CLOSED: dict[str, Any] = {"alpha": 1.0, "beta": -1.0}
_EVERYWHERE: dict[str, Any] = {"gate": "none", "beta": 0.0}
_OLD_KD = Term("old", "kl", weight=0.5, temperature=2.0, scale_by_temperature_squared=True, **_EVERYWHERE)
_FROM_6: dict[str, Any] = {"start_epoch": 6.0, **_EVERYWHERE}

METHODS: dict[str, Objective] = {
    "no_treatment": Objective(doc="CE: plain retraining, the baseline", family=_BASELINE),
    "pct_naive": Objective(
        terms=(Term("old", "ce", alpha=0.0, beta=1.0),), doc="CE + CE where the old model is right", **_PCT
    ),
    "pct_kl": Objective(terms=(_OLD_KL,), doc="CE + FD-KL(old)", **_PCT),
    "pct_lm": Objective(terms=(_OLD_LM,), doc="CE + 0.4 FD-LM(old)", **_PCT),
    "mpt_kl": Objective(
        bias=4.0, terms=(_OLD_KL, _NEW_KL), doc="CE(b on new classes) + FD-KL(old) + FD-KL(new)", **_MPT
    ),
    "mpt_lm": Objective(
        bias=4.0, terms=(_OLD_LM, _NEW_LM), doc="CE(b on new classes) + 0.4 FD-LM(old) + 0.4 FD-LM(new)", **_MPT
    ),
    "mpt_no_distillation": Objective(bias=4.0, doc="CE(b on new classes)", **_MPT),
    "mpt_kl_no_bias": Objective(terms=(_OLD_KL, _NEW_KL), doc="CE + FD-KL(old) + FD-KL(new)", **_MPT),
    "mpt_lm_no_bias": Objective(terms=(_OLD_LM, _NEW_LM), doc="CE + 0.4 FD-LM(old) + 0.4 FD-LM(new)", **_MPT),
    "mpt_kl_annealed": Objective(
        bias=4.0, bias_end=0.0, terms=(_OLD_KL, _NEW_KL), doc="mpt_kl with b falling linearly to 0", **_VARIATION
    ),
    "mpt_kl_grown": Objective(
        bias=4.0, bias_start=0.0, terms=(_OLD_KL, _NEW_KL), doc="mpt_kl with b rising linearly from 0", **_VARIATION
    ),
    "mpt_kl_per_class": Objective(
        bias=4.0,
        bias_power=1.0,
        terms=(_OLD_KL, _NEW_KL),
        doc="mpt_kl with b scaled for images of class y by the old model's mean margin / its margin on class y",
        **_VARIATION,
    ),
    "mpt_kl_ema": Objective(
        bias=4.0,
        average=0.999,
        terms=(_OLD_KL, _NEW_KL),
        doc="mpt_kl, releasing the moving average of the weights, decay 0.999",
        **_VARIATION,
    ),
    "mpt_kl_ensemble": Objective(
        bias=4.0,
        terms=(_OLD_KL, Term("ensemble", "kl")),
        doc="mpt_kl with the mean logits of `update.ensemble_size` new models as the new source",
        **_VARIATION,
    ),
    "mpt_lm_centred": Objective(
        bias=1.0,
        terms=(_OLD_LM.replace(matching="centred"), _NEW_LM.replace(matching="centred")),
        doc="mpt_lm with b = 1 and logits matched up to a constant",
        **_VARIATION,
    ),
    "mpt_lm_ensemble": Objective(
        bias=1.0,
        terms=(_OLD_LM.replace(matching="centred"), Term("ensemble", "lm", weight=0.4, matching="centred")),
        doc="mpt_lm_centred with the mean logits of `update.ensemble_size` new models as the new source",
        **_VARIATION,
    ),
    "elodi": Objective(
        cross_entropy=0.2,
        terms=(Term("ensemble", "ldi", weight=0.8, slack=0.2, **_EVERYWHERE),),
        doc="0.2 CE + 0.8 LDI(ensemble of 8), p = 2, slack 0.2 (in the paper 0 to 0.2)",
        **_ELODI,
    ),
    "elodi_mpt": Objective(
        terms=(Term("old", "lm", weight=0.6, **_FROM_6), Term("ensemble", "lm", weight=0.4, **_FROM_6)),
        doc="CE + from epoch 6 on, counted from 0, 0.6 LM(old) + 0.4 LM(ensemble of 8): ELODI as a baseline of MPT",
        family=_ELODI["family"],
        papers=("elodi", "mpt"),
    ),
    "elodi_mpt_topk": Objective(
        terms=(
            Term("old", "lm", weight=0.6, top_k=10, **_FROM_6),
            Term("ensemble", "lm", weight=0.4, top_k=10, **_FROM_6),
        ),
        doc="elodi_mpt on the 10 largest logits of each image's source, divided by the number of all its classes",
        family=_ELODI["family"],
        papers=("elodi", "mpt"),
    ),
    "ldi": Objective(
        cross_entropy=0.5,
        terms=(Term("old", "ldi", weight=0.5, slack=0.5, unknown_classes="drop", **_EVERYWHERE),),
        doc="0.5 CE + 0.5 LDI(old) on images of old classes, p = 2, slack 0.5 (numbers of ELODI's code)",
        family=_COMPATIBLE,
        papers=("elodi",),
    ),
    "kd": Objective(
        cross_entropy=0.5,
        terms=(_OLD_KD,),
        doc="0.5 CE + 0.5 T^2 KL(old), T = 2",
        family=_COMPATIBLE,
        papers=("hinton",),
    ),
    "better_teacher": Objective(
        cross_entropy=0.5,
        terms=(
            _OLD_KD.replace(gate="better_teacher", **_GATE_OPEN),
            Term("old", "ce", "better_teacher", weight=0.5, **_GATE_CLOSED),
        ),
        doc="kd where the old model's CE is lower than the student's, else CE",
        family=_COMPATIBLE,
        papers=("xie",),
    ),
    "churn_distillation": Objective(
        cross_entropy=0.5,
        terms=(
            Term("old", "soft_ce", "teacher_knows", weight=0.5, **_GATE_OPEN),
            Term("old", "ce", "teacher_knows", weight=0.5, **_GATE_CLOSED),
        ),
        doc="CE with the target 0.5 p(old) + 0.5 label, for images of new classes the label",
        family=_COMPATIBLE,
        papers=("churn",),
    ),
    "anchor": Objective(
        cross_entropy=0.0,
        terms=(
            Term("old", "soft_ce", weight=0.5, **_GATE_OPEN),
            Term("old", "ce", weight=0.5, **_GATE_OPEN),
            Term("old", "ce", **_GATE_CLOSED, label_smoothing=0.1),
        ),
        doc="CE with the target 0.5 p(old) + 0.5 label where the old model is right, else the label smoothed by 0.1",
        family=_COMPATIBLE,
        papers=("anchor",),
    ),
    "strict_imitation": Objective(
        terms=(Term("old", "soft_ce", weight=0.5, **_GATE_OPEN),),
        doc="CE + 0.5 CE with the target p(old) where the old model is right",
        family=_COMPATIBLE,
        papers=("bansal", "Microsoft's BackwardCompatibilityML"),
    ),
    "muscle": Objective(
        cross_entropy=0.5,
        terms=(
            Term("old", "kl", "student_wrong", weight=0.5, temperature=2.0, **_GATE_OPEN),
            Term("new", "kl", "student_right", weight=0.5, temperature=2.0, **_GATE_OPEN),
        ),
        doc="0.5 CE + 0.5 KL(old) where the student is wrong, 0.5 KL(new) where it is right, T = 2",
        family=_COMPATIBLE,
        papers=("muscle",),
    ),
    "bct": Objective(
        terms=(Term("old_head", "influence", **_EVERYWHERE),),
        doc="CE + CE of the frozen old head on the student's features, on images of old classes",
        family=_COMPATIBLE,
        papers=("bct",),
    ),
    "label_smoothing": Objective(
        label_smoothing=0.1, doc="CE with labels smoothed by 0.1", family=_BASELINE, papers=("smoothing",)
    ),
    "ema": Objective(
        average=0.999,
        doc="CE, releasing the moving average of the weights, decay 0.999",
        family=_BASELINE,
        papers=("averaging",),
    ),
    "balanced_softmax": Objective(
        balance=1.0, doc="CE of z + log n, n the number of training images of each class", **_BALANCED
    ),
    "balanced_softmax_kd": Objective(
        cross_entropy=0.5,
        balance=1.0,
        terms=(_OLD_KD,),
        doc="0.5 CE of z + log n + 0.5 T^2 KL(old), T = 2",
        **_BALANCED,
    ),
    "balanced_softmax_factor": Objective(
        balance=1.0,
        old_count_factor=0.5,
        doc="balanced_softmax with n of the old classes times 0.5, a number to tune on validation images",
        **_BALANCED,
    ),
    "balanced_meta_softmax": Objective(
        balance=1.0,
        sampler_rate=0.01,
        doc="balanced_softmax on batches whose class rates are learned to lower the updated head's CE on a "
        "class-balanced batch",
        **_BALANCED,
    ),
}
"""The trained methods by name, with the published numbers.

Some papers tune a number instead of publishing one. The value here is then a starting point for tuning: the weight 0.5
of `churn_distillation`, `anchor`, `strict_imitation` and `muscle`, the smoothing of `anchor`, and the factor of
`balanced_softmax_factor`.
"""


_UNUSED_WITHOUT = {
    **dict.fromkeys(("bias_start", "bias_end", "bias_power"), "bias"),
    "old_count_factor": "balance",
}


def check_number(name: str, values: Sequence[float] = ()) -> None:
    """Check that a number of an objective has this name and may have these values.

    A name is a leaf of `Objective`, such as ``bias``, or ``SOURCE.LEAF`` for the terms with that source, such as
    ``old.weight``.

    Raises:
      ValueError: unknown name, or a value out of range.
    """
    source, dot, leaf = name.rpartition(".")
    valid = _leaves(Term if dot else Objective)
    if leaf not in valid or (dot and source not in SOURCES):
        raise ValueError(
            f"no number of an objective is called {name!r}; valid: {', '.join(valid)}"
            + (f" of the sources {', '.join(SOURCES)}" if dot else ", or SOURCE.NUMBER such as old.weight")
        )
    if any(value < 0 for value in values):
        raise ValueError(f"{list(values)}; expected numbers of 0 or more")
    if leaf in ("label_smoothing", "average") and any(value >= 1 for value in values):
        raise ValueError(f"{list(values)}; expected numbers from 0 to below 1")
    if leaf in ("temperature", "sampler_rate", "old_count_factor") and any(value == 0 for value in values):
        raise ValueError(f"{list(values)}; expected numbers above 0")


def _leaves(cls: type) -> list[str]:
    fields = [field for field in dataclasses.fields(cls) if field.metadata.get("pytree_node", True)]
    return [field.name for field in fields if field.name != "terms"]


def with_numbers(objective: Objective, numbers: Mapping[str, float]) -> Objective:
    """Return the objective with other numbers, named as in `check_number`; numbers that it does not use are ignored.

    An objective uses its numbers that are not 0, ``bias_*`` if it has a bias, ``old_count_factor`` if it has a balance,
    and the numbers of a source if it has a term with that source.

    Examples:
      >>> changed = with_numbers(METHODS["mpt_lm"], {"bias": 2.0, "old.weight": 0.1, "balance": 1.0})
      >>> changed.bias, [term.weight for term in changed.terms], changed.balance
      (2.0, [0.1, 0.4], 0.0)
    """

    def is_used(leaf: str) -> bool:
        return bool(getattr(objective, _UNUSED_WITHOUT.get(leaf, leaf)))

    own = {leaf: value for leaf, value in numbers.items() if "." not in leaf and is_used(leaf)}
    terms = []
    for term in objective.terms:
        named = {leaf: f"{term.source}.{leaf}" for leaf in _leaves(Term)}
        terms.append(term.replace(**{leaf: numbers[name] for leaf, name in named.items() if name in numbers}))
    return objective.replace(**own, terms=tuple(terms))


def uses(objective: Objective, name: str) -> bool:
    """Return whether a number of this name changes the objective, as in `with_numbers`."""
    return any(with_numbers(objective, {name: value}) != objective for value in (0.25, 0.5))


def is_trained(method: str) -> bool:
    """Return whether the name is a row of `METHODS`, with or without numbers (see `named`)."""
    return method.partition("@")[0] in METHODS


def own_numbers(method: str) -> dict[str, float]:
    """Return the numbers that a method's name fixes, those after each ``@``.

    Examples:
      >>> own_numbers("mpt_kl@bias=2@old.weight=0.5"), own_numbers("mpt_kl")
      ({'bias': 2.0, 'old.weight': 0.5}, {})

    Raises:
      ValueError: one is not ``NAME=NUMBER``, unknown, out of range, given twice or not used by the method.
    """
    row, *pairs = method.split("@")
    numbers: dict[str, float] = {}
    for pair in pairs:
        name, _, text = pair.partition("=")
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise ValueError(f"{method!r}: expected ROW@NAME=NUMBER, such as mpt_kl@bias=2")
        check_number(name, [value])
        if name in numbers:
            raise ValueError(f"{method!r} gives {name} twice")
        if not uses(METHODS[row], name):
            raise ValueError(f"{method!r}: {row} does not use {name}")
        numbers[name] = value
    return numbers


def named(method: str) -> Objective:
    """Return the row of `METHODS` of this name, with the numbers that the name fixes.

    Examples:
      >>> named("mpt_kl@bias=2") == METHODS["mpt_kl"].replace(bias=2.0, doc=named("mpt_kl@bias=2").doc)
      True

    Raises:
      KeyError: there is no such row.
      ValueError: as `own_numbers`.
    """
    numbers, objective = own_numbers(method), METHODS[method.partition("@")[0]]
    fixed = ", ".join(f"{name} = {value:g}" for name, value in numbers.items())
    return with_numbers(objective, numbers).replace(doc=f"{objective.doc}, with {fixed}") if fixed else objective


def sources(objective: Objective) -> tuple[str, ...]:
    """Return the names of the teachers that the objective needs, each once, in the order of its terms.

    Examples:
      >>> sources(METHODS["mpt_kl"]), sources(METHODS["no_treatment"])
      (('old', 'new'), ())
    """
    return tuple(dict.fromkeys(term.source for term in objective.terms))


def per_example_loss(
    objective: Objective,
    logits: jax.typing.ArrayLike,
    labels: jax.typing.ArrayLike,
    teacher_logits: Mapping[str, jax.typing.ArrayLike],
    *,
    num_old_classes: int,
    common: CommonClasses | None = None,
    class_counts: jax.typing.ArrayLike | None = None,
    label_scale: jax.typing.ArrayLike | None = None,
    epoch: jax.typing.ArrayLike = 0,
    progress: jax.typing.ArrayLike = 0.0,
) -> jax.Array:
    """Return the objective on a batch, one value per example; the formula is at the top of the module.

    Args:
      objective: its leaves may be traced, or mapped by `jax.vmap`.
      logits: the student's, floating point, ``[..., K]``.
      labels: integers, ``[...]``.
      teacher_logits: ``[..., K_s]`` with K_s <= K, by name of the source. Other names are ignored. No gradient flows
        into them, except by the distance "influence".
      num_old_classes: classes from this position on are new; K if there are none, as in a first release. A part of a
        split class is not new.
      common: the classes that the student has in common with the old model, for the sources `OF_OLD_MODEL`, whose
        number of classes is then that of `common.right`. None: the old model knows the student's first classes.
      class_counts: number of training images of each class, ``[K]``, for objectives with a `balance`.
      label_scale: scale of b for images of each class, above 0, ``[K]``, for objectives with a `bias_power`.
      epoch: number of completed epochs, for terms with a `start_epoch` (may be traced).
      progress: completed share of the training, 0 to 1, for a `bias` on a schedule (may be traced).

    Returns:
      ``[...]``, float32, or float64 if the logits are float64. NaN if a traced objective has a `balance` without
      `class_counts`, or a `bias_power` without `label_scale`.

    Raises:
      TypeError: logits are not floating point, or labels not integers.
      ValueError: missing logits of a source, a `balance` without `class_counts`, a `bias_power` without `label_scale`,
        or shapes that do not fit.

    Examples:
      >>> import jax.numpy as jnp
      >>> logits, labels = jnp.array([[2.0, 0.0, 1.0]]), jnp.array([0])
      >>> teachers = {"old": jnp.array([[3.0, 0.0]])}
      >>> loss = per_example_loss(METHODS["pct_lm"], logits, labels, teachers, num_old_classes=2)
      >>> print(jnp.array_str(loss, precision=4))
      [1.0076]
    """
    needed = sources(objective)
    if missing := [name for name in needed if name not in teacher_logits]:
        raise ValueError(
            f"no teacher logits of {', '.join(missing)}; expected {', '.join(needed)}, "
            f"given {', '.join(teacher_logits) or 'none'}"
        )
    logits, labels = jnp.asarray(logits), jnp.asarray(labels)
    loss = losses.margin_calibrated_cross_entropy(
        logits,
        labels,
        num_old_classes=num_old_classes,
        bias=_bias(objective, progress, labels, label_scale),
        offset=_prior(objective, class_counts, num_old_classes, logits.shape[-1]),
        label_smoothing=objective.label_smoothing,
    )
    loss = jnp.asarray(objective.cross_entropy, loss.dtype) * loss
    for term in objective.terms:
        shared = common if term.source in OF_OLD_MODEL else None
        value = _term_loss(term, logits, jnp.asarray(teacher_logits[term.source]), labels, epoch, shared)
        loss = loss + value.astype(loss.dtype)
    return loss


def stack(objectives: Sequence[Objective]) -> Objective:
    """Stack objectives into one whose leaves have a leading axis, for `jax.vmap` of `per_example_loss`.

    Its terms are the union of the objectives' terms; two terms of the same structure in one objective stay two. A term
    that an objective lacks has weight 0 in its row.

    Raises:
      ValueError: no objectives.

    Examples:
      >>> rows = stack([METHODS["no_treatment"], METHODS["pct_lm"], METHODS["mpt_lm"]])
      >>> print(rows.bias, [term.source for term in rows.terms], rows.terms[1].weight)
      [0. 0. 4.] ['old', 'new'] [0.  0.  0.4]
    """
    if not objectives:
        raise ValueError("no objectives to stack; expected at least one")
    slots = [_slots(objective) for objective in objectives]
    union = {slot: term for row in slots for slot, term in row.items()}
    absent = {slot: term.replace(weight=0.0, alpha=0.0, beta=0.0, temperature=1.0) for slot, term in union.items()}
    rows = [
        objective.replace(terms=tuple(row.get(slot, absent[slot]) for slot in union), doc="", papers=(), family="")
        for objective, row in zip(objectives, slots, strict=True)
    ]
    dtype = jax.dtypes.canonicalize_dtype(float)
    return jax.tree.map(lambda *numbers: np.array(numbers, dtype), *rows)  # on the host: nothing to compile


def describe(objective: Objective) -> dict[str, Any]:
    """Return an objective, not a stack, as nested dicts and lists of JSON types, for reports and cards.

    Numbers that only some methods use are omitted if they have their default.

    Examples:
      >>> describe(Objective(bias=4.0))
      {'cross_entropy': 1.0, 'bias': 4.0, 'terms': []}
    """

    def plain(field, value):
        # through text, so that a float32 0.4 becomes 0.4, not 0.4000000059604645
        return float(str(jax.device_get(value))) if field.metadata.get("pytree_node", True) else value

    def fields(node, *without):
        chosen = [field for field in dataclasses.fields(node) if field.name not in without]
        pairs = [(field, plain(field, getattr(node, field.name))) for field in chosen]
        return {f.name: value for f, value in pairs if f.name not in _DESCRIBED_IF_SET or value != f.default}

    return {
        **fields(objective, "terms", "doc", "papers", "family"),
        "terms": [fields(term) for term in objective.terms],
    }


_DESCRIBED_IF_SET = {
    *("bias_start", "bias_end", "bias_power", "balance", "old_count_factor", "average", "sampler_rate"),
    *("top_k", "slack", "power", "label_smoothing", "start_epoch"),
}


def _bias(
    objective: Objective, progress: jax.typing.ArrayLike, labels: jax.Array, label_scale: jax.typing.ArrayLike | None
) -> jax.Array:
    """Return the margin b at this point of the training; one per example if there is a scale."""
    bias, start, end, progress, power = (
        jnp.asarray(number, float)
        for number in (objective.bias, objective.bias_start, objective.bias_end, progress, objective.bias_power)
    )
    bias = bias * (start + (end - start) * progress)
    if label_scale is None:
        return bias * _unless_needed("bias_power", objective.bias_power, power, 1.0, "label_scale")
    return bias * jnp.asarray(label_scale, float)[labels] ** power


def _unless_needed(name: str, given: Any, number: jax.Array, neutral: float, missing: str) -> jax.Array:
    """Return `neutral` if the number is 0, else raise; for a traced number, which is known too late to raise, NaN."""
    if not isinstance(given, jax.core.Tracer) and np.any(np.asarray(given) != 0):
        raise ValueError(f"{name}={given} without {missing}; expected one number per class")
    return jnp.where(number == 0, neutral, jnp.nan)


def _prior(
    objective: Objective, class_counts: jax.typing.ArrayLike | None, num_old_classes: int, num_classes: int
) -> jax.Array:
    """Return the offset of the logits for the numbers of training images, ``[K]``."""
    balance = jnp.asarray(objective.balance, float)
    if class_counts is None:
        return jnp.full(num_classes, _unless_needed("balance", objective.balance, balance, 0.0, "class_counts"))
    counts = jnp.asarray(class_counts).astype(float)
    is_old = jnp.arange(counts.size) < num_old_classes
    factor = jnp.where(is_old, jnp.asarray(objective.old_count_factor, float), 1.0)
    return losses.log_prior(counts * factor, exponent=balance)


def _term_loss(
    term: Term,
    logits: jax.Array,
    teacher_logits: jax.Array,
    labels: jax.Array,
    epoch: jax.typing.ArrayLike,
    common: CommonClasses | None,
) -> jax.Array:
    # in a stack, a teacher's NaN must not reach rows that lack the term: 0 * NaN is NaN, in value and gradient
    started = jnp.asarray(epoch, float) >= jnp.asarray(term.start_epoch, float)
    present = (jnp.asarray(term.weight) != 0) & started
    logits, teacher_logits = (jnp.where(present, x, jnp.zeros_like(x)) for x in (logits, teacher_logits))
    views = _views(logits, teacher_logits, labels, common)
    _, common_logits, common_labels = views["common"]
    weighted = losses.focal_weighting(
        DISTANCES[term.distance](term, *views[_CLASSES_OF.get(term.distance, "common")]),
        jax.lax.stop_gradient(_opened(term.gate, views)),
        common_labels,
        num_teacher_classes=common_logits.shape[-1],
        alpha=term.alpha,
        beta=term.beta,
        unknown_classes=term.unknown_classes,
    )
    return jnp.where(present, jnp.asarray(term.weight, weighted.dtype), 0.0) * weighted


def _opened(gate: str, views: Mapping[str, tuple[jax.Array, jax.Array, jax.Array]]) -> jax.Array:
    """Return where a gate is open, ``[...]``: each of its parts on the classes that it needs."""
    parts = [GATES[part](*views[_CLASSES_OF.get(part, "common")]) for part in gate.split("&")]
    return functools.reduce(operator.mul, parts)


def _views(
    logits: jax.Array, teacher_logits: jax.Array, labels: jax.Array, common: CommonClasses | None
) -> dict[str, tuple[jax.Array, jax.Array, jax.Array]]:
    """Return student logits, teacher logits and labels, each for the "student"'s, "common" and "source"'s classes.

    On the source's classes, the label is the source's prediction where that stands for the label, and else no class.
    """
    given = (logits, teacher_logits, labels)
    if common is None:
        return dict.fromkeys(("student", "common", "source"), given)
    num_classes = logits.shape[-1]
    if teacher_logits.shape[-1] != len(common.right):
        raise ValueError(
            f"the old model's logits have shape {teacher_logits.shape}; expected {len(common.right)} classes, as of "
            "the common ones"
        )
    place = np.full(num_classes, -1)
    for g, members in enumerate(common.of_student):
        place[list(members)] = g
    new = np.flatnonzero(place < 0)  # behind the common ones
    place[new] = len(common.of_student) + np.arange(len(new))
    allowed = np.zeros((len(common.right), num_classes), bool)
    for k, stands_for in enumerate(common.right):
        allowed[k, list(stands_for)] = True
    known = (labels >= 0) & (labels < num_classes)
    label = jnp.where(known, labels, 0).astype(int)
    predicted = jnp.argmax(teacher_logits, axis=-1)
    right = known & jnp.asarray(allowed)[predicted, label]
    return {
        "student": given,
        "common": (
            losses.carry_over(logits, [*common.of_student, *((k,) for k in new.tolist())]),
            losses.carry_over(teacher_logits, common.of_source),
            jnp.where(known, jnp.asarray(place)[label], place.max() + 1),
        ),
        "source": (logits, teacher_logits, jnp.where(right, predicted, -1)),
    }


def _slots(objective: Objective) -> dict[tuple, Term]:
    """Return the terms by (structure, count of earlier terms of that structure), which rows of a stack share."""
    seen: Counter[jax.tree_util.PyTreeDef] = Counter()
    slots: dict[tuple, Term] = {}
    for term in objective.terms:
        structure = jax.tree.structure(term)
        slots[structure, seen[structure]] = term
        seen[structure] += 1
    return slots
