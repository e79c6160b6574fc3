"""From files and overrides to a checked config; every mistake is one line that names the key."""

import dataclasses
import pathlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpt_jax import config as configs
from mpt_jax.errors import InputError

CONFIGS = pathlib.Path(__file__).parent.parent / "configs"
DIGITS = str(CONFIGS / "digits.py")


def test_digits_config_has_what_the_main_job_promises():
    config = configs.load(DIGITS)
    assert config.update.schedule == (5, 10)
    assert len(config.seeds) >= 8
    assert set(config.update.methods) >= {"no_treatment", "pct_kl", "mpt_kl"}
    assert config.update.tune and config.dataset.validation_per_class > 0


def test_cifar100_config_is_the_published_protocol():
    config = configs.load(str(CONFIGS / "cifar100.py"))
    assert config.dataset == configs.DatasetConfig(
        name="cifar100",
        class_order="natural",
        validation_per_class=0,
        train_per_class=0,
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2023, 0.1994, 0.2010),
        crop_padding=4,
        flip=True,
    )
    assert config.optimizer == configs.OptimizerConfig(0.1, 0.9, 5e-4, 100, 128, "cosine", "epoch")
    assert config.model == configs.ModelConfig("resnet18", "imagenet", "float32")
    assert config.update.schedule == (50, 100)
    assert config.update.tune == {}


def test_imagenet_config_is_the_published_setting_and_resnet50_differs_in_the_network_alone():
    config, larger, smoke = (configs.load(str(CONFIGS / "imagenet.py") + v) for v in ("", ":resnet50", ":smoke"))
    assert config.dataset.name == "imagenet2012" and config.dataset.test_split == "validation"
    assert (config.dataset.augmentation, config.dataset.image_size) == ("imagenet", (224, 224))
    assert config.optimizer == configs.OptimizerConfig(0.1, 0.9, 1e-4, 90, 256, "thirds")
    assert config.update.schedule == (500, 1000)
    assert larger == dataclasses.replace(config, model=configs.ModelConfig("resnet50", "imagenet"))
    assert (smoke.dataset.augmentation, smoke.dataset.source) == ("imagenet", "stream") and smoke.model == config.model


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["dataset.source=disk"], "dataset.source='disk'"),
        (["dataset.augmentation=random"], "dataset.augmentation='random'"),
        (["dataset.workers=-1"], "dataset.workers=-1"),
        (["dataset.augmentation=imagenet"], "dataset.image_size"),
        (["dataset.augmentation=imagenet", "dataset.image_size=8", "dataset.source=memory"], "dataset.source=memory"),
        (["dataset.augmentation=imagenet", "dataset.image_size=8", "dataset.flip=true"], "dataset.flip=True"),
    ],
)
def test_streams_that_contradict_themselves(overrides, expected):
    with pytest.raises(InputError, match=re.escape(expected)):
        configs.load(DIGITS, overrides)


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.py")), ids=lambda path: path.stem)
def test_every_config_and_each_variant_it_names_is_valid_and_says_how_to_run_it(path):
    text = path.read_text()
    assert f"python -m mpt_jax.train --config configs/{path.name}" in text.split('"""')[1]
    variants = set(re.findall(rf"configs/{path.name}:(\w+)", text))
    for spec in (str(path), *(f"{path}:{variant}" for variant in variants)):
        configs.load(spec)
    if "variant" in text:
        assert variants
        with pytest.raises(InputError, match="unknown variant 'another'"):
            configs.load(f"{path}:another")


def test_smoke_variant_differs_only_in_size():
    full, smoke = (configs.load(str(CONFIGS / "cifar100.py") + v) for v in ("", ":smoke"))
    assert smoke.model == full.model
    assert smoke.update.schedule[-1] < full.update.schedule[-1]
    assert smoke.dataset.mean == full.dataset.mean


