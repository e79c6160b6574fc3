"""Agreement without labels, against plain Python."""

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mpt_jax import metrics
from mpt_jax.compare import agreement


def ids(rows):
    return [f"i{row}" for row in rows]


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1), st.integers(0, 5))
def test_every_count_agrees_with_plain_python(rows, examples):
    old, new = map(np.array, zip(*rows, strict=True))
    found = agreement.measure(old, new, classes="abcd", ids=ids, examples=examples)
    changed = Counter((a, b) for a, b in rows if a != b)
    count = sum(changed.values())
    every = found["all_rows"]
    assert (every["count"], every["changed"], every["churn"]) == (len(rows), count, count / len(rows))
    assert every["agreement"] == sum(a == b for a, b in rows) / len(rows)
    assert tuple(every["intervals"]["churn"]) == metrics.wilson_interval(count, len(rows))
    order = sorted(changed, key=lambda kind: (-changed[kind], kind))
    assert found["changes"] == {
        "kinds": len(changed),
        "most_frequent": [
            {"old": "abcd"[a], "new": "abcd"[b], "count": changed[a, b], "share": changed[a, b] / len(rows)}
            for a, b in order[:examples]
        ],
    }
    examples_of = [{"id": f"i{i}", "old": "abcd"[a], "new": "abcd"[b]} for i, (a, b) in enumerate(rows) if a != b]
    assert found["changed"] == {"count": count, "examples": examples_of[:examples]}
    for row in found["per_class"]:
        c = "abcd".index(row["class"])
        assert row["rows_old"] == sum(a == c for a, _ in rows) and row["rows_new"] == sum(b == c for _, b in rows)
        assert row["left"] == sum(a == c != b for a, b in rows) and row["joined"] == sum(b == c != a for a, b in rows)
    assert sum(row["rows_old"] for row in found["per_class"]) == len(rows)


def test_the_interval_of_the_agreement_is_that_of_the_churn_turned_round():
    found = agreement.rates(30, 100, 0.95)["intervals"]
    assert found["agreement"] == [1 - found["churn"][1], 1 - found["churn"][0]]
    assert found["agreement"][0] < 0.7 < found["agreement"][1] and found["churn"][0] < 0.3 < found["churn"][1]
