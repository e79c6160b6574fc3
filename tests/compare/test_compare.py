"""The gate as a function and as a helper for pytest."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpt_jax.compare import assert_no_regression, chain, compare, report, text
from mpt_jax.errors import InputError

TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=3)  # NumPy cuts texts at \0
TABLES = st.lists(st.tuples(TEXTS, st.integers(0, 3), st.integers(0, 1), st.integers(0, 3)), min_size=1)


@given(TABLES, st.randoms(use_true_random=False))
def test_small_tables_in_any_order_agree_with_plain_python(rows, random):
    rows = list({i: (i, *rest) for i, *rest in rows if i}.values())
    shuffled = random.sample(rows, len(rows))
    old = {"id": [r[0] for r in rows], "label": [r[1] for r in rows], "prediction": [r[2] for r in rows]}
    new = {"id": [r[0] for r in shuffled], "label": [r[1] for r in shuffled]}
    new["scores"] = [[float(k == r[3]) for k in range(4)] for r in shuffled]
    if not any(label < 2 for _, label, _, _ in rows):
        with pytest.raises(InputError):
            compare(old, new, old_classes=2)
        return
    found = compare(old, new, old_classes=2, max_nfr=0, allow_poor_old=True)
    flipped = [(i, label, was, now) for i, label, was, now in rows if was == label != now]
    assert [tuple(e.values()) for e in found["flips"]["examples"]] == [
        (i, str(y), str(a), str(b)) for i, y, a, b in flipped
    ]
    of_old = sum(label < 2 for _, label, _, _ in rows)
    assert found["old_classes_rows"]["nfr"] == len(flipped) / of_old
    assert found["all_rows"]["nfr"] == len(flipped) / len(rows) == found["flips"]["count"] / found["all_rows"]["count"]
    assert found["passed"] == (not flipped)


def test_the_result_is_a_json_contract(files):
    found = compare(*files, max_nfr=0.05)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert {
        *("schema", "old", "new", "passed", "verdict", "checks", "confident", "confidence", "interval", "classes"),
        *("old_classes_rows", "all_rows", "per_class", "flips", "new_classes", "never_labels", "left_out", "ties"),
        *("inputs", "options", "versions"),
    } == set(found)
    assert found["classes"] == {"count": 4, "old": ["0", "1"], "known_from": "answers"}
    assert found["old_classes_rows"]["nfr"] == 0.1 and found["all_rows"]["nfr"] == 0.05
    assert found["checks"][0]["value"] == 0.1 and not found["passed"]
    assert found["flips"]["examples"][-1] == {"id": "i97", "label": "1", "old": "1", "new": "3"}


def test_classes_that_are_new_are_named_with_their_rows(files):
    assert compare(*files)["new_classes"] == [{"class": "2", "rows": 25}, {"class": "3", "rows": 25}]


def test_predictions_that_are_never_a_label_are_named_with_their_rows():
    old = {"id": range(5), "label": ["cat"] * 3 + ["dog"] * 2, "prediction": ["cat", "kitty", "kitty", "dog", "owl"]}
    found = compare(old, old | {"prediction": ["cat"] * 3 + ["dog"] * 2})
    rows = [{"class": "kitty", "rows": 2, "new_wrong": 0}, {"class": "owl", "rows": 1, "new_wrong": 0}]
    assert found["never_labels"] == {"old": rows, "new": []}
    assert "wrong in each row: kitty (2), owl (1); other names of a class need --same" in text.notes(found)[0]
    assert "hide" not in text.notes(found)[0]
    flipped = compare(old, old | {"prediction": ["cat", "cat", "dog", "dog", "dog"]}, max_nfr=0)
    assert flipped["passed"] and flipped["never_labels"]["old"][0]["new_wrong"] == 1
    assert "need --same, or hide up to 1 negative flip" in text.notes(flipped)[0]
    same = compare(old, old | {"prediction": ["cat"] * 3 + ["dog"] * 2}, same={"kitty": "cat"})
    assert same["all_rows"]["positive_flips"] == 1 and len(same["never_labels"]["old"]) == 1


def test_classes_of_the_old_model_that_changed_places_are_doubted_unless_that_is_allowed():
    labels = np.arange(2000) % 20
    old = {"id": range(2000), "label": labels, "prediction": labels}
    for places in ([0, 2, 1, *range(3, 20)], [1, 2, 0, *range(3, 20)], [*range(17), 16, 17, 18]):
        moved = old | {"prediction": np.array(places)[labels]}
        with pytest.raises(
            InputError, match=r"the old model predicts '.*' for 100 of 100 rows of '.*', .*--allow-poor"
        ):
            compare(moved, old, max_nfr=0)
        assert compare(moved, old, max_nfr=0, allow_poor_old=True)["passed"]
        assert not compare(old, moved, max_nfr=0)["passed"]


def test_files_with_the_same_content_are_named(tmp_path):
    rows = "id,label,prediction\n1,a,a\n2,b,b\n"
    for name, more in (("old", ""), ("new", ""), ("other", "3,b,b\n")):
        (tmp_path / f"{name}.csv").write_text(rows + more)
    old, new = (str(tmp_path / f"{name}.csv") for name in ("old", "new"))
    note = f"The same content in {old} and {new}: nothing can differ; expected the predictions of two models"
    assert text.notes(compare(old, new, max_nfr=0)) == [note]
    assert report.of(chain([old, new, new])).notes[0].startswith(f"The same content in {old} and {new} and {new}:")
    assert not text.notes(compare(old, {"id": [1, 2], "label": ["a", "b"], "prediction": ["a", "b"]}, labels=old))


def test_predictions_that_are_all_the_same_are_named_whatever_the_files_are():
    table = {"id": range(30), "label": ["a", "b"] * 15, "prediction": ["a", "b"] * 15}
    shuffled = {name: [*values][::-1] for name, values in table.items()}
    note = "All predictions of the old arrays and the new arrays are the same, as those of one model; were two "
    assert text.notes(compare(table, shuffled, max_nfr=0)) == [f"{note}models expected?"]
    few = {name: [*values][:29] for name, values in table.items()}
    assert not text.notes(compare(few, few)) and not text.notes(compare(table, table | {"prediction": ["a"] * 30}))


def test_rows_of_weight_0_and_their_flips_are_named():
    old = {"id": range(4), "label": ["a", "b"] * 2, "prediction": ["a", "b"] * 2, "share": [0, 2, 2, 2]}
    found = compare(old, old | {"prediction": ["b", "b", "a", "b"]}, weight="share", max_nfr=0)
    assert found["passed"] and found["weightless"] == {"rows": 1, "negative_flips": 1}
    assert "1 row of weight 0 is in no rate, with 1 negative flip" in text.notes(found)
    old["share"] = [1, 2, 2, 2]
    assert "weightless" not in compare(old, old, weight="share")


def test_ties_are_broken_in_the_same_way_in_both_files_and_counted():
    scores = np.random.default_rng(0).integers(0, 10, (500, 3)) / 10
    table = {"id": np.arange(500), "label": [f"c{k}" for k in scores.argmax(1)]}
    columns = {f"score_c{k}": scores[:, k] for k in range(3)}
    turned = dict(reversed(columns.items()))
    found = compare(table | columns, table | turned, max_nfr=0, min_accuracy=0.3)
    ties = (np.sort(scores)[:, -1] == np.sort(scores)[:, -2]).sum()
    assert found["all_rows"]["churn"] == 0 and found["passed"]
    assert found["ties"] == {"rows": ties, "could_change": ["max_nfr"]}


def test_an_old_model_that_is_always_wrong_is_refused_unless_allowed():
    labels = np.arange(300) % 10
    right = {"id": np.arange(300), "label": labels, "prediction": labels}
    shifted = right | {"prediction": (labels + 1) % 10}
    with pytest.raises(InputError, match=r"right on 0 of 300 rows of its classes, close to chance; .*allow-poor-old"):
        compare(shifted, right, max_nfr=0)
    assert compare(shifted, right, max_nfr=0, allow_poor_old=True)["passed"]
    half = right | {"prediction": np.where(np.arange(300) < 150, labels, (labels + 1) % 10)}
    with pytest.raises(InputError, match="right on 150 of 300 rows of its classes, the new one on 300"):
        compare(half, right, max_nfr=0)
    assert compare(half, half, max_nfr=0)["passed"]


def test_the_pytest_helper(files):
    assert assert_no_regression(*files, max_nfr=0.1)["passed"]
    with pytest.raises(
        AssertionError, match=r"max_nfr: 10.00 % .* exceeds the limit of 9 %\n5 negative flips, such as id 'i89'"
    ):
        assert_no_regression(*files, max_nfr=0.09)
    with pytest.raises(InputError, match="no limit"):
        assert_no_regression(*files)