@pytest.mark.parametrize(
    ("override", "path", "expected"),
    [
        ("seeds=3", ("seeds",), (3,)),
        ("seeds=0,2", ("seeds",), (0, 2)),
        ("update.methods=mpt_kl,pct_kl", ("update", "methods"), ("mpt_kl", "pct_kl")),
        ("update.methods=mpt_kl", ("update", "methods"), ("mpt_kl",)),
        ("update.methods=('mpt_kl', 'pct_kl')", ("update", "methods"), ("mpt_kl", "pct_kl")),
        ("update.methods=[mpt_kl, pct_kl]", ("update", "methods"), ("mpt_kl", "pct_kl")),
        ("update.schedule=[3, 7]", ("update", "schedule"), (3, 7)),
        ("update.tune={}", ("update", "tune"), {}),
        ("update.tune.bias=0,1.5", ("update", "tune"), {"bias": (0.0, 1.5)}),
        ("update.tune={'old.weight': [1, 2]}", ("update", "tune"), {"old.weight": (1.0, 2.0)}),
        ("update.tune.old.weight=1", ("update", "tune"), {"bias": (0.0, 1.0, 4.0, 8.0, 12.0), "old.weight": (1.0,)}),
        ("old_model.name=vit_tiny", ("old_model", "name"), "vit_tiny"),
        ("dataset.class_order=seed:1993", ("dataset", "class_order"), "seed:1993"),
        ("dataset.class_order=[1, 0, 2]", ("dataset", "class_order"), (1, 0, 2)),
        ("dataset.class_order=1,0,...", ("dataset", "class_order"), (1, 0, "...")),
        ("dataset.class_order=owl,cat,...", ("dataset", "class_order"), "owl,cat,..."),
        ("dataset.image_size=32", ("dataset", "image_size"), (32,)),
        ("dataset.image_size=32,48", ("dataset", "image_size"), (32, 48)),
        ("dataset.flip=true", ("dataset", "flip"), True),
        ("dataset.data_dir=a/b=c", ("dataset", "data_dir"), "a/b=c"),
        ("dataset.data_dir=2024", ("dataset", "data_dir"), "2024"),
        ("optimizer.learning_rate=1", ("optimizer", "learning_rate"), 1.0),
        ("optimizer.learning_rate=1e-3", ("optimizer", "learning_rate"), 1e-3),
    ],
)
def test_overrides(override, path, expected):
    value = configs.load(DIGITS, [override])
    for name in path:
        value = getattr(value, name)
    assert value == expected and type(value) is type(expected)


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
        ("dataset.train_per_class=-1", ["dataset.train_per_class=-1", "0 or more"]),
        ("dataset.imbalance=0.5", ["dataset.imbalance", "1 (as it is) or more"]),
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
        ("dataset.flip=1", ["dataset.flip", "bool"]),
        ("dataset.std=0.5", ["dataset.mean", "dataset.std"]),
        ("dataset.validation_per_class=0", ["update.tune", "validation_per_class"]),
        ("update.tolerance=2", ["update.tolerance"]),
        ("training.members_at_once=-1", ["training.members_at_once"]),
        ("mesh.members=0", ["mesh.members", "1 or more"]),
        ("mesh.fsdp=-1", ["mesh.fsdp", "0 or more"]),
        ("mesh.fsdp=true", ["mesh.fsdp", "int"]),
        ("optimizer.accumulate=7", ["optimizer.batch_size", "optimizer.accumulate=7"]),
    ],
)
def test_bad_overrides_are_one_clear_line(override, words):
    with pytest.raises(InputError) as caught:
        configs.load(DIGITS, [override])
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


def test_bad_files(tmp_path):
    with pytest.raises(InputError, match=r"digits\.py"):  # names the files that are there
        configs.load(str(CONFIGS / "digit.py"))
    for text, word in [
        ("def get_config(:", "SyntaxError"),
        ("x = 1", "get_config"),
        ("def get_config():\n    return 1 / 0", "ZeroDivisionError"),
        (
            "from mpt_jax.config import default_config\ndef get_config():\n    c = default_config()\n    c.sedes = 1",
            "sedes",
        ),
        ("def get_config():\n    return {'seed': 3}", "did you mean 'seeds'"),
        ("def get_config():\n    return None", "NoneType"),
        ("def get_config():\n    raise SystemExit(3)", "SystemExit"),
    ]:
        path = tmp_path / "broken.py"
        path.write_text(text)
        with pytest.raises(InputError, match=word):
            configs.load(str(path))
    with pytest.raises(InputError, match="no variants"):
        configs.load(str(CONFIGS / "memory.py") + ":smoke")
    with pytest.raises(InputError, match="smoke"):
        configs.load(str(CONFIGS / "cifar100.py") + ":smok")


def test_a_plain_partial_dict_is_a_config(tmp_path):
    path = tmp_path / "a:b" / "mine.py"
    path.parent.mkdir()
    path.write_text("def get_config():\n    return {'seeds': [4], 'update': {'schedule': [2, 3]}}")
    config = configs.load(str(path))
    assert config == configs.Config(seeds=(4,), update=dataclasses.replace(configs.UpdateConfig(), schedule=(2, 3)))


