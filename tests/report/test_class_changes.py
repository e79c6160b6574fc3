"""What became of the changed classes: counts by hand, and the section with every kind of change."""

import numpy as np
import pytest

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
COUNTS = {
    **{"count": [4, 2, 1, 2], "right_before": [3, 2, 1, 1], "right": [2, 1, 1, 1], "right_of_groups": [3, 1, 1, 1]},
    **{"flips": [2, 1, 0, 1], "flips_of_groups": [1, 1, 0, 1]},
}
BETTER = {
    **COUNTS,
    "right": [4, 2, 1, 2],
    "right_of_groups": [4, 2, 1, 2],
    "flips": [0] * 4,
    "flips_of_groups": [0] * 4,
}


def test_images_are_counted_by_group_in_both_readings():
    assert class_changes.count(CHANGE, BEFORE, AFTER, LABELS) == COUNTS


def report(seeds=2):
    of_seeds = {"mpt_kl": [COUNTS, *[BETTER] * (seeds - 1)], "no_treatment": [COUNTS] * seeds}
    finding = {"what": "test images of retired classes", "count": 12, "outcome": "left out"}
    compared = {
        **{"baseline": "no_treatment", "methods": dict.fromkeys(of_seeds)},
        "interval_over": "seeds" if seeds > 2 else "images",
    }
    counts = {method: {"classes": classes} for method, classes in of_seeds.items()}
    changes = class_changes.describe(CHANGE, counts, NEW, compared)
    return {"class_changes": changes, "comparison": compared, "dataset": {"findings": [finding]}}


def test_the_entry_of_the_report_has_the_changed_classes_and_all_others():
    found = report()["class_changes"]
    assert [(group["old"], group["new"]) for group in found["groups"]] == [
        (["dog"], ["puppy", "adult dog"]),
        (["tabby", "siamese"], ["cat"]),
        (["car"], ["automobile"]),
        ([], []),
    ]
    assert [group["images"] for group in found["groups"]] == [4, 2, 1, 2]
    assert found["groups"][0]["methods"]["no_treatment"] == {
        **{"count": 8, "right_before": 6, "right": 4, "right_of_groups": 6, "flips": 4, "flips_of_groups": 2}
    }
    assert found["retired"] == ["disk"] and len(found["digest"]) == 64
    means = {key: found["readings"]["mpt_kl"][key]["mean"] for key in class_changes.RATES}
    assert means == pytest.approx(
        {"nfr": 2 / 9, "nfr_of_groups": 3 / 18, "accuracy": (5 + 9) / 18, "accuracy_of_groups": (6 + 9) / 18}
    )
    assert found["readings"]["mpt_kl"]["nfr"]["interval"] is None


def test_both_readings_have_intervals_and_paired_differences_over_seeds():
    nfr = report(seeds=3)["class_changes"]["readings"]["mpt_kl"]["nfr_of_groups"]
    values = np.array([3 / 9, 0, 0])
    half = 4.302653 * values.std(ddof=1) / np.sqrt(3)  # Student's t with 2 degrees of freedom
    assert nfr["interval"] == pytest.approx([values.mean() - half, values.mean() + half])
    difference = nfr["difference"]
    assert difference["mean"] == pytest.approx(values.mean() - 3 / 9)
    assert difference["interval"] == pytest.approx([values.mean() - 3 / 9 - half, values.mean() - 3 / 9 + half])


def test_the_section_names_every_kind_of_change():
    blocks = class_changes.blocks(report(seeds=3), ["mpt_kl"])
    text = page.render([Section("What became of the classes?", blocks)], {}, {})
    for words in (
        "1 renamed, 1 merged, 1 split, 1 retired",
        "12 test images of retired classes",
        "44.44",
        "33.33",
        "-22.22 [",
    ):
        assert words in text, words
    for cell in ("puppy, adult dog", "tabby, siamese", "disk", "all others"):
        assert cell in text, cell
    assert class_changes.blocks({"dataset": {}}, ["mpt_kl"]) == []
