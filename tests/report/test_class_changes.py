"""What became of the changed classes: counts by hand, and the section with every kind of change."""

import numpy as np

from mpt_jax import class_map
from mpt_jax.class_map import ClassMap
from mpt_jax.report import class_changes, page
from mpt_jax.report.blocks import Section
from mpt_jax.update.class_change import ClassChange

OLD = ("dog", "tabby", "siamese", "car", "disk", "owl")
NEW = ("puppy", "adult dog", "cat", "automobile", "owl", "fox")
MAP = ClassMap(
    rename={"car": "automobile"},
    merge={"cat": ("tabby", "siamese")},
    split={"dog": ("puppy", "adult dog")},
    retire=("disk",),
)
CHANGE = ClassChange(MAP, OLD, class_map.matrix(MAP, OLD, NEW))
LABELS = np.array([0, 0, 1, 1, 2, 2, 3, 4, 4])
BEFORE = np.array([0, 0, 0, 3, 1, 2, 3, 5, 4])
AFTER = np.array([0, 1, 2, 1, 2, 0, 3, 5, 4])
# right before: 0 1 2 4 5 6 7; flips: 1 (to the other part), 2 (to cat), 5 (to puppy), 7 (to the new class)
COUNTS = {"count": [4, 2, 1, 2], "right_before": [3, 2, 1, 1], "flips": [2, 1, 0, 1], "flips_of_groups": [1, 1, 0, 1]}


def test_images_are_counted_by_group_in_both_readings():
    assert class_changes.count(CHANGE, BEFORE, AFTER, LABELS) == COUNTS


def report():
    counts = {"mpt_kl": {"classes": [COUNTS, COUNTS]}}
    finding = {"what": "test images of retired classes", "count": 12, "outcome": "left out"}
    changes = class_changes.describe(CHANGE, counts, NEW)
    return {"class_changes": changes, "dataset": {"findings": [finding]}}


def test_the_entry_of_the_report_has_the_changed_classes_and_all_others():
    found = report()["class_changes"]
    assert [(group["old"], group["new"]) for group in found["groups"]] == [
        (["dog"], ["puppy", "adult dog"]),
        (["tabby", "siamese"], ["cat"]),
        (["car"], ["automobile"]),
        ([], []),
    ]
    assert found["groups"][0]["methods"]["mpt_kl"] == {"count": 8, "right_before": 6, "flips": 4, "flips_of_groups": 2}
    assert found["retired"] == ["disk"] and found["nfr"]["mpt_kl"] == {"flips": 4 / 9, "flips_of_groups": 3 / 9}
    assert len(found["digest"]) == 64


def test_the_section_names_every_kind_of_change():
    blocks = class_changes.blocks(report(), ["mpt_kl"])
    text = page.render([Section("What became of the classes?", blocks)], {}, {})
    for words in ("1 renamed, 1 merged, 1 split, 1 retired", "12 test images of retired classes", "44.44", "33.33"):
        assert words in text, words
    for cell in ("puppy, adult dog", "tabby, siamese", "disk", "all others"):
        assert cell in text, cell
    assert class_changes.blocks({"dataset": {}}, ["mpt_kl"]) == []