@given(st.text(max_size=20), st.text(max_size=20))
def test_any_override_gives_a_config_or_an_input_error(key, text):
    try:
        configs.load(DIGITS, [f"{key}={text}"])
    except InputError as error:
        assert str(error)


@given(st.sampled_from([f.name for f in dataclasses.fields(configs.OptimizerConfig)]), st.text(max_size=12))
def test_any_value_of_a_key_gives_a_config_or_an_input_error(key, text):
    try:
        configs.load(DIGITS, [f"optimizer.{key}={text}"])
    except InputError as error:
        assert str(error)


ANSWERS, WEIGHTS = "old.predictions=old.npz", "old.weights=old.pth"
NORMALISED = (WEIGHTS, "model.name=resnet18", "old.mean=0,0,0", "old.std=1,1,1")


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ([ANSWERS, WEIGHTS], ["old.predictions=old.npz and old.weights=old.pth", "leave all but one"]),
        ([ANSWERS, "update.old=DIR"], ["old.predictions=old.npz and update.old=DIR"]),
        ([*NORMALISED, "update.old=DIR"], ["old.weights=old.pth and update.old=DIR"]),
        ([ANSWERS, "update.methods=bct"], ["update.methods=bct", "old.predictions=old.npz", "features"]),
        ([ANSWERS, "update.methods=bcwi"], ["update.methods=bcwi", "old.predictions=old.npz", "weights"]),
        ([ANSWERS, "update.methods=soup"], ["update.methods=soup", "old.predictions=old.npz", "weights"]),
        ([ANSWERS, "update.start=old"], ["update.start=old", "old.predictions=old.npz", "update.start=random"]),
        (
            [ANSWERS, "update.memory=per_class:5", "update.memory_by=herding"],
            ["update.memory_by=herding", "old.predictions=old.npz", "features"],
        ),
        ([ANSWERS, "old_model.name=mlp"], ["old_model.name=mlp", "old.predictions=old.npz"]),
        ([ANSWERS, "old.mean=0.5", "old.std=1"], ["old.mean=[0.5]", "old.weights"]),
        ([ANSWERS, "old.classes=1,2,3"], ["old.classes names 3 classes", "update.schedule=[5, 10]"]),
        ([ANSWERS, "old.classes=a,b,c,d,a"], ["old.classes", "twice"]),
        (["old.classes=a,b,c,d,e"], ["old.classes=a,b,c,d,e", "old.predictions or old.weights"]),
        ([WEIGHTS], ["old.weights=old.pth", "model.name=convnet", "resnet18"]),
        ([WEIGHTS, "model.name=resnet18"], ["old.weights=old.pth", "old.mean and old.std"]),
        ([*NORMALISED, "old.std=1,1"], ["old.mean has 3 values and old.std 2"]),
        ([*NORMALISED, "old.std=1,1,0"], ["old.std", "above 0"]),
        (
            [*NORMALISED, "update.start=old", "dataset.mean=1,1,1", "dataset.std=1,1,1"],
            ["update.start=old", "old.weights=old.pth", "dataset.mean", "old.mean"],
        ),
    ],
)
def test_an_old_model_of_ones_own_that_does_not_fit_names_both_keys(overrides, words):
    with pytest.raises(InputError) as error:
        configs.load(DIGITS, overrides)
    assert all(word in str(error.value) for word in words), str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("cat, dog,owl,a,b", ("cat", "dog", "owl", "a", "b")),
        ("0,3,1,2,9", ("0", "3", "1", "2", "9")),
        ("['a b', 'c', 'd', 'e', 'f']", ("a b", "c", "d", "e", "f")),
        ("", ()),
    ],
)
def test_the_classes_of_the_old_model_are_names(given, expected):
    assert configs.old_classes(configs.load(DIGITS, [ANSWERS, f"old.classes={given}"])) == expected


def test_an_old_model_of_ones_own_may_know_all_classes_already():
    for overrides in ([ANSWERS], NORMALISED):
        configs.load(DIGITS, [*overrides, "update.schedule=[10,10]"])
    configs.load(DIGITS, [*NORMALISED, "update.start=old"])


def test_the_name_of_a_method_of_ones_own_can_name_files(monkeypatch):
    for name, is_fine in (("my-own.2", True), ("my/own", False), ("my own", False)):
        monkeypatch.setitem(configs.objectives.METHODS, name, configs.objectives.METHODS["pct_kl"])
        if is_fine:
            configs.load(DIGITS, [f"update.methods={name}"])
            continue
        with pytest.raises(InputError, match=f"update.methods: '{name}' names files; expected letters, digits"):
            configs.load(DIGITS, [f"update.methods={name}"])
