"""The flips in a report against counts by hand."""

import numpy as np
import pytest

from mpt_jax.errors import InputError
from mpt_jax.report import flips
from mpt_jax.report.flips import Pair

# Two old classes of three images each and a new one of one image: the predictions of both models.
LABELS = np.array([0, 0, 0, 1, 1, 1, 2])
IDS = np.array([f"image{i}" for i in range(7)])
OLD = np.array([0, 0, 1, 1, 1, 0, 0])
NEW = np.array([0, 2, 0, 0, 2, 1, 2])  # flips: image 1 to class 2, image 3 to 0, image 4 to 2; positive: 2 and 5


def make_pair(old=OLD, new=NEW, sharpness=1.0):
    """Return logits whose largest is the prediction; confidence rises with the position of the image."""
    rise = sharpness * np.arange(1, 8, dtype=np.float32)[:, None]
    return Pair(LABELS, IDS, rise * np.eye(2, dtype=np.float32)[old], rise * np.eye(3, dtype=np.float32)[new])


def test_predictions_of_different_images_are_not_compared():
    pair, config = make_pair(), {"update": {"schedule": [2, 3]}}
    whole = {"labels": pair.labels, "ids": pair.ids, "logits": pair.old}
    found = {"r0-old-seed4": whole, "r1-mpt_kl-seed4": {**whole, "logits": pair.new}}
    assert flips.read(found.get, config, "mpt_kl", 4).new is pair.new
    for key, other in (("ids", IDS[::-1]), ("labels", LABELS[1:])):
        found["r1-mpt_kl-seed4"] = {**whole, key: other}
        with pytest.raises(InputError, match="r0-old-seed4 and r1-mpt_kl-seed4 are of different images"):
            flips.read(found.get, config, "mpt_kl", 4)


def test_counts_are_sums_over_seeds_and_of_old_classes_only():
    again = make_pair(new=np.where(np.arange(7) == 4, 1, NEW))  # the second seed keeps image 4
    found = flips.describe([make_pair(), again], 2, set())
    assert found["per_class"] == {"count": [6, 6], "negative_flips": [2, 3], "positive_flips": [2, 2]}
    assert found["confusion"][0] == [0, 2, 2] and [1, 0, 2] in found["confusion"] and [1, 2, 1] in found["confusion"]
    assert len(found["confusion"]) == 3


def test_images_are_of_the_first_seed_most_confident_first():
    images = flips.describe([make_pair(), make_pair(new=OLD)], 2, set())["images"]
    assert [(image["id"], image["label"], image["answer"]) for image in images] == [
        *(("image4", 1, 2), ("image3", 1, 0), ("image1", 0, 2))
    ]
    assert images[0]["confidence_new"] == pytest.approx(np.exp(5) / (np.exp(5) + 2), abs=1e-4)
    assert images[0]["confidence_old"] == pytest.approx(np.exp(5) / (np.exp(5) + 1), abs=1e-4)
    shown = flips.describe([make_pair()], 2, {"image1", "image0"})["images"]
    assert [image["id"] for image in shown] == ["image1"]


def test_margins_are_counted_on_every_image_of_an_old_class():
    found = flips.describe([make_pair()], 2, set())["margins"]
    assert sum(found["before"]) == sum(found["after"]) == 6
    before = np.array([1, 2, -3, 4, 5, -6])
    assert found["median_before"] == pytest.approx(np.median(before))
    assert found["median_before_of_flipped"] == pytest.approx(4.0)  # of images 1, 3, 4
    assert flips.describe([make_pair(new=OLD)], 2, set())["margins"]["median_before_of_flipped"] is None


def test_a_diverged_model_has_neither_margins_nor_images():
    pair = make_pair()
    found = flips.describe([Pair(LABELS, IDS, pair.old, np.full_like(pair.new, np.nan))], 2, set())
    assert found["margins"] is None and found["images"] == []


def test_events_are_shares_of_the_seeds():
    found = flips.events([make_pair(), make_pair(new=LABELS)], 2)
    assert found["accuracy"].tolist() == [1.0, 0.5, 1.0, 0.5, 0.5, 1.0, 1.0]
    assert found["nfr"].tolist() == [0.0, 0.5, 0.0, 0.5, 0.5, 0.0]
