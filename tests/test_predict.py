"""Predictions of a release on a source as a file that `compare` reads; never a partial file."""

import csv
import errno
import json
import os
import signal

import jax
import load_dataset
import numpy as np
import pytest
from PIL import Image
from releases import release

from mpt_jax import compare, models, predict
from mpt_jax.compare.__main__ import main as compare_command
from mpt_jax.training import inference, sharding

logits_of = jax.jit(models.logits)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Return the folders of an old model of five classes and a new one of ten, and both classifiers."""
    folder = tmp_path_factory.mktemp("releases")
    old = release(folder / "old", "linear", classes=tuple("01234"))
    return folder / "old", folder / "new", old, release(folder / "new")


@pytest.fixture
def tfds_digits(digits_dir):
    return ["digits", f"--data-dir={digits_dir}", "--no-compilation-cache"]


def table(path):
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return rows, np.array([[float(v) for k, v in row.items() if k.startswith("logit_")] for row in rows], np.float32)


def test_predictions_of_two_models_can_be_compared(pair, tfds_digits, digits_dir, tmp_path, capsys, compiled):
    old, new, before, after = pair
    expected = load_dataset.load(data_dir=digits_dir).test
    for folder, file, batch in ((old, "old.csv", 500), (new, "new.parquet", 64)):
        assert predict.main([str(folder), *tfds_digits, f"--output={tmp_path / file}", f"--batch={batch}"]) == 0
    assert compiled["logits"] == 2  # one program per model, although the last batch is smaller
    printed = capsys.readouterr()
    assert (
        printed.out == ""
        and f"old on digits test: {len(expected)} predictions in {tmp_path / 'old.csv'}" in printed.err
    )
    rows, logits = table(tmp_path / "old.csv")
    row_of = {name: row for row, name in enumerate(expected.ids.tolist())}
    order = [row_of[row["id"]] for row in rows]
    assert sorted(order) == list(range(len(expected)))
    reference = np.asarray(logits_of(before, expected.images))
    np.testing.assert_allclose(logits, reference[order], rtol=1e-4, atol=1e-4)
    assert [row["prediction"] for row in rows] == [str(k) for k in logits.argmax(-1)]
    assert [row["label"] for row in rows] == [str(k) for k in expected.labels[order]]

    assert (
        compare_command(
            [str(tmp_path / "old.csv"), str(tmp_path / "new.parquet"), f"--json={tmp_path}/r.json", "--allow-poor-old"]
        )
        == 0
    )
    result = json.loads((tmp_path / "r.json").read_text())
    predictions = [np.asarray(logits_of(model, expected.images)).argmax(-1) for model in (before, after)]
    right = [predicted == expected.labels for predicted in predictions]
    known = expected.labels < 5
    assert result["old_classes_rows"]["count"] == known.sum()
    assert result["old_classes_rows"]["negative_flips"] == (right[0] & ~right[1])[known].sum() > 0


def test_a_release_in_a_bucket_gives_the_same_predictions_as_a_local_one(store, bucket, tfds_digits, tmp_path):
    for number, place in enumerate((tmp_path, bucket)):
        release(place / "model", "linear")
        assert predict.main([str(place / "model"), *tfds_digits, f"--output={tmp_path / f'{number}.npz'}"]) == 0
    with np.load(tmp_path / "0.npz") as local, np.load(tmp_path / "1.npz") as remote:
        np.testing.assert_array_equal(local["logits"], remote["logits"])


def test_a_folder_with_an_unreadable_image(pair, tmp_path, capsys):
    random, images = np.random.default_rng(0), tmp_path / "images"
    pixels = random.integers(0, 256, (6, 8, 8), np.uint8)
    for i, values in enumerate(pixels):
        (images / str(i % 2)).mkdir(parents=True, exist_ok=True)
        Image.fromarray(values).save(images / f"{i % 2}/{i}.png")
    (images / "0/broken.png").write_bytes(b"\x89PNG")
    out = tmp_path / "out.npz"
    line = [str(pair[0]), str(images), f"--output={out}", "--batch=4", "--no-compilation-cache"]
    assert predict.main(line) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ") and "0/broken.png" in error and "--on-bad-image=skip" in error
    assert list(tmp_path.iterdir()) == [images]
    assert predict.main([*line, "--on-bad-image=skip", "--scores=probabilities"]) == 0
    assert "6 predictions" in (printed := capsys.readouterr().err) and "1 skipped: 0/broken.png" in printed
    with np.load(out, allow_pickle=False) as file:
        rows = [int(name.removesuffix(".png").partition("/")[2]) for name in file["id"]]
        assert rows == [0, 2, 4, 1, 3, 5] and file["label"].tolist() == list("000111")
        expected = jax.nn.softmax(logits_of(pair[2], pixels[rows][..., None]))
        np.testing.assert_allclose(file["probabilities"], expected, rtol=1e-4, atol=1e-6)
    compare.compare(out, out)


def test_features_through_an_ensemble(tmp_path):
    classifier = release(tmp_path / "ensemble", "mlp", (4,), ("a", "b"), ensemble=3)
    features = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    np.savez(tmp_path / "f.npz", features=features)
    line = [str(tmp_path / "ensemble"), str(tmp_path / "f.npz"), f"--output={tmp_path}/o.csv", "--batch=2"]
    assert predict.main([*line, "--no-compilation-cache"]) == 0
    rows, logits = table(tmp_path / "o.csv")
    single = classifier.replace(ensemble=False)
    each = [logits_of(jax.tree.map(lambda leaf, i=i: leaf[i], single), features) for i in range(3)]
    np.testing.assert_allclose(logits, np.mean(each, axis=0), rtol=1e-4, atol=1e-5)
    assert "label" not in rows[0]


def test_batches_come_back_in_order_with_what_belongs_to_them(pair):
    images = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 1), np.uint8)
    pieces = [(start, images[start : start + 8]) for start in (0, 8, 16)]
    mesh = sharding.make_mesh()
    batches = list(inference.stream(pair[2], iter(pieces), batch_size=8, mesh=mesh))
    assert [(start, len(logits)) for start, logits in batches] == [(0, 8), (8, 8), (16, 4)]
    reference = logits_of(pair[2], images)
    np.testing.assert_allclose(np.concatenate([a for _, a in batches]), reference, rtol=1e-4, atol=1e-4)
    assert list(inference.stream(pair[2], iter([]), batch_size=8, mesh=mesh)) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere", "digits", "--output=o.csv"], "no released model at nowhere"),
        (["OLD", "digits", "--output=o.txt"], "ends in .csv, .parquet, .npz"),
        (["OLD", "digits", "--output=no/o.csv"], "--output no/o.csv"),
        (["OLD", "o.csv", "--output=o.csv"], "would overwrite"),
        (["OLD", "digit", "--output=o.csv"], "digit does not exist and is not a TFDS data set; expected a folder"),
        (["OLD", "digit", "--output=o.csv"], "did you mean digits"),
        (["OLD", "my images", "--output=o.csv"], "my images does not exist"),
        (["OLD", "photo.jpg", "--output=o.csv"], "photo.jpg does not exist; expected a folder"),
        (["OLD", "digits", "--output=o.csv", "--batch=0"], "positive integer"),
        (["OLD", "digits"], "--output"),
        ([], "RELEASE"),
    ],
)
def test_bad_input_is_one_line_and_status_2_and_writes_nothing(pair, arguments, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert predict.main([str(pair[0]) if argument == "OLD" else argument for argument in arguments]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and error.startswith("error: ") and words in error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("ending", "status"), [(".csv", 3), (".parquet", 3), (".npz", 3), (".parquet", 130)])
def test_a_full_disk_or_a_signal_keeps_the_previous_file(
    pair, tfds_digits, ending, status, tmp_path, monkeypatch, capsys
):
    stream, output = inference.stream, tmp_path / f"out{ending}"
    output.write_text("before")

    def interrupted(*args, **kwargs):
        batches = stream(*args, **kwargs)
        yield next(batches)
        if status == 130:
            os.kill(os.getpid(), signal.SIGINT)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(output))

    monkeypatch.setattr(inference, "stream", interrupted)
    assert predict.main([str(pair[0]), *tfds_digits, f"--output={output}"]) == status
    error = capsys.readouterr().err.splitlines()[-1]
    assert ("No space left" if status == 3 else "stopped; nothing was written") in error
    assert output.read_text() == "before" and list(tmp_path.iterdir()) == [output]


def test_features_make_a_data_set_on_which_the_head_alone_predicts_the_same(pair, tfds_digits, tmp_path, capsys):
    _, folder, _, classifier = pair
    for split in ("train", "test"):
        line = [str(folder), *tfds_digits, f"--split={split}", f"--output={tmp_path / split}.npz", "--features"]
        assert predict.main([*line, "--batch=100"]) == 0
    assert f"rows of features in {tmp_path / 'test.npz'}" in capsys.readouterr().err
    np.savez(tmp_path / "both.npz", **{**np.load(tmp_path / "train.npz"), **np.load(tmp_path / "test.npz")})
    dataset = load_dataset.load(str(tmp_path / "both.npz"), num_classes=10)
    images = load_dataset.load(data_dir=tfds_digits[1].partition("=")[2])
    assert dataset.class_names == images.class_names
    for part in ("train", "test"):
        features, pixels = getattr(dataset, part), getattr(images, part)
        np.testing.assert_array_equal(features.ids, pixels.ids)
        np.testing.assert_array_equal(features.labels, pixels.labels)
        head = classifier.params["head"]
        logits = features.images @ head["kernel"] + head["bias"]
        np.testing.assert_allclose(logits, logits_of(classifier, pixels.images), rtol=1e-4, atol=1e-4)


def test_labels_that_the_model_does_not_know_are_named_and_counted(tmp_path, capsys):
    release(tmp_path / "model", "linear", (2,), ("cat", "dog"))
    labels = ["cat", "emu", "Cat", "emu", "dog"]
    np.savez(tmp_path / "f.npz", features=np.zeros((5, 2), np.float32), labels=labels)
    line = [str(tmp_path / "model"), str(tmp_path / "f.npz"), "--batch=2", "--no-compilation-cache"]
    assert predict.main([*line, f"--output={tmp_path}/o.csv"]) == 0
    expected = "labels that the model does not know: 'emu' (2), 'Cat' (1); 'Cat' looks like its class 'cat'\n"
    assert expected in capsys.readouterr().err
    assert [row["label"] for row in table(tmp_path / "o.csv")[0]] == labels
    np.savez(tmp_path / "f.npz", features=np.zeros((2, 2), np.float32), labels=["cat", ""])
    assert predict.main([*line, f"--output={tmp_path}/o.csv"]) == 0
    assert "does not know" not in capsys.readouterr().err


def test_labels_of_features_may_be_classes_that_the_model_does_not_know(pair, tmp_path):
    for name in ("emu", "owl"):
        (tmp_path / "images" / name).mkdir(parents=True)
        Image.new("L", (8, 8), 9).save(tmp_path / f"images/{name}/1.png")
    line = [str(pair[0]), str(tmp_path / "images"), f"--output={tmp_path}/o.npz", "--no-compilation-cache"]
    assert predict.main([*line, "--features", "--split=train"]) == 0
    with np.load(tmp_path / "o.npz") as file:
        assert file["train_labels"].tolist() == ["emu", "owl"] and "class_names" not in file
        np.testing.assert_array_equal(file["train_features"][0], file["train_features"][1])


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["--output=o.csv"], "--output o.csv with --features; expected a name that ends in .npz"),
        (["--output=o.npz", "--scores=none"], "--scores=none"),
        (["--output=o.npz"], "is an ensemble, whose networks have features of their own"),
    ],
)
def test_features_that_cannot_be_written(tmp_path, monkeypatch, capsys, given, expected):
    monkeypatch.chdir(tmp_path)
    release(tmp_path / "ensemble", "mlp", (4,), ("a", "b"), ensemble=3)
    assert predict.main(["ensemble", "x.npz", *given, "--features", "--no-compilation-cache"]) == 2
    error = capsys.readouterr().err.splitlines()
    assert len(error) == 1 and expected in error[0]
    assert [path.name for path in tmp_path.iterdir()] == ["ensemble"]
