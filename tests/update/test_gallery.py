"""Thumbnails of the images that flipped."""

import numpy as np
import pytest

from mpt_jax import metrics
from mpt_jax.files.predictions import released
from mpt_jax.update import gallery, workdir


def test_the_first_seeds_most_confident_flips_of_every_method_have_a_thumbnail(prepared):
    run = prepared("seeds=3,4", "update.methods=no_treatment,mpt_kl")
    test, rng, logits = run.dataset.test, np.random.default_rng(0), {}
    (run.workdir / "predictions").mkdir(parents=True)
    for release, method, classes in ((0, "old", 5), (1, "independent", 10), (1, "no_treatment", 10), (1, "mpt_kl", 10)):
        for seed in (3, 4):
            logits[method, seed] = rng.normal(size=(len(test), classes)).astype(np.float32)
            path = run.predictions(run.folder(release, method, seed))
            run.cards[path.stem] = {"digest": "of the weights", "classes": list(range(classes))}
            released.write(path, labels=test.labels, logits=logits[method, seed], ids=test.ids)
    gallery.write(run)
    found = workdir.read_gallery(run.workdir)
    known, expected = test.labels < 5, set()
    for method in ("independent", "no_treatment", "mpt_kl"):
        rows = metrics.ranked_flips(logits["old", 3][known], logits[method, 3][known], test.labels[known])
        assert len(rows) > 32
        expected |= set(test.ids[rows[:32]].tolist())  # a third of 96 each
    assert set(found) == expected
    for image_id, image in found.items():
        np.testing.assert_array_equal(image, test.images[test.ids.tolist().index(image_id)])
    assert not list(run.workdir.glob(".*"))


def test_a_run_without_flips_has_an_empty_gallery(prepared):
    run = prepared("update.methods=no_treatment", "seeds=0")
    test = run.dataset.test
    (run.workdir / "predictions").mkdir(parents=True)
    for release, method in ((0, "old"), (1, "independent"), (1, "no_treatment")):
        logits = np.eye(10, dtype=np.float32)[test.labels][:, : 5 if release == 0 else 10]
        path = run.predictions(run.folder(release, method, 0))
        run.cards[path.stem] = {"digest": "of the weights", "classes": list(range(logits.shape[1]))}
        released.write(path, labels=test.labels, logits=logits, ids=test.ids)
    gallery.write(run)
    assert (run.workdir / "gallery.npz").is_file() and workdir.read_gallery(run.workdir) == {}


def test_features_have_no_gallery(executed):
    run = executed("seeds=0", "update.methods=no_treatment")
    assert not (run.workdir / "gallery.npz").exists() and workdir.read_gallery(run.workdir) == {}


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((8, 8, 1), (8, 8, 1)), ((300, 100, 3), (64, 21, 3)), ((64, 128, 4), (32, 64, 3)), ((70, 7, 2), (64, 6, 1))],
)
def test_thumbnails_keep_the_proportions(shape, expected):
    image = np.full(shape, 200, np.uint8)
    small = gallery.thumbnail(image)
    assert small.shape == expected and small.dtype == np.uint8 and (small == 200).all()
