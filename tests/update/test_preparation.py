"""Data, networks and teachers that do not fit each other are errors before anything is trained or written."""

import io
import os
import shutil

import jax
import numpy as np
import pytest
import releases
from PIL import Image
from rich.console import Console

from mpt_jax import config as configs
from mpt_jax import data
from mpt_jax.cli.progress import Progress
from mpt_jax.errors import InputError
from mpt_jax.files import released_model
from mpt_jax.update import preparation, workdir


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["dataset.name={features}"],
            r"model.name=convnet does not fit .*features of shape \(64,\); expected one of linear",
        ),
        (
            ["model.name=mlp"],
            r"^model.name=mlp does not fit digits.*images of shape \(8, 8, 1\); expected any model except",
        ),
        (["old_model.name=linear"], "^old_model.name=linear does not fit digits"),
        (["model.name=vit_s16"], "8x8 pixels; expected sides that are multiples of the patch, 16"),
        (["dataset.name={features}", "model.name=linear", "dataset.flip=true"], "flip=True is for images, but"),
        (["old_model.name=vit_tiny", "update.methods=bct"], r"old head \(bct\), which takes \d+ features, .* has 512"),
        (
            ["update.memory=none", "update.schedule=[5,7]", "optimizer.batch_size=72"],
            r"batch_size=72 .* update.memory=none leaves to release 1; expected \d+ or less",
        ),
        (
            ["update.memory=none", "update.methods=balanced_softmax", "optimizer.batch_size=8"],
            "balanced_softmax needs training images of every class, but update.memory=none leaves none of class '0'",
        ),
        (
            ["update.memory=total:4", "update.methods=balanced_softmax_kd", "optimizer.batch_size=8"],
            "update.memory=total:4 leaves none of class '4'; expected update.memory=per_class:K, a larger total:K",
        ),
        (["update.schedule=[10,10]", "update.old_fraction=0.1", "optimizer.batch_size=64"], "batch_size=64 is larger"),
    ],
)
def test_what_does_not_fit_is_an_error(overrides, message, prepared, features_file, tmp_path):
    with pytest.raises(InputError, match=message):
        prepared(*(override.format(features=features_file) for override in overrides))
    assert not (tmp_path / "run").exists()


def test_a_run_resumes_with_its_settings_and_reports_other_versions(prepared, features_file, monkeypatch):
    log = io.StringIO()
    options = (f"dataset.name={features_file}", "model.name=linear", "update.methods=no_treatment")

    def resume():
        return prepared(*options, progress=Progress(Console(file=log, width=500), None))

    run = resume()
    images = {"train": 1, "validation": 0, "test": 1}
    workdir.claim(
        run.workdir, {"config": configs.to_dict(run.config), "images": images, "command": "", **run.provenance}
    )
    resume()
    assert "other versions" not in log.getvalue()
    now = {**run.provenance, "versions": {**run.provenance["versions"], "jax": "0.1"}}
    with monkeypatch.context() as patch:
        patch.setattr(preparation, "provenance", lambda device: now)
        resume()
    expected = f"{run.workdir} was made with other versions: jax {jax.__version__} (now 0.1); numbers that are computed"
    assert expected in log.getvalue()
    monkeypatch.setenv("XLA_FLAGS", f"{os.environ['XLA_FLAGS']} --xla_cpu_enable_fast_math=true")
    with pytest.raises(
        InputError, match=r"run was started with XLA_FLAGS='.*', now it is '.*fast_math=true.*; set XLA"
    ):
        resume()


def test_an_adopted_old_model_must_have_the_configured_network_if_its_weights_are_used(executed, prepared, tmp_path):
    """Otherwise a traceback would follow, after the independent model has been trained."""
    first = executed(
        "update.methods=no_treatment", "model.name=linear", "optimizer.epochs=1", folder=tmp_path / "first"
    )
    old = f"update.old={first.workdir}/releases/r0-old-seed{{seed}}"
    features = (
        f"dataset.name={first.config.dataset.name}",
        "model.name=mlp",
        "dataset.train_per_class=30",
        "seeds=0,1",
    )
    for what, *overrides in (
        ("update.start=old", "update.start=old"),
        (r"a method with the old head \(bct\)", "update.methods=bct"),
        ("update.memory_by=herding", "update.memory=per_class:2", "update.memory_by=herding", "optimizer.batch_size=8"),
    ):
        message = rf"seed0 is linear \(dtype=float32\), but {what} needs .* mlp \(dtype=float32\); set that to match"
        with pytest.raises(InputError, match=message):
            prepared(*features, old, *overrides)
    prepared(*features, old)  # its logits can be learned from
    assert not (tmp_path / "run").exists()


