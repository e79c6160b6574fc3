import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpt_jax.data.classes import class_order
from mpt_jax.errors import InputError

NAMES = ["cat", "dog", "owl", "emu"]


def test_natural_and_seeded_orders():
    assert class_order("natural", NAMES) == (0, 1, 2, 3)
    names = [str(i) for i in range(100)]
    order = class_order("seed:1993", names)
    # The order of CIFAR-100 that class-incremental learning has used for years starts like this.
    assert order[:10] == (68, 56, 78, 8, 23, 84, 90, 65, 74, 76)
    assert sorted(order) == list(range(100))
    assert class_order("seed:0", names) != order


@given(st.permutations(range(4)), st.integers(1, 4))
def test_lists_of_indices_names_and_text_are_equivalent(order, length):
    order = tuple(order[:length])
    names = [NAMES[index] for index in order]
    assert class_order(order, NAMES) == class_order(list(order), NAMES) == order
    assert class_order(np.array(order).tolist(), NAMES) == order
    assert class_order(tuple(names), NAMES) == class_order(", ".join(names), NAMES) == order
    assert class_order(",".join(map(str, order)), NAMES) == order
    assert class_order([names[0], *order[1:]], NAMES) == order
    assert all(type(index) is int for index in class_order([np.int64(index) for index in order], NAMES))


def test_text_is_a_name_rather_than_an_index():
    names = ["1", "2", "0"]
    assert class_order("0,1", names) == (2, 0)
    assert class_order([0, 1], names) == (0, 1)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ([0, 2, 0], "class 'cat' (index 0) more than once"),
        ("dog,cat,1", "class 'dog' (index 1) more than once"),
        ("natrual", "no class 'natrual'; expected 'natural', 'seed:N' or classes; did you mean natural?"),
        (["cat", "dgo"], "did you mean dog"),
        ("xyzzy", "the classes are cat, dog, owl, emu"),
        ([0, 4], "index 4; expected 0 to 3"),
        ([-1], "index -1; expected 0 to 3"),
        ("-1", "index -1; expected 0 to 3"),
        ("seed:", "expected seed:N"),
        ("seed:x", "expected seed:N"),
        ("seed:-3", "expected seed:N"),
        ("seed:4294967296", "expected seed:N"),
        ([1.0], "1.0; expected a class name"),
        ([True, 2], "True; expected a class name"),
        ([], "expected 'natural', 'seed:N' or a list"),
        (7, "expected 'natural', 'seed:N' or a list"),
        (None, "expected 'natural', 'seed:N' or a list"),
        ("", "dataset.class_order"),
    ],
)
def test_errors_name_the_key_and_the_fault(spec, expected):
    with pytest.raises(InputError) as caught:
        class_order(spec, NAMES)
    text = str(caught.value)
    assert expected in text and text.startswith("dataset.class_order") and "\n" not in text


def test_a_final_ellipsis_stands_for_all_other_classes_in_natural_order():
    names = ["cat", "dog", "owl", "ant", "emu"]
    assert class_order(["owl", "cat", "..."], names) == (2, 0, 1, 3, 4)
    assert class_order("owl, cat, ...", names) == (2, 0, 1, 3, 4)
    assert class_order("...", names) == (0, 1, 2, 3, 4)
    assert class_order([*names, "..."], names) == (0, 1, 2, 3, 4)
    assert class_order(["1", "..."], ["0", "2", "1"]) == (2, 0, 1)  # "1" is a name here
    assert class_order(["b", "..."], ["...", "b"]) == (1, 0)  # a class may be named "..."
    for spec in (["...", "cat"], "cat,...,dog", ["...", "..."]):
        with pytest.raises(InputError, match="at the end"):
            class_order(spec, names)
    with pytest.raises(InputError, match="more than once"):
        class_order(["cat", "cat", "..."], names)
