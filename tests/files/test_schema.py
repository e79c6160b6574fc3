"""A JSON document holds what is expected, or the first difference is named."""

import json
import string

import pytest
import strange_files
from hypothesis import given
from hypothesis import strategies as st

from mpt_jax.errors import InputError
from mpt_jax.files import schema

CARD = {
    **{"seed": int, "name": str, "metrics": {...: (float, None)}, "classes": [str], "note?": str},
    **{"choice?": ({"chosen": int, "tried": [{"nfr": float}]}, None), "objective": dict, "more": list, "good?": bool},
}
GOOD = {
    **{"seed": 0, "name": "a", "metrics": {"nfr": 0.5, "churn": None, "count": 3}, "classes": ["a", "b"]},
    **{"choice": {"chosen": 0, "tried": [{"nfr": 0.1}]}, "objective": {"a": [1]}, "more": [1, "a"], "unknown": [None]},
}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ""),
        ({"choice": None}, ""),
        ({"good": False}, ""),
        ({"seed": "0"}, "seed is '0'; expected an integer"),
        ({"seed": True}, "seed is True; expected an integer"),
        ({"seed": 1.0}, "seed is 1.0; expected an integer"),
        ({"good": 0}, "good is 0; expected true or false"),
        ({"name": None}, "name is None; expected text"),
        ({"note": 3}, "note is 3; expected text"),
        ({"metrics": {"nfr": float("nan")}}, "metrics.nfr is nan; expected a finite number or null"),
        ({"metrics": {"nfr": 10**400}}, None),
        ({"metrics": []}, "metrics is []; expected an object"),
        ({"classes": {}}, "classes is {}; expected a list"),
        ({"classes": ["a", 1]}, "classes[1] is 1; expected text"),
        ({"objective": []}, "objective is []; expected an object"),
        ({"more": {}}, "more is {}; expected a list"),
        ({"choice": {"chosen": 0}}, "it has no choice.tried"),
        ({"choice": {"chosen": 0, "tried": [{}]}}, "it has no choice.tried[0].nfr"),
        ({"choice": 3}, "choice is 3; expected an object or null"),
    ],
)
def test_the_first_difference_is_named(changes, expected):
    found = schema.fault({**GOOD, **changes}, CARD)
    assert found == expected if expected is not None else found


def test_a_missing_key_and_another_value_are_named():
    assert schema.fault({key: GOOD[key] for key in GOOD if key != "classes"}, CARD) == "it has no classes"
    assert schema.fault([], CARD) == "it is []; expected an object"
    assert schema.fault("x" * 500, int) == f"it is '{'x' * 79}...; expected an integer"


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(string.printable, max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b", "c"]), inner, max_size=3),
    max_leaves=8,
)


def shape(value):
    """Return the narrowest schema of a value."""
    if isinstance(value, dict):
        return {key: shape(item) for key, item in value.items()}
    if isinstance(value, list):
        return [tuple(map(shape, value)) or str]
    return None if value is None else float if isinstance(value, float) else type(value)


@given(VALUES)
def test_a_value_has_its_own_shape_unless_a_number_in_it_is_not_finite(value):
    strict = json.dumps(value).replace("-Infinity", "NaN").replace("Infinity", "NaN")
    assert bool(schema.fault(value, shape(value))) <= ("NaN" in strict)


@given(VALUES, VALUES)
def test_a_value_that_has_the_shape_of_another_has_its_types(value, other):
    if not schema.fault(value, shape(other)):
        assert (value is None) == (other is None) and isinstance(value, dict) == isinstance(other, dict)
        assert not isinstance(other, dict) or other.keys() <= value.keys()
        assert isinstance(value, bool) == isinstance(other, bool)


@pytest.mark.parametrize("kind", [kind for kind in strange_files.KINDS if kind != "link"])
def test_what_is_no_document_is_one_error(tmp_path, kind):
    strange_files.put(tmp_path / "card.json", kind)
    with pytest.raises(
        InputError, match=r"card\.json is (missing or unreadable \(.+\)|damaged: it is None; expected an)"
    ):
        schema.read(tmp_path / "card.json")


def test_a_document_in_a_bucket_is_read_up_to_a_limit(bucket, monkeypatch):
    (bucket / "a.json").write_text('{"a": 1}')
    assert schema.read(bucket / "a.json", {"a": int}) == {"a": 1}
    with pytest.raises(InputError, match="a is 1; expected text"):
        schema.read(bucket / "a.json", {"a": str})
