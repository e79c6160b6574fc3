"""The commands on networks of one's own, linen and NNX: train, gate, predict, features, export, and a next update."""

import json
import pathlib
import shutil

import jax
import numpy as np
import own_networks
import pytest
from flax import nnx

from mpt_jax import models, predict, train
from mpt_jax.compare.__main__ import main as compare
from mpt_jax.export import __main__ as export
from mpt_jax.files import released_model
from mpt_jax.files.predictions import released
from mpt_jax.models import own_network
from mpt_jax.runtime import user_program
from mpt_jax.training import sharding

METHODS = ("no_treatment", "mpt_kl")
FEWER = (f"--config.update.methods={','.join(METHODS)}", "--config.update.tune={}")
logits_of = jax.jit(models.logits)


@pytest.fixture(scope="module", autouse=True)
def quick():
    """One of the eight devices, and reports without plots."""
    make_mesh = sharding.make_mesh
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sharding, "make_mesh", lambda devices=None, **layout: make_mesh(jax.devices()[:1], **layout))
        patch.setattr("mpt_jax.report.plots.draw", lambda report, thumbnails: {})
        yield


@pytest.fixture(scope="module", params=["nnx", pytest.param("linen", marks=pytest.mark.slow)])
def run(request, tmp_path_factory, digits_dir):
    """Folder, file of the network, and work directory of a finished run of three methods and two seeds."""
    folder = tmp_path_factory.mktemp(request.param)
    file = folder / "net.py"
    file.write_text(own_networks.TEXTS[request.param])
    more = (f"--config.dataset.data_dir={digits_dir}", *FEWER)
    assert train.main(own_networks.options(f"{file}:build", folder / "run", *more)) == 0
    return folder, file, folder / "run"


@pytest.fixture
def digits(digits_dir):
    return ["digits", f"--data-dir={digits_dir}", "--no-compilation-cache"]


def test_every_seed_and_method_of_the_populations_is_another_network(run):
    _, file, workdir = run
    cards = {path.name: released_model.read_card(path) for path in (workdir / "releases").iterdir()}
    expected = {f"r0-old-seed{seed}" for seed in (0, 1)}
    expected |= {f"r1-{method}-seed{seed}" for method in ("independent", *METHODS) for seed in (0, 1)}
    assert cards.keys() == expected and len({card["digest"] for card in cards.values()}) == len(cards)
    sha256 = own_network.digest(f"{file}:build")
    assert all(card["architecture"]["options"]["sha256"] == sha256 for card in cards.values())
    rows = json.loads((workdir / "report.json").read_text())["rows"]
    assert min(row["accuracy"] for row in rows) > 0.3  # ten classes: they have learned


def test_the_gate_counts_the_flips_of_the_report_in_predictions_of_a_run_and_of_predict(run, digits, tmp_path):
    _, _, workdir = run
    row = next(
        row
        for row in json.loads((workdir / "report.json").read_text())["rows"]
        if (row["method"], row["seed"]) == ("mpt_kl", 1)
    )
    names = ("r0-old-seed1", "r1-mpt_kl-seed1")
    for name, ending in zip(names, (".csv", ".parquet"), strict=True):
        line = [str(workdir / "releases" / name), *digits, f"--output={tmp_path / name}{ending}"]
        assert predict.main(line) == 0
    pairs = [
        [str(workdir / f"predictions/{name}.npz") for name in names],
        [f"{tmp_path / names[0]}.csv", f"{tmp_path / names[1]}.parquet"],
    ]
    for files in pairs:
        result = tmp_path / "gate.json"
        limits = [f"--max-nfr={row['nfr'] + 1e-9}", "--allow-poor-old", f"--json={result}"]
        assert compare([*files, *limits]) == 0
        found = json.loads(result.read_text())["old_classes_rows"]
        assert found["nfr"] == pytest.approx(row["nfr"])
        if row["nfr"]:
            assert compare([*files, "--max-nfr=0", "--allow-poor-old"]) == 1


def test_features_are_the_inputs_of_the_head(run, digits, tmp_path):
    _, _, workdir = run
    release = workdir / "releases/r1-mpt_kl-seed0"
    assert predict.main([str(release), *digits, "--features", f"--output={tmp_path}/features.npz"]) == 0
    head = released_model.read(release)[0].params["head"]
    expected = released.read(workdir / "predictions/r1-mpt_kl-seed0.npz")
    with np.load(tmp_path / "features.npz") as file:
        logits = file["test_features"] @ head["kernel"] + head["bias"]
        order = np.argsort(file["test_ids"])
        assert file["test_ids"][order].tolist() == sorted(expected["ids"].tolist())
        largest = np.abs(expected["logits"]).max()
        sorted_logits = expected["logits"][np.argsort(expected["ids"])]
        np.testing.assert_allclose(logits[order], sorted_logits, rtol=0, atol=1e-5 * largest)


