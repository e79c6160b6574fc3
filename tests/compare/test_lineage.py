"""What a chain of versions lost, against plain Python."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from mpt_jax import metrics
from mpt_jax.compare import lineage, pairs
from mpt_jax.errors import InputError

ROW = st.tuples(st.integers(0, 3), *[st.integers(0, last) for last in (1, 2, 3)])


@given(st.lists(ROW, min_size=1), st.integers(0, 3))
def test_what_is_lost_from_any_agrees_with_plain_python(rows, examples):
    labels, *predictions = zip(*rows, strict=True)
    assume(any(label < 2 for label in labels))
    ids = [f"i{i}" for i in range(len(rows))]
    tables = [
        {"id": ids, "label": labels, "prediction": each, "class_names": list("abcd")[:known]}
        for each, known in zip(predictions, (2, 3, 4), strict=True)
    ]
    versions = pairs.read_versions(tables, classes=list("abcd"))
    compared = [pairs.pair(versions, *step) for step in lineage.against_ancestors(3)]
    found = lineage.lost_from_any(compared, confidence=0.9, examples=examples)
    lost = [i for i, (y, first, second, last) in enumerate(rows) if y in (first, second) and y != last]
    known = sum(label < 3 for label in labels)
    assert (found["rows"], found["count"], found["rate"]) == (known, len(lost), len(lost) / known)
    assert tuple(found["interval"]) == metrics.wilson_interval(len(lost), known, confidence=0.9)
    names = ["the version 1 arrays", "the version 2 arrays"]
    assert found["examples"] == [
        {
            "id": ids[i],
            "label": "abcd"[rows[i][0]],
            "right_in": [name for name, given_ in zip(names, rows[i][1:3], strict=True) if given_ == rows[i][0]],
            "new": "abcd"[rows[i][3]],
        }
        for i in lost[:examples]
    ]


def test_steps_and_ancestors():
    assert lineage.steps(4) == [(0, 1), (1, 2), (2, 3)] and lineage.against_ancestors(4) == [(0, 3), (1, 3), (2, 3)]
    with pytest.raises(InputError, match="a chain has 1 version; expected two or more"):
        lineage.steps(1)


def test_a_row_counts_if_any_version_knows_its_class():
    first = {"id": [1, 2], "label": ["cat", "dog"], "prediction": ["cat", "cat"]}
    second, third = first | {"prediction": ["cat", "dog"]}, first | {"prediction": ["cat", "cat"]}
    versions = pairs.read_versions([first, second, third])
    compared = [pairs.pair(versions, *step) for step in lineage.against_ancestors(3)]
    found = lineage.lost_from_any(compared, confidence=0.95, examples=1)
    assert (found["rows"], found["count"]) == (2, 1) and np.isclose(found["rate"], 0.5)


@given(st.lists(st.tuples(ROW, st.integers(0, 5)), min_size=1))
def test_with_weights_the_rate_is_a_share_of_weight(weighted_rows):
    rows, weights = zip(*weighted_rows, strict=True)
    labels, *predictions = zip(*rows, strict=True)
    assume(sum(weight for label, weight in zip(labels, weights, strict=True) if label < 2) > 0)
    tables = [
        {"id": range(len(rows)), "label": labels, "prediction": each, "class_names": list("abcd")[:known], "w": weights}
        for each, known in zip(predictions, (2, 3, 4), strict=True)
    ]
    versions = pairs.read_versions(tables, classes=list("abcd"), weight="w")
    compared = [pairs.pair(versions, *step) for step in lineage.against_ancestors(3)]
    found = lineage.lost_from_any(compared, confidence=0.9, examples=0)
    known = [weight for label, weight in zip(labels, weights, strict=True) if label < 3]
    lost = [w for (y, first, second, last), w in zip(rows, weights, strict=True) if y in (first, second) and y != last]
    assert (found["rows"], found["count"]) == (len(known), len(lost))
    assert np.isclose(found["rate"], sum(lost) / sum(known))
    effective = sum(known) ** 2 / sum(weight**2 for weight in known)
    assert np.allclose(found["interval"], metrics.wilson_interval(found["rate"] * effective, effective, confidence=0.9))
