"""Maps of classes: which are refused, the matrix that follows from one, its groups, and maps in sequence."""

import re

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.sparse.csgraph import connected_components

from mpt_jax.class_map import ClassMap, carried_over, compose, groups, matrix, parse, targets
from mpt_jax.errors import InputError

OLD = ["tabby", "siamese", "dog", "car", "floppy disk", "owl"]
GIVEN = {
    "rename": {"car": "automobile"},
    "merge": {"cat": ["tabby", "siamese"]},
    "split": {"dog": ["puppy", "adult dog"]},
    "retire": ["floppy disk"],
}


@st.composite
def maps(draw, old, names):
    """Draw a map of classes whose new names are the next of `names`, or that of a class which changes."""
    fresh = iter(names)
    rename, merge, split, retire = {}, {}, {}, []
    left = draw(st.permutations(old))
    while left:
        kind = draw(st.sampled_from(["stay", "rename", "merge", "split", "retire"]))
        keeps_name = draw(st.booleans())
        if kind == "merge" and len(left) > 1:
            members = [left.pop() for _ in range(draw(st.integers(2, len(left))))]
            merge[members[0] if keeps_name else next(fresh)] = tuple(members)
            continue
        name = left.pop()
        if kind == "rename":
            rename[name] = next(fresh)
        elif kind == "split":
            parts = [next(fresh) for _ in range(draw(st.integers(2, 3)))]
            split[name] = (*([name] if keeps_name else []), *parts)
        elif kind == "retire":
            retire.append(name)
    assume(len(retire) < len(old))
    return ClassMap(rename, merge, split, tuple(retire))


CLASSES = st.integers(1, 6).map(lambda count: [f"old {place}" for place in range(count)])
FIRST = [f"first {place}" for place in range(40)]
SECOND = [f"second {place}" for place in range(400)]


def test_each_kind_of_change_has_its_row_of_the_matrix():
    found = parse(GIVEN)
    new = ["owl", "cat", "puppy", "adult dog", "automobile", "fox"]
    expected = {
        **{"tabby": {"cat"}, "siamese": {"cat"}, "dog": {"puppy", "adult dog"}},
        **{"car": {"automobile"}, "floppy disk": set(), "owl": {"owl"}},
    }
    rows = matrix(found, OLD, new)
    assert {old: {new[j] for j in np.flatnonzero(row)} for old, row in zip(OLD, rows, strict=True)} == expected
    assert [new[j] for j in np.flatnonzero(~rows.any(0))] == ["fox"]
    assert carried_over(found, OLD) == ["cat", "puppy", "adult dog", "automobile", "owl"]
    assert parse(found.as_dict()) == found and parse(found) is found


def test_a_class_may_keep_its_name_when_it_becomes_wider_or_narrower():
    found = parse({"merge": {"cat": ["cat", "kitten"]}, "split": {"dog": ["dog", "puppy"]}})
    assert targets(found, ["cat", "kitten", "dog"]) == [("cat",), ("cat",), ("dog", "puppy")]


@given(CLASSES.flatmap(lambda old: st.tuples(st.just(old), maps(old, FIRST))), st.randoms(use_true_random=False))
def test_the_matrix_has_the_entries_that_the_map_describes(drawn, random):
    old, found = drawn
    new = [*carried_over(found, old), "another", "one more"]
    random.shuffle(new)
    a = matrix(found, old, new)
    for i, name in enumerate(old):
        for j, label in enumerate(new):
            expected = (
                found.rename.get(name) == label
                or name in found.merge.get(label, ())
                or label in found.split.get(name, ())
                or (name == label and name not in found.changed())
            )
            assert a[i, j] == expected
    assert {new[j] for j in np.flatnonzero(~a.any(0))} == {"another", "one more"}
    assert {old[i] for i in np.flatnonzero(~a.any(1))} == set(found.retire)


@given(st.integers(1, 7), st.integers(1, 7), st.integers(0, 2**32 - 1), st.floats(0, 1))
def test_groups_are_the_connected_blocks(rows, columns, seed, density):
    a = np.random.default_rng(seed).random((rows, columns)) < density
    graph = np.zeros((rows + columns, rows + columns), bool)
    graph[:rows, rows:] = a
    _, component = connected_components(graph, directed=False)
    of_old, of_new = groups(a)
    found = np.concatenate([of_old, of_new])
    alone = np.concatenate([~a.any(1), ~a.any(0)])
    np.testing.assert_array_equal(found < 0, alone)
    same = component[:, None] == component
    np.testing.assert_array_equal((found[:, None] == found)[~alone][:, ~alone], same[~alone][:, ~alone])
    assert sorted(set(found[~alone])) == list(range(len(set(component[~alone]))))
    assert [*dict.fromkeys(of_old[of_old >= 0])] == sorted({*of_old[of_old >= 0]})  # in the order of the old classes


