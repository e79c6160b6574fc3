"""Top-k and accepted answers against plain loops."""

import io
import json
import pathlib

import jsonschema
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from mpt_jax.compare import compare, show
from mpt_jax.errors import InputError

SCORES = st.lists(
    st.tuples(st.integers(0, 3), *[st.lists(st.integers(0, 9), min_size=4, max_size=4)] * 2), min_size=3, max_size=20
)


def tables(rows):
    labels, old, new = zip(*rows, strict=True)
    table = {"id": range(len(rows)), "label": list(labels)}
    return table | {"probabilities": np.array(old) / 10}, table | {"probabilities": np.array(new) / 10}


def ranked(scores, k):
    """Return the k classes with the largest scores, the first of equal ones first."""
    return sorted(range(4), key=lambda c: (-scores[c], c))[:k]


def test_one_threshold_needs_one_kind_of_scores():
    rng = np.random.default_rng(0)
    labels, logits = np.arange(60) % 3, 4 * np.eye(3)[np.arange(60) % 3] + rng.normal(size=(60, 3))
    table = {"id": range(60), "label": labels}
    probabilities = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    kinds = {"logits": logits, "percent": 100 * probabilities, "log": np.log(probabilities)}
    one = table | {"scores": probabilities}
    assert compare(one, one, threshold=0.5, max_accepted_nfr=0.1)["passed"]
    assert compare(one, table | {"scores": probabilities.astype(np.float16)}, threshold=0.5)["accepted"]["rows"] > 10
    for scores in kinds.values():
        other = table | {"scores": scores}
        for old, new in ((one, other), (other, one)):
            with pytest.raises(InputError, match="one threshold cannot mean the same for both; expected scores of one"):
                compare(old, new, threshold=0.5)
        assert compare(other, other, threshold=float(np.median(scores.max(-1))), max_accepted_nfr=0.1)["passed"]


@given(SCORES, st.integers(1, 5))
def test_the_label_may_be_among_the_largest_scores(rows, k):
    options = {"top_k": k, "max_top_k_nfr": 0.5, "old_classes": 4, "classes": [*"abcd"], "allow_poor_old": True}
    if k >= 4:
        with pytest.raises(InputError, match=f"top_k is {k} and the new arrays has scores of 4 classes, so that no"):
            compare(*tables(rows), **options)
        return
    found = compare(*tables(rows), **options)
    flips = sum(label in ranked(old, k) and label not in ranked(new, k) for label, old, new in rows)
    top = found["top_k"]
    assert (top["k"], top["rows"], top["negative_flips"]) == (k, len(rows), flips)
    assert top["accuracy_new"] == pytest.approx(sum(label in ranked(new, k) for label, _, new in rows) / len(rows))
    assert found["checks"][0]["value"] == pytest.approx(flips / len(rows))


@given(SCORES, st.integers(1, 9))
def test_rows_that_both_accept_may_become_wrong(rows, threshold):
    options = {"old_classes": 4, "classes": [*"abcd"], "allow_poor_old": True}
    accepted = [row for row in rows if max(row[1]) >= threshold]
    if not accepted or not any(max(new) >= threshold for *_, new in rows):
        which = "new" if accepted else "old"
        with pytest.raises(
            InputError, match=f"which no answer of the {which} arrays on classes that the old model knows"
        ):
            compare(*tables(rows), threshold=threshold / 10, **options)
        return
    found = compare(*tables(rows), threshold=threshold / 10, **options)["accepted"]
    wrong = sum(
        ranked(old, 1) == [label] and ranked(new, 1) != [label] and max(new) >= threshold
        for label, old, new in accepted
    )
    assert (found["rows"], found["negative_flips"]) == (len(accepted), wrong)
    assert found["rows_new"] == sum(max(new) >= threshold for *_, new in rows)


def test_a_limit_on_accepted_rows():
    labels = np.arange(400) % 2
    sure = np.where(np.arange(2) == labels[:, None], 0.9, 0.1)
    old = {"id": range(400), "label": labels, "scores": sure}
    wrong = np.arange(400)[:, None] < 40
    assert (
        compare(old, old | {"scores": np.where(wrong, 1 - sure, sure)}, threshold=0.8, max_accepted_nfr=0.05)["verdict"]
        == "regression"
    )
    unsure = np.where(wrong, 0.5 + 0.1 * (0.5 - sure), sure)  # wrong too, but not accepted
    assert compare(old, old | {"scores": unsure}, threshold=0.8, max_accepted_nfr=0)["passed"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_top_k_nfr": 0.1}, "max_top_k_nfr is given without top_k; expected --top-k, too"),
        ({"max_accepted_nfr": 0.1}, "max_accepted_nfr is given without threshold"),
        (
            {"top_k": 2},
            "the old arrays has the column 'prediction' and no scores are chosen; expected scores for top_k",
        ),
        ({"threshold": float("nan")}, "threshold is nan; expected a score"),
        (
            {"threshold": 50, "scores": "score", "max_accepted_nfr": 0.1},
            "threshold is 50, which no answer of the old arrays on classes that the old model knows reaches: its "
            "largest scores are 0.6 to 0.9; expected a threshold among these",
        ),
        ({"top_k": -1}, "top_k is -1"),
    ],
)
def test_what_cannot_be_measured_is_one_line(options, message):
    scores = {"score_0": [0.9, 0.4], "score_1": [0.1, 0.6]}
    table = {"id": [1, 2], "label": [0, 1], "prediction": [0, 1], **(scores if "scores" in options else {})}
    with pytest.raises(InputError, match=message):
        compare(table, table, **options)


def test_what_was_measured_on_request_is_shown_and_in_the_schema():
    scores = np.random.default_rng(0).random((60, 4))
    table = {"id": range(60), "label": scores.argmax(-1), "scores": scores}
    found = compare(table, table, top_k=2, threshold=0.5, max_macro_f1_drop=0)
    console = Console(file=io.StringIO(), width=120)
    console.print(show.terminal(found))
    for words in ("mean F1, old -> new", "top-2 NFR", "accepted at 0.5, old / new"):
        assert words in console.file.getvalue()
    schema = json.loads((pathlib.Path(__file__).parents[2] / "docs/gate.schema.json").read_text())
    jsonschema.validate(json.loads(json.dumps(found)), schema)
    found["accepted"].pop("nfr")
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(json.loads(json.dumps(found)), schema)
