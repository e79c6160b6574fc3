"""Further columns: values of any type as text, in batches of any size, and columns of several files made one."""

import datetime
import decimal

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpt_jax.compare import factors
from mpt_jax.compare.factors import MISSING, Factor
from mpt_jax.errors import InputError


def texts(values, batch=2):
    """Return the text of each value, None where it is missing, read in batches."""
    codes_of = {}
    parts = [values[start : start + batch] for start in range(0, len(values) or 1, batch)]
    codes = np.concatenate([factors.encode(part, codes_of, "c", "it") for part in parts])
    return [None if code < 0 else list(codes_of)[code] for code in codes]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (pa.array(["a", "", None, "a", "b"]), ["a", None, None, "a", "b"]),
        (pa.array([b"a", b"caf\xc3\xa9"]), ["a", "café"]),
        (pa.array(["x", None, "y"]).dictionary_encode(), ["x", None, "y"]),
        (pa.array([1, 10, None, 1]), ["1", "10", None, "1"]),
        (pa.array([3.0, 0.1, float("nan"), None]), ["3.0", "0.1", None, None]),
        (pa.array([0.1, 2.5], pa.float32()), ["0.1", "2.5"]),
        (pa.array([True, False, None]), ["True", "False", None]),
        (pa.array([datetime.date(2024, 2, 1)]), ["2024-02-01"]),
        (pa.array([decimal.Decimal("1.50")]), ["1.50"]),
        (pa.nulls(2), [None, None]),
        (np.array(["a", "b", "a"]), ["a", "b", "a"]),
        (np.array([1, 2]), ["1", "2"]),
        (np.array(["a", None, 3.5], object)[:2], ["a", None]),
    ],
)
@pytest.mark.parametrize("batch", [1, 2, 100])
def test_values_of_any_type_are_text(values, expected, batch):
    assert texts(values, batch) == expected


@given(st.lists(st.one_of(st.none(), st.text(st.characters(exclude_categories=["Cs"]), max_size=3))), st.integers(1, 9))
def test_the_text_is_that_of_the_value_whatever_the_batches(values, batch):
    assert texts(pa.array(values, pa.string()), batch) == [value or None for value in values]


def test_values_that_only_a_dictionary_lists_do_not_count():
    listed = pa.DictionaryArray.from_arrays(pa.array([1]), pa.array(list(map(str, range(factors.MOST_VALUES + 1)))))
    assert texts(listed) == ["1"]


def test_many_values_and_lists_are_errors():
    with pytest.raises(InputError, match=r"it: column 'c' has more than 10,000 values, such as '0'; expected a few"):
        texts(pa.array(range(factors.MOST_VALUES + 1)), 1000)
    assert len(set(texts(pa.array(range(factors.MOST_VALUES)), 1000))) == factors.MOST_VALUES
    for bad in (pa.array([[1]]), pa.array([{"a": 1}]), np.zeros((2, 2)), pa.array([b"\xff"])):
        with pytest.raises(InputError, match=r"it: column 'c': .*; expected text, numbers, dates or booleans"):
            texts(bad)


@pytest.mark.parametrize(
    "values", [pa.array(["1.5", " 2 ", "", None]), pa.array([1.5, 2, None, None]), np.array([1.5, 2, np.nan, np.nan])]
)
def test_weights_are_numbers(values):
    np.testing.assert_array_equal(factors.numbers(values, "w", "it"), [1.5, 2, np.nan, np.nan])


def test_text_that_is_no_number_is_no_weight():
    with pytest.raises(InputError, match=r"it: column 'w': .*1,5.*; expected a number in each row"):
        factors.numbers(pa.array(["1,5"]), "w", "it")


COLUMNS = st.lists(st.tuples(*[st.sampled_from([None, "a", "b", "c"])] * 3), min_size=1)


@given(COLUMNS)
def test_columns_of_several_files_become_one(rows):
    parts = []
    for column in zip(*rows, strict=True):
        codes_of = {}
        codes = factors.encode(pa.array(column, pa.string()), codes_of, "c", "it")
        parts.append(Factor(codes, tuple(codes_of)))
    merged, differ = factors.merged(parts)
    given_values = [[value for value in row if value] for row in rows]
    assert differ.tolist() == [i for i, values in enumerate(given_values) if len(set(values)) > 1]
    whole = factors.complete(merged)
    assert [whole.names[code] for code in whole.codes] == [(values or [MISSING])[0] for values in given_values]
    places = np.array([-1, 0])
    assert factors.at(merged, places).codes.tolist() == [-1, merged.codes[0]]


@pytest.mark.parametrize("scale", [0, 2, 4])
def test_a_decimal_is_one_value_in_every_batch(scale):
    """One batch may hold whole numbers alone, and another one fractions too."""
    code_of, texts = {}, ["1", "10", "100", *(["2.5", "0.25"] if scale else [])]
    for batch in (texts[:3], texts):
        numbers = [decimal.Decimal(text).quantize(decimal.Decimal(1).scaleb(-scale)) for text in batch]
        found = factors.encode(pa.array(numbers, pa.decimal128(12, scale)), code_of, "price", "it")
        whole = [str(int(number)) if number == int(number) else str(number) for number in numbers]
        assert [[*code_of][code] for code in found] == whole


def test_zero_is_one_value():
    code_of = {}
    assert factors.encode(np.array([0.0, -0.0, 1.0]), code_of, "x", "it").tolist() == [0, 0, 1]