def test_export_writes_a_program_and_the_weights_and_no_names_of_pytorch(run, digits_dir, tmp_path, capsys):
    _, _, workdir = run
    release = workdir / "releases/r1-mpt_kl-seed0"
    assert export.main([str(release), str(tmp_path / "out"), "--platforms=cpu"]) == 0
    program = jax.export.deserialize(bytearray((tmp_path / "out/model.stablehlo").read_bytes()))
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 1), np.uint8)
    classifier, _ = released_model.read(release)
    np.testing.assert_allclose(program.call(images), logits_of(classifier, images), rtol=1e-4, atol=1e-4)
    assert export.main([str(release), str(tmp_path / "torch"), "--format=torch"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "no package of PyTorch has the network" in error
    assert "--format stablehlo" in error and not (tmp_path / "torch").exists()
    # the weights start another run, with a fresh head
    weights = f"--config.model.pretrained={tmp_path}/out/weights.safetensors"
    plan = own_networks.options(classifier_name(release), tmp_path / "next", weights, "--plan")
    assert train.main([*plan, f"--config.dataset.data_dir={digits_dir}"]) == 0
    assert "its head is left out" in " ".join(capsys.readouterr().out.split())


def classifier_name(release):
    return released_model.read_card(release)["architecture"]["name"]


@pytest.mark.parametrize("start", [pytest.param("random", marks=pytest.mark.slow), "old"])
def test_a_release_is_the_old_model_of_another_run(run, start, digits_dir, tmp_path):
    """Of another network; or students are fine-tuned from it, here with rate 0."""
    _, file, workdir = run
    settings = {
        "random": ("--config.update.methods=mpt_kl", f"--config.old_model.name={file}:build"),
        "old": ("--config.update.methods=mpt_kl,bct", "--config.optimizer.learning_rate=0"),
    }
    line = own_networks.options(
        *("convnet" if start == "random" else f"{file}:build", tmp_path / "run", *settings[start]),
        *(f"--config.dataset.data_dir={digits_dir}", f"--config.update.start={start}", "--config.seeds=1,"),
        *(f"--config.update.old={workdir}/releases/r0-old-seed{{seed}}", "--config.update.tune={}"),
    )
    assert train.main(line) == 0
    old, adopted = (released_model.read(each / "releases/r0-old-seed1") for each in (workdir, tmp_path / "run"))
    jax.tree.map(np.testing.assert_array_equal, old[0], adopted[0])
    assert old[1]["digest"] == adopted[1]["digest"]
    assert (tmp_path / "run/releases/r0-old-seed1/network.py").read_text() == file.read_text()
    if start == "old":
        tuned = released_model.read(tmp_path / "run/releases/r1-mpt_kl-seed1")[0].params["head"]["kernel"]
        np.testing.assert_array_equal(tuned[:, :5], old[0].params["head"]["kernel"])


@pytest.fixture
def forgotten(monkeypatch):
    """A process that has not read any network yet."""
    monkeypatch.setattr(own_network, "_PROGRAMS", {})
    own_network._built.cache_clear()


@pytest.mark.parametrize("change", ["moved", "edited"])
def test_a_release_names_the_copy_of_a_file_that_is_moved_or_edited(
    run, change, digits, digits_dir, tmp_path, capsys, forgotten
):
    _, file, workdir = run
    release, text = workdir / "releases/r1-mpt_kl-seed0", file.read_text()
    assert (release / "network.py").read_text() == text
    if change == "moved":
        file.rename(tmp_path / "net.py")
    else:
        file.write_text(text + "\n# edited\n")
    try:
        capsys.readouterr()
        assert predict.main([str(release), *digits, f"--output={tmp_path}/o.csv"]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and str(release / "network.py") in error
        assert ("no file" if change == "moved" else "SHA-256") in error and "train it again" not in error
        line = own_networks.options(f"{file}:build", workdir, f"--config.dataset.data_dir={digits_dir}", *FEWER)
        assert train.main(line) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and ("no file" if change == "moved" else "model.sha256=") in error
        shutil.copy(release / "network.py", file)
        assert predict.main([str(release), *digits, f"--output={tmp_path}/o.csv"]) == 0
        assert train.main(line) == 0
    finally:
        file.write_text(text)


def test_a_network_without_a_head_predicts_and_has_no_features(digits, digits_dir, tmp_path, capsys):
    (tmp_path / "net.py").write_text(own_networks.LINEN)
    line = own_networks.options(
        *(f"{tmp_path}/net.py:headless", tmp_path / "run", f"--config.dataset.data_dir={digits_dir}"),
        *("--config.update.methods=mpt_kl", "--config.seeds=0,", "--config.update.tune={}"),
    )
    assert train.main(line) == 0
    release = str(tmp_path / "run/releases/r1-mpt_kl-seed0")
    assert predict.main([release, *digits, f"--output={tmp_path}/o.csv"]) == 0
    capsys.readouterr()
    assert predict.main([release, *digits, "--features", f"--output={tmp_path}/o.npz"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "it has no layer called head, but Dense_0" in error
    assert not (tmp_path / "o.npz").exists()


def test_the_shipped_network_is_an_nnx_module():
    path = pathlib.Path(__file__).resolve().parents[1] / "configs/own_network.py"
    module = user_program.load(path)
    assert isinstance(module.build(3, np.float32, nnx.Rngs(0)), nnx.Module)
    assert module.get_config().model.name.endswith("own_network.py:build")