@settings(max_examples=200)
@given(st.data())
def test_maps_in_sequence_compose_to_the_product_of_their_matrices(data):
    old = data.draw(CLASSES)
    first = data.draw(maps(old, FIRST))
    between = [*carried_over(first, old), "added"]
    second = data.draw(maps(between, SECOND))
    new = [*carried_over(second, between), "last"]
    product = matrix(first, old, between).astype(int) @ matrix(second, between, new) > 0
    # Writable as one map: of two old classes that become one, neither becomes another as well.
    shared = product[:, product.sum(0) > 1]
    writable = product.any() and not np.any(shared.any(1) & (product.sum(1) > 1))
    if not writable:
        with pytest.raises(InputError):
            targets(compose(first, second, old), old)
        return
    np.testing.assert_array_equal(matrix(compose(first, second, old), old, new), product)


def test_the_composite_is_as_short_as_the_change():
    there, back = ClassMap(rename={"car": "auto"}), ClassMap(rename={"auto": "car"})
    assert compose(there, back, ["car", "owl"]) == ClassMap()
    split, merged = ClassMap(split={"dog": ("puppy", "adult")}), ClassMap(merge={"hound": ("puppy", "adult")})
    assert compose(split, merged, ["dog"]) == ClassMap(rename={"dog": "hound"})
    added = ClassMap(merge={"cat": ("cat", "manx")})  # "manx" is new in between
    assert compose(ClassMap(), added, ["cat", "owl"]) == ClassMap()


def test_a_composite_that_is_neither_merge_nor_split_is_refused():
    first = ClassMap(split={"dog": ("puppy", "adult")})
    second = ClassMap(merge={"young": ("puppy", "kitten")})
    with pytest.raises(InputError, match="'dog', 'kitten' become 'young', and 'dog' also 'adult'; that is no merge"):
        compose(first, second, ["dog", "kitten"])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["car"], "class_map is ['car']; expected a mapping such as"),
        ({"renames": {}}, "class_map: unknown key 'renames'; did you mean 'rename'?"),
        ({"rename": ["car"]}, "rename is ['car']; expected names by name"),
        ({"rename": {"car": ["auto"]}}, "rename of 'car' has ['auto']; expected the name of a class"),
        ({"rename": {"car": ""}}, "rename of 'car' has ''; expected the name of a class"),
        ({"merge": {"cat": "tabby"}}, "merge of 'cat' is 'tabby'; expected a list of names"),
        ({"retire": "disk"}, "retire is 'disk'; expected a list of names"),
        ({"retire": [True]}, "retire has True; expected the name of a class"),
        ({"rename": {"car": "car"}}, "rename of 'car' to itself; expected another name"),
        ({"merge": {"cat": ["tabby"]}}, "merge of 'cat' is ['tabby']; expected two or more old classes, or rename"),
        ({"split": {"dog": []}}, "split of 'dog' is []; expected two or more new classes"),
        ({"rename": {"car": "auto"}, "retire": ["car"]}, "old class 'car' is given twice; expected each in one of"),
        ({"merge": {"cat": ["tabby", "tabby"]}}, "old class 'tabby' is given twice"),
        ({"rename": {"a": "c", "b": "c"}}, "new class 'c' is given twice; expected each once: several old classes"),
        ({"split": {"dog": ["pup", "pup"]}}, "new class 'pup' is given twice"),
        ({"rename": {"a": "b", "b": "a"}}, "is a cycle, so that no label shows which class is meant"),
        ({"rename": {"a": "b"}, "split": {"b": ["a", "c"]}}, "'a' -> 'b' -> 'a' is a cycle"),
    ],
)
def test_entries_that_contradict_each_other_are_refused_in_one_line(given, message):
    with pytest.raises(InputError, match=re.escape(message)) as error:
        parse(given)
    assert "\n" not in str(error.value) and str(error.value).startswith("class_map")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"retire": ["flopy disk"]}, "unknown old class 'flopy disk' in the class map; did you mean 'floppy disk'?"),
        ({"rename": {"car": "owl"}}, "new class 'owl' of the class map is also an old class that stays"),
        ({"merge": {"dog": ["tabby", "siamese"]}}, "expected another name, or 'dog' among the classes that are merged"),
        ({"retire": OLD}, "the class map retires all classes; expected one that stays"),
    ],
)
def test_maps_that_do_not_fit_the_old_classes_are_refused(given, message):
    with pytest.raises(InputError, match=re.escape(message)):
        targets(parse(given), OLD)


@pytest.mark.parametrize(
    ("new", "message"),
    [
        (
            ["automobile", "cat", "puppy", "owl"],
            "old class 'dog' becomes 'adult dog' by the class map and is not among",
        ),
        (["automobile", "cat", "puppy", "adult dog"], "old class 'owl' stays by the class map and is not among"),
        (
            ["automobile", "cat", "puppy", "adult dog", "owl", "car"],
            "'car' is among the new classes, and by the class map no old class becomes it",
        ),
    ],
)
def test_new_classes_that_do_not_fit_the_map_are_refused(new, message):
    with pytest.raises(InputError, match=message):
        matrix(parse(GIVEN), OLD, new)
