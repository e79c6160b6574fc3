"""Flips on images whose label was corrected, against counts by hand."""

import numpy as np

from mpt_jax.report import corrected_labels, markdown
from mpt_jax.report.blocks import Section
from mpt_jax.report.flips import Pair

NAMES = ["cat", "dog", "fox"]
LABELS = np.array([0, 0, 0, 1, 1, 2])  # corrected
IDS = np.array([f"i{k}" for k in range(6)])
OLD = np.array([1, 0, 0, 0, 1, 0])
NEW = np.array([0, 1, 2, 2, 0, 2])
FORMER = {"i0": "dog", "i1": "dog", "i2": "dog", "i3": "cat", "i4": "hound"}


def pair():
    return Pair(LABELS, IDS, np.eye(2, dtype=np.float32)[OLD], np.eye(3, dtype=np.float32)[NEW])


def test_flips_that_a_correction_explains_are_told_from_those_that_it_reveals():
    # i0: right as a dog, now a cat, as corrected: explained. i1, i2: right as a cat, now wrong; i1 is right as a dog.
    # i3: right as a cat, now a fox: explained, as dog was never predicted. i4: a dog before and after, now a cat.
    becomes = {"hound": ("dog",)}
    found = corrected_labels.count(pair(), FORMER, NAMES, becomes)
    assert found == {"images": 5, "explained": 2, "revealed": 2, "in_both": 1}
    assert corrected_labels.count(pair(), {"i5": "cat"}, NAMES, {}) == {
        **{"images": 1, "explained": 1, "revealed": 0, "in_both": 0}
    }


def test_the_section_has_a_row_for_each_method():
    counts = {"images": 5, "explained": 2, "revealed": 7, "in_both": 1}
    text = markdown.render([Section("Labels", corrected_labels.blocks({"corrected_labels": {"mpt_kl": counts}}))])
    assert "| mpt_kl | 2 | 7 | 1 |" in text and "labels of 5 test images" in text
    assert corrected_labels.blocks({}) == []