def test_a_streamed_run_is_prepared_like_one_in_memory(prepared):
    memory, streamed = (prepared(f"dataset.source={source}") for source in ("auto", "stream"))
    assert isinstance(memory.dataset.train.images, np.ndarray)
    assert isinstance(streamed.dataset.train.images, data.Stream)
    for found, expected in zip(streamed.normalization(1), memory.normalization(1), strict=True):
        np.testing.assert_array_equal(found, expected)
    known = streamed.known(streamed.dataset.test, 0)
    np.testing.assert_array_equal(known.images, memory.known(memory.dataset.test, 0).images)


def test_methods_that_draw_their_own_batches_need_images_in_memory(prepared):
    message = r"balanced_meta_softmax draws its own batches on the device, but .*; expected dataset\.source=memory"
    with pytest.raises(InputError, match=message):
        prepared("dataset.source=stream", "update.methods=balanced_meta_softmax")


def test_methods_that_choose_need_validation_images_of_train_or_a_part_of_their_own(prepared, tmp_path):
    for label in range(4):
        for part, count in (("train", 8), ("test", 2), ("val", 1)):
            for i in range(count):
                path = tmp_path / f"pets/{part}/{label}/{i}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                number = 20 * label + {"train": 0, "test": 10, "val": 15}[part] + i
                Image.new("L", (8, 8), number).save(path)
    overrides = (
        *("dataset.name=folder", f"dataset.data_dir={tmp_path}/pets", "dataset.channels=1", "seeds=0"),
        *("update.bias=auto", "update.methods=no_treatment", "update.schedule=[2,4]", "optimizer.batch_size=8"),
        "dataset.validation_per_class=0",
    )
    assert prepared(*overrides).dataset.validation.ids.tolist() == [f"val/{label}/0.png" for label in range(4)]
    shutil.rmtree(tmp_path / "pets/val")
    with pytest.raises(InputError, match=r"^update.bias=auto needs validation images, but folder has no validation"):
        prepared(*overrides)


def test_an_old_model_is_given_images_that_are_resized_as_in_its_evaluation(prepared, tmp_path):
    for label, i in ((label, i) for label in range(4) for i in range(8)):
        path = tmp_path / f"pets/train/{label}/{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(9 * label + i).integers(0, 256, (12, 15), np.uint8)
        Image.fromarray(pixels).save(path)
    classifier = releases.release(tmp_path / "old", classes=("0", "1"))
    card = released_model.read_card(tmp_path / "old")
    released_model.write(tmp_path / "old", classifier, card | {"resizing": {"resize": 10, "interpolation": "bicubic"}})
    overrides = (
        *("dataset.name=folder", f"dataset.data_dir={tmp_path}/pets", "dataset.channels=1", "seeds=0"),
        *("dataset.validation_per_class=0", "dataset.image_size=8", "update.schedule=[2,4]", "model.name=convnet"),
        *("update.methods=no_treatment", "optimizer.batch_size=8"),
    )
    old = f"update.old={tmp_path}/old"
    cropped = prepared(*overrides, old, "dataset.resize=10").dataset.test.images
    message = r"evaluated on images with dataset.resize=10 and dataset.interpolation=bicubic, but the run has dataset"
    with pytest.raises(InputError, match=message):
        prepared(*overrides, old)
    whole, streamed = (prepared(*overrides, *more).dataset.test.images for more in ((), ("dataset.source=stream",)))
    assert not np.array_equal(whole, cropped)
    np.testing.assert_array_equal(whole, np.asarray(streamed))
    streamed = prepared(*overrides, "dataset.resize=10", "dataset.source=stream").dataset.test.images
    np.testing.assert_array_equal(np.asarray(streamed), cropped)
