"""Values out of range and contradictory keys: one line that names the key."""

import re
import time

import pytest

from mpt_jax import config as configs
from mpt_jax.errors import InputError
from mpt_jax.objectives import METHODS

DIGITS = "digits"


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("update.tune.bias=0,1,0.0", ["update.tune.bias", "twice"]),
        ("update.tune.bias=()", ["update.tune.bias", "empty"]),
        ("update.tune.bias=-1", ["update.tune.bias", "numbers of 0 or more"]),
        ("update.tune.margin=1", ["update.tune.margin", "margin", "bias"]),
        ("update.tune.older.weight=1", ["update.tune.older"]),
        ("update.bias=large", ["update.bias", "auto", "published"]),
        ("update.bias=-1", ["update.bias", "0"]),
        ("update.bias=1", ["update.bias=1", "update.tune.bias"]),
        ("update.start=new", ["update.start", "random", "old"]),
        ("update.memory_by=herding", ["update.memory_by=herding", "update.memory=all"]),
        ("update.old_fraction=0", ["update.old_fraction", "above 0"]),
        ("update.schedule=[5,10,10]", ["update.schedule", "adds no classes", "old_fraction"]),
        ("update.schedule=[5]", ["update.schedule", "two or more"]),
        ("update.posthoc_of=pct_lm", ["update.posthoc_of", "independent"]),
        ("update.ensemble_size=1", ["update.ensemble_size", "2 or more"]),
        ("update.methods=bcwi", ["bcwi", "update.start=old", "update.start=random"]),
        ("update.tune_trials=-1", ["update.tune_trials", "0"]),
        ("old_model.stem=cifar", ["old_model.name", "stem"]),
        ("optimizer.learning_rate=" + "9" * 400, ["optimizer.learning_rate", "finite"]),
        ("optimizer.learning_rate={[]: 1}", ["optimizer.learning_rate"]),
        ("dataset.validation_per_class=-1", ["dataset.validation_per_class=-1", "0 or more"]),
        ("dataset.train_per_class=-1", ["dataset.train_per_class=-1", "0 (all) or more"]),
        ("dataset.imbalance=0.5", ["dataset.imbalance", "1 (no long tail) or more"]),
        ("update.memory=some", ["update.memory", "per_class"]),
        ("update.memory=total:-1", ["update.memory"]),
        ("update.methods=posthoc_bia", ["did you mean 'posthoc_bias'"]),
        ("updat.methods=mpt_kl", ["updat", "did you mean 'update'"]),
        ("update.method=mpt_kl", ["update.method", "did you mean 'methods'", "tune"]),
        ("update.methods=mpt_k", ["mpt_k", "did you mean 'mpt_kl'", "no_treatment"]),
        ("update.methods=()", ["update.methods", "empty"]),
        ("update.methods=mpt_kl,mpt_kl", ["twice"]),
        ("update.methods=mpt_kl@bias=2,mpt_kl@bias=2.0", ["twice"]),
        ("update.schedule=[10]", ["update.schedule", "two"]),
        ("update.schedule=[10, 5]", ["update.schedule", "growing"]),
        ("update.schedule=[0, 5]", ["update.schedule"]),
        ("update.schedule=[5.5, 10]", ["update.schedule", "int"]),
        ("update=3", ["update", "keys"]),
        ("seeds.more=3", ["seeds"]),
        ("seeds=()", ["seeds"]),
        ("seeds=1,1", ["twice"]),
        ("seeds=-1", ["seeds"]),
        ("model.name=resnet19", ["resnet19", "resnet18"]),
        ("model.dtype=float16", ["float16", "bfloat16"]),
        ("optimizer.epochs=0", ["optimizer.epochs", "1 or more"]),
        ("optimizer.epochs=1.5", ["optimizer.epochs", "int"]),
        ("optimizer.epochs=True", ["optimizer.epochs", "int"]),
        ("optimizer.learning_rate=nan", ["optimizer.learning_rate", "finite"]),
        ("optimizer.learning_rate=1e999", ["optimizer.learning_rate", "finite"]),
        ("optimizer.learning_rate=-0.1", ["optimizer.learning_rate"]),
        ("optimizer.momentum=1", ["optimizer.momentum"]),
        ("optimizer.schedule=step", ["optimizer.schedule", "cosine"]),
        ("dataset.class_order=[None]", ["dataset.class_order", "class names and indices"]),
        ("dataset.class_order={}", ["dataset.class_order"]),
        ("dataset.flip=1", ["dataset.flip", "True or False"]),
        ("dataset.std=0.5", ["dataset.mean", "dataset.std"]),
        ("dataset.validation_per_class=0", ["update.tune", "validation_per_class"]),
        ("update.tolerance=2", ["update.tolerance"]),
        ("training.members_at_once=-1", ["training.members_at_once"]),
        ("mesh.members=0", ["mesh.members", "1 or more"]),
        ("mesh.fsdp=-1", ["mesh.fsdp", "0 (all) or more"]),
        ("mesh.fsdp=true", ["mesh.fsdp", "int"]),
        ("optimizer.accumulate=7", ["optimizer.batch_size", "optimizer.accumulate=7"]),
    ],
)
def test_an_invalid_value_is_one_line_that_names_the_key(override, words):
    with pytest.raises(InputError) as caught:
        configs.load(DIGITS, [override])
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["dataset.source=disk"], "dataset.source='disk'"),
        (["dataset.augmentation=random"], "dataset.augmentation='random'"),
        (["dataset.workers=-1"], "dataset.workers=-1"),
        (["dataset.augmentation=imagenet"], "dataset.image_size"),
        (["dataset.augmentation=imagenet", "dataset.image_size=8", "dataset.source=memory"], "dataset.source=memory"),
        (["dataset.augmentation=imagenet", "dataset.image_size=8", "dataset.flip=true"], "dataset.flip=True"),
        (["dataset.resize=256"], "dataset.resize=256, but dataset.image_size is empty"),
        (["dataset.interpolation=bilinear"], "dataset.interpolation=bilinear, but dataset.image_size is empty"),
        (["dataset.interpolation=nearest", "dataset.image_size=8"], "dataset.interpolation='nearest'"),
        (["dataset.resize=7", "dataset.image_size=8,9"], "dataset.resize=7 is less than dataset.image_size=[8, 9]"),
    ],
)
def test_contradictory_keys_of_a_stream(overrides, expected):
    with pytest.raises(InputError, match=re.escape(expected)):
        configs.load(DIGITS, overrides)


PREDICTIONS, WEIGHTS = "old.predictions=old.npz", "old.weights=old.pth"
NORMALIZED = (WEIGHTS, "model.name=resnet18", "old.mean=0,0,0", "old.std=1,1,1")


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ([PREDICTIONS, WEIGHTS], ["old.predictions=old.npz and old.weights=old.pth", "expected only one of them"]),
        ([PREDICTIONS, "update.old=DIR"], ["old.predictions=old.npz and update.old=DIR"]),
        ([*NORMALIZED, "update.old=DIR"], ["old.weights=old.pth and update.old=DIR"]),
        ([PREDICTIONS, "update.methods=bct"], ["update.methods=bct", "old.predictions=old.npz", "features"]),
        ([PREDICTIONS, "update.methods=bcwi"], ["update.methods=bcwi", "old.predictions=old.npz", "weights"]),
        ([PREDICTIONS, "update.methods=soup"], ["update.methods=soup", "old.predictions=old.npz", "weights"]),
        ([PREDICTIONS, "update.start=old"], ["update.start=old", "old.predictions=old.npz", "update.start=random"]),
        (
            [PREDICTIONS, "update.memory=per_class:5", "update.memory_by=herding"],
            ["update.memory_by=herding", "old.predictions=old.npz", "features"],
        ),
        ([PREDICTIONS, "old_model.name=mlp"], ["old_model.name=mlp", "old.predictions=old.npz"]),
        ([PREDICTIONS, "old.mean=0.5", "old.std=1"], ["old.mean=[0.5]", "old.weights"]),
        ([PREDICTIONS, "old.classes=1,2,3"], ["old.classes names 3 classes", "update.schedule=[5, 10]"]),
        ([PREDICTIONS, "old.classes=a,b,c,d,a"], ["old.classes", "twice"]),
        (["old.classes=a,b,c,d,e"], ["old.classes=a,b,c,d,e", "old.predictions or old.weights"]),
        ([WEIGHTS], ["old.weights=old.pth", "model.name=convnet", "resnet18"]),
        ([WEIGHTS, "model.name=resnet18"], ["old.weights=old.pth", "old.mean and old.std"]),
        ([*NORMALIZED, "old.std=1,1"], ["old.mean has 3 values and old.std 2"]),
        ([*NORMALIZED, "old.std=1,1,0"], ["old.std", "above 0"]),
        (
            [*NORMALIZED, "update.start=old", "dataset.mean=1,1,1", "dataset.std=1,1,1"],
            ["update.start=old", "old.weights=old.pth", "dataset.mean", "old.mean"],
        ),
    ],
)
def test_an_external_old_model_that_contradicts_another_key_names_both(overrides, words):
    with pytest.raises(InputError) as error:
        configs.load(DIGITS, overrides)
    assert all(word in str(error.value) for word in words), str(error.value)
    assert "\n" not in str(error.value)


def test_an_external_old_model_may_already_know_all_classes():
    for overrides in ([PREDICTIONS], NORMALIZED, [*NORMALIZED, "update.start=old"]):
        schedule = "update.schedule=[5,10]" if "update.start=old" in overrides else "update.schedule=[10,10]"
        config = configs.load(DIGITS, [*overrides, schedule])
        assert config.old.predictions == "old.npz" or config.old.weights == "old.pth"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "seeds=" + ",".join(map(str, range(20_000))),
            "seeds lists 20,000, each a complete update; expected at most",
        ),
        ("update.ensemble_size=100000", "ensemble_size=100000; expected 2 or more, at most 1000"),
        (
            "update.tune=" + repr({name: tuple(range(2000)) for name in ("bias", "old.weight")}),
            "4,000,000 combinations",
        ),
        (
            "update.tune=" + repr({name: tuple(range(200)) for name in ("bias", "old.weight")}),
            "train 40,000 models of a",
        ),
    ],
    ids=["seeds", "ensemble", "combinations", "trials"],
)
def test_more_models_than_anyone_trains_are_refused_at_once(override, message):
    started = time.process_time()
    with pytest.raises(InputError, match=message) as error:
        configs.load(DIGITS, [override])
    assert time.process_time() - started < 5 and len(str(error.value)) < 300


def test_the_number_of_a_derived_method_is_not_in_its_name():
    with pytest.raises(InputError, match=r"update.methods=posthoc_bias@bias=1: posthoc_bias is a derived method"):
        configs.load(DIGITS, ["update.methods=posthoc_bias@bias=1"])


def test_the_name_of_an_added_method_is_safe_in_file_names(monkeypatch):
    for name, is_valid in (("my-own.2", True), ("my/own", False), ("my own", False)):
        monkeypatch.setitem(METHODS, name, METHODS["pct_kl"])
        if is_valid:
            assert configs.load(DIGITS, [f"update.methods={name}"]).update.methods == (name,)
            continue
        with pytest.raises(InputError, match=f"update.methods: '{name}' is part of file names; expected letters"):
            configs.load(DIGITS, [f"update.methods={name}"])
