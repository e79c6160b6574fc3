"""Two models of different classes are compared in those of the new one, as by hand."""

import json
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpt_jax.class_map import ClassMap
from mpt_jax.compare import chain, compare, suggest_class_map
from mpt_jax.errors import InputError
from mpt_jax.files.predictions import released

OLD = ["tabby", "siamese", "dog", "car", "floppy disk", "owl"]
NEW = ["cat", "puppy", "adult dog", "automobile", "owl", "fox"]
MAP = {
    "rename": {"car": "automobile"},
    "merge": {"cat": ["tabby", "siamese"]},
    "split": {"dog": ["puppy", "adult dog"]},
    "retire": ["floppy disk"],
}
STANDS_FOR = {
    **{"tabby": {"cat"}, "siamese": {"cat"}, "dog": {"puppy", "adult dog"}},
    **{"car": {"automobile"}, "floppy disk": set(), "owl": {"owl"}},
}
ANYTHING = {"allow_poor_old": True}
ROWS = st.lists(
    st.tuples(st.sampled_from([*NEW, "floppy disk"]), st.sampled_from(OLD), st.sampled_from(NEW)),
    min_size=1,
    max_size=30,
)


def files(rows, **more):
    """Return both models' predictions of rows of a new label and two answers."""
    ids = list(range(len(rows)))
    labels, old, new = ([row[column] for row in rows] for column in range(3))
    known = {"class_names": OLD}, {"class_names": NEW}
    return [
        {"id": ids, "label": labels, "prediction": each, **names, **more}
        for each, names in zip((old, new), known, strict=True)
    ]


def without_record(result):
    return {key: value for key, value in result.items() if key not in ("inputs", "options", "versions", "class_map")}


@settings(max_examples=50, deadline=None)
@given(ROWS)
def test_what_counts_is_what_the_old_answers_stand_for(rows):
    kept = [(label, old, new) for label, old, new in rows if label != "floppy disk"]
    known = [row for row in kept if row[0] != "fox"]
    if not known:
        with pytest.raises(InputError):
            compare(*files(rows), class_map=MAP, **ANYTHING)
        return
    result = compare(*files(rows), class_map=MAP, **ANYTHING)
    for part, chosen in (("all_rows", kept), ("old_classes_rows", known)):
        found = result[part]
        right = [label in STANDS_FOR[old] for label, old, _ in chosen]
        now = [label == new for label, _, new in chosen]
        lost = [a and not b for a, b in zip(right, now, strict=True)]
        gained = [b and not a for a, b in zip(right, now, strict=True)]
        same = [
            (a and b) or (not a and not b and row[2] in STANDS_FOR[row[1]])
            for a, b, row in zip(right, now, chosen, strict=True)
        ]
        assert found["count"] == len(chosen)
        assert (found["negative_flips"], found["positive_flips"]) == (sum(lost), sum(gained))
        assert found["churn"] == pytest.approx(1 - np.mean(same))
        assert found["btc"] == pytest.approx(
            np.mean([b for a, b in zip(right, now, strict=True) if a]) if any(right) else 0
        )
        # The identity that a map must keep.
        assert found["error_new"] - found["error_old"] == pytest.approx(found["nfr"] - found["pfr"])
    assert sum(row["negative_flips"] for row in result["per_class"]) == result["all_rows"]["negative_flips"]
    retired = len(rows) - len(kept)
    assert result["left_out"] == ({"rows of retired classes": retired} if retired else {})
    coarse = [label == new or any({label, new} <= labels for labels in STANDS_FOR.values()) for label, _, new in known]
    lost = [label in STANDS_FOR[old] and not right for (label, old, _), right in zip(known, coarse, strict=True)]
    assert result["old_taxonomy"]["negative_flips"] == sum(lost)
    assert result["old_taxonomy"]["accuracy_new"] == pytest.approx(np.mean(coarse))
    (split,) = result["class_map"]["split"]
    dogs = [row for row in known if row[0] in STANDS_FOR["dog"]]
    assert split["rows"] == len(dogs) and split["parts"] == ["adult dog", "puppy"]
    assert split["negative_flips"] == sum(old == "dog" and new != label for label, old, new in dogs)
    assert split["old_taxonomy"]["negative_flips"] == sum(
        old == "dog" and new not in STANDS_FOR["dog"] for _, old, new in dogs
    )
    for each in result["flips"]["examples"]:  # as the models gave them
        assert (each["label"], each["old"], each["new"]) == rows[int(each["id"])]
    assert json.loads(json.dumps(result, allow_nan=False)) == result


def relabelled(table, names):
    return {
        **table,
        **{key: [names.get(each, each) for each in table[key]] for key in ("label", "prediction")},
        "class_names": list(dict.fromkeys(names.get(each, each) for each in table["class_names"])),
    }


def as_by_hand(rows, class_map, names, old_classes, **options):
    """Require the result that relabelling the old files by hand gives, apart from the old model's own names."""
    ids = list(range(len(rows)))
    old = {
        "id": ids,
        "label": [old_classes[a] for a, _, _ in rows],
        "prediction": [old_classes[b] for _, b, _ in rows],
        "class_names": old_classes,
    }
    new = relabelled(old | {"prediction": [old_classes[c] for _, _, c in rows]}, names)
    expected = without_record(compare(relabelled(old, names), new, **options, **ANYTHING))
    for labels in (old["label"], new["label"]):  # those of the file may be old or new ones
        found = without_record(compare(old | {"label": labels}, new, class_map=class_map, **options, **ANYTHING))
        coarse = found.pop("old_taxonomy")
        assert coarse["negative_flips"] == found["old_classes_rows"]["negative_flips"]
        for each, by_hand in zip(found["flips"]["examples"], expected["flips"]["examples"], strict=True):
            assert each.pop("old") in [name for name in old_classes if names.get(name, name) == by_hand["old"]]
        without_old = [{k: v for k, v in each.items() if k != "old"} for each in expected["flips"]["examples"]]
        assert found["flips"]["examples"] == without_old
        never = [found["never_labels"].pop("old"), dict(expected["never_labels"]).get("old")]
        counts = {}
        for each in never[0]:
            shown = names.get(each["class"], each["class"])
            counts[shown] = counts.get(shown, 0) + each["rows"]
        assert counts == {each["class"]: each["rows"] for each in never[1]}
        assert found | {"flips": 0, "never_labels": 0} == expected | {"flips": 0, "never_labels": 0}
        assert found["never_labels"]["new"] == expected["never_labels"]["new"]


TRIPLES = st.lists(st.tuples(*[st.integers(0, 4)] * 3), min_size=1, max_size=25)
LIMITS = {"max_nfr": 0.2, "max_class_nfr": 0.3, "max_churn": 0.5, "max_accuracy_drop": 0.1, "min_accuracy": 0.5}


@settings(max_examples=15, deadline=None)
@given(TRIPLES, st.permutations(range(5)))
def test_a_rename_of_all_classes_is_the_same_as_relabelling_by_hand(rows, order):
    old_classes = [f"old {place}" for place in range(5)]
    names = {name: f"new {place}" for name, place in zip(old_classes, order, strict=True)}
    as_by_hand(rows, {"rename": names}, names, old_classes, **LIMITS, min_macro_f1=0.3, max_macro_f1_drop=0.2)


@settings(max_examples=15, deadline=None)
@given(TRIPLES, st.integers(2, 3))
def test_a_merge_of_all_classes_into_two_is_the_same_as_relabelling_by_hand(rows, size):
    old_classes = [f"old {place}" for place in range(5)]
    merge = {"low": old_classes[:size], "high": old_classes[size:]}
    names = {old: new for new, members in merge.items() for old in members}
    as_by_hand(rows, {"merge": merge}, names, old_classes, **LIMITS, min_macro_f1=0.3, max_macro_f1_drop=0.2)


@settings(max_examples=15, deadline=None)
@given(ROWS)
def test_a_map_without_entries_changes_nothing(rows):
    old, new = files([row for row in rows if row[0] != "floppy disk"] or [("owl", "owl", "owl")])
    old = old | {"class_names": NEW, "prediction": [name if name in NEW else "owl" for name in old["prediction"]]}
    try:
        expected = without_record(compare(old, new, **LIMITS, **ANYTHING))
    except InputError as error:
        with pytest.raises(InputError, match=re.escape(str(error))):
            compare(old, new, class_map={}, **LIMITS, **ANYTHING)
        return
    found = without_record(compare(old, new, class_map={}, **LIMITS, **ANYTHING))
    found.pop("old_taxonomy")
    assert found == expected


def test_slices_weights_scores_and_chosen_examples_follow_the_map():
    rows = [("cat", "tabby", "cat"), ("puppy", "dog", "adult dog"), ("owl", "car", "owl"), ("automobile", "car", "owl")]
    old, new = files([*rows, ("floppy disk", "owl", "owl")], where=["a", "b", "a", "b", "b"], share=[1, 2, 3, 4, 5])
    result = compare(
        *(old, new), class_map=MAP, slices=["where"], weight="share", must_pass=["1", "2"], max_old_taxonomy_nfr=0.3
    )
    found = {row["value"]: (row["rows"], row["negative_flips"]) for row in result["slices"]}
    assert found == {"a": (2, 0), "b": (2, 2)}
    assert result["all_rows"]["nfr"] == pytest.approx(6 / 10) and result["all_rows"]["count"] == 4
    assert result["old_taxonomy"]["nfr"] == pytest.approx(4 / 10)
    assert [each["id"] for each in result["must_pass"]["flips"]] == ["1"]
    check = next(each for each in result["checks"] if each["limit"] == "max_old_taxonomy_nfr")
    assert check["value"] == pytest.approx(4 / 10)
    with pytest.raises(
        InputError, match=r"1 row of .* with no label, or one of a retired class: '4'; expected one for"
    ):
        compare(old, new, class_map=MAP, must_pass=["4"])


def test_the_largest_scores_count_for_the_label_that_they_stand_for():
    old = {
        "id": [1, 2],
        "label": ["cat", "owl"],
        "scores": [[0.1, 0.3, 0.6, 0, 0, 0], [0, 0, 0.5, 0.4, 0, 0.1]],
        "class_names": OLD,
    }
    new = {"id": [1, 2], "label": ["cat", "owl"], "scores": [[0.1, 0.9, 0.0, 0, 0, 0], [0, 0, 0, 0.1, 0.9, 0]]}
    found = compare(old, new | {"class_names": NEW}, class_map=MAP, top_k=2, allow_poor_old=True)["top_k"]
    assert (found["both_right"], found["positive_flips"]) == (1, 1)  # siamese is second: a cat


def test_ties_are_judged_in_the_new_classes():
    old = {"id": [1, 2], "label": ["cat", "owl"], "scores": [[0.5, 0, 0.5, 0, 0, 0]] * 2, "class_names": OLD}
    new = {"id": [1, 2], "label": ["cat", "owl"], "prediction": ["owl", "owl"], "class_names": NEW}
    result = compare(old, new, class_map=MAP, max_nfr=0.0, allow_poor_old=True)
    assert result["ties"] == {"rows": 2, "could_change": ["max_nfr"]} and result["flips"]["count"] == 0


def test_in_a_chain_maps_compose_and_all_versions_are_judged_by_the_last_labels():
    first = {"rename": {"car": "auto"}, "split": {"dog": ["puppy", "adult"]}}
    second = {"merge": {"vehicle": ["auto", "bus"]}, "rename": {"puppy": "pup"}, "retire": ["disk"]}
    ids, labels = [1, 2, 3, 4, 5], ["vehicle", "pup", "adult", "vehicle", "disk"]
    v1 = {"id": ids, "label": labels, "prediction": ["car", "dog", "dog", "bus", "disk"]}
    v2 = v1 | {"prediction": ["auto", "puppy", "puppy", "disk", "disk"]}
    v3 = v1 | {"prediction": ["vehicle", "adult", "adult", "pup", "pup"]}
    result = chain([v1, v2, v3], class_map=[first, second])
    assert [each["flips"]["count"] for each in result["steps"]] == [2, 1]
    assert [each["flips"]["count"] for each in result["against_ancestors"]] == [2, 1]
    lost = result["lost_from_any"]
    assert (lost["rows"], lost["count"]) == (4, 2)
    assert [(each["id"], each["label"], each["new"]) for each in lost["examples"]] == [
        ("2", "pup", "adult"),
        ("4", "vehicle", "pup"),
    ]
    assert [each["old"] for each in result["steps"][0]["flips"]["examples"]] == ["dog", "bus"]
    assert result["steps"][0]["left_out"] == {"rows of retired classes": 1}
    assert [each["maps"] for each in (step["class_map"] for step in result["steps"])] == [[first, second], [second]]
    assert json.loads(json.dumps(result, allow_nan=False)) == result


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["x", "y"]), *[st.integers(0, 3)] * 3), min_size=1, max_size=20))
def test_a_chain_of_renamed_versions_is_that_of_relabelled_ones(rows):
    columns = list(zip(*rows, strict=True))
    last = ["x", "y", "z", "w"]
    names = [[f"{name}{release}" for name in last] for release in range(2)] + [last]
    versions = [
        {
            "id": list(range(len(rows))),
            "label": columns[0],
            "prediction": [names[k][i] for i in columns[k + 1]],
            "class_names": names[k],
        }
        for k in range(3)
    ]
    maps = [{"rename": dict(zip(names[k], names[k + 1], strict=True))} for k in range(2)]
    by_hand = [
        each | {"prediction": [last[i] for i in columns[k + 1]], "class_names": last} for k, each in enumerate(versions)
    ]
    found, expected = chain(versions, class_map=maps, **ANYTHING), chain(by_hand, **ANYTHING)
    assert found["lost_from_any"] == expected["lost_from_any"]
    for key in ("steps", "against_ancestors"):
        assert [each["all_rows"] for each in found[key]] == [each["all_rows"] for each in expected[key]]


PAIR = files([("cat", "tabby", "cat"), ("puppy", "dog", "puppy"), ("automobile", "car", "owl")])


@pytest.mark.parametrize(
    ("class_map", "change", "message"),
    [
        ([MAP, MAP], {}, "class_map has 2 maps for 2 versions; expected 1, one for each step in order"),
        (
            {"retire": ["flopy disk"]},
            {},
            "unknown old class 'flopy disk' in the class map; did you mean 'floppy disk'?",
        ),
        (
            MAP | {"rename": {}},
            {},
            "the new arrays does not know the class 'car', which stays or results by the class map",
        ),
        (MAP, {"class_names": [*NEW, "car"]}, "has the class 'car', which becomes 'automobile' by the class map"),
        (MAP, {"class_names": [*NEW, "floppy disk"]}, "has the class 'floppy disk', which is retired by the class map"),
        (MAP, {"class_names": NEW[1:]}, "does not know the class 'cat', which stays or results by the class map"),
        ("missing.toml", {}, "missing.toml: no such file; expected a class map in TOML or JSON"),
        ({"rename": {"car": "owl"}}, {}, "new class 'owl' of the class map is also an old class that stays"),
    ],
)
def test_maps_that_do_not_fit_the_files_are_refused_in_one_line(class_map, change, message):
    with pytest.raises(InputError, match=re.escape(message)) as error:
        compare(PAIR[0], PAIR[1] | change, class_map=class_map)
    assert "\n" not in str(error.value)


def test_without_a_list_of_classes_a_map_may_only_name_classes_that_occur():
    old, new = ({key: value for key, value in table.items() if key != "class_names"} for table in PAIR)
    known = {"rename": MAP["rename"], "split": MAP["split"]}
    found = compare(old, new, class_map=known | {"rename": {"car": "automobile", "tabby": "cat"}})
    assert found["all_rows"]["negative_flips"] == 1 and found["classes"]["known_from"] == "answers"
    with pytest.raises(
        InputError, match=r"unknown old class 'siamese' .* or --old-classes with all classes that the old"
    ):
        compare(old, new, class_map=MAP)
    assert compare(old, new, class_map=MAP, old_classes=OLD)["all_rows"]["negative_flips"] == 1


def positions(rows, of_old, of_new):
    """Return rows of names as a run writes them: labels and scores by position, each in its own order of classes."""
    labels, old, new = zip(*rows, strict=True)
    shared = {"ids": np.arange(len(rows)), "labels": np.array([of_new.index(each) for each in labels])}
    return [
        shared | {"logits": np.eye(len(classes), dtype=np.float32)[[classes.index(each) for each in told]]}
        for told, classes in ((old, of_old), (new, of_new))
    ]


def test_the_files_of_a_run_are_compared_by_the_names_in_them(tmp_path):
    """Digits, of which "2" is split into "2" and "10": without names every position would fit, and mean another one."""
    of_old, of_new = [str(k) for k in range(10)], ["0", "1", "2", "10", *map(str, range(3, 10))]
    rows = [(label, "2" if label == "10" else label, label) for label in of_new] + [("10", "2", "2"), ("2", "7", "10")]
    rows += [("3", "3", "10")]
    split = {"split": {"2": ["2", "10"]}}
    tables = positions(rows, of_old, of_new)
    for place, (table, names) in enumerate(zip(tables, (of_old, of_new), strict=True)):
        arrays = dict(
            zip(("labels", "logits", "ids"), (table[key] for key in ("labels", "logits", "ids")), strict=True)
        )
        released.write(tmp_path / f"r{place}.npz", **arrays, class_names=names, label_names=of_new)
    result = compare(tmp_path / "r0.npz", tmp_path / "r1.npz", class_map=split)
    assert [(each["id"], each["label"], each["old"], each["new"]) for each in result["flips"]["examples"]] == [
        ("11", "10", "2", "2"),
        ("13", "3", "3", "10"),
    ]
    assert result["all_rows"]["both_right"] == 11 and result["classes"]["known_from"] == "class_names or scores"
    named = {"class_names": of_old, "label_names": of_new}, {"class_names": of_new}
    for old, new, which, option in (
        (tables[0], tables[1] | named[1], "old", "old_classes"),
        (tables[0] | named[0], tables[1], "new", "classes"),
    ):
        with pytest.raises(
            InputError,
            match=f"the {which} arrays has scores without names .* expected class_names .*, or {option} with",
        ):
            compare(old, new, class_map=split)
    given = compare(tables[0] | {"label_names": of_new}, tables[1], class_map=split, old_classes=of_old, classes=of_new)
    assert given["all_rows"] == result["all_rows"]
    with pytest.raises(InputError, match="scores without names of the classes"):
        suggest_class_map(*tables)


def test_without_a_map_files_with_names_in_another_order_are_compared_by_name():
    ids, of_old, of_new = [1, 2, 3, 4], ["a", "b", "c"], ["d", "c", "a", "b"]
    truth, old_says, new_says = list("abcd"), list("abba"), list("acba")
    tables = [
        {"ids": ids, "labels": [given.index(each) for each in truth], "label_names": given, "class_names": classes}
        | {"logits": np.eye(len(classes))[[classes.index(each) for each in says]]}
        for given, classes, says in ((list("cdab"), of_old, old_says), (of_new, of_new, new_says))
    ]
    by_name = [
        {"id": ids, "label": truth, "prediction": says, "class_names": classes}
        for classes, says in ((of_old, old_says), (of_new, new_says))
    ]
    found, expected = compare(*tables, **ANYTHING), compare(*by_name, **ANYTHING)
    assert without_record(found) == without_record(expected) and found["flips"]["count"] == 1


def test_indices_need_the_names_of_both_releases():
    old = {"id": [1, 2], "label": [0, 1], "prediction": [0, 1]}
    new = {"id": [1, 2], "label": [1, 0], "prediction": [1, 1]}
    swapped = {"rename": {"b": "c"}}
    result = compare(old, new, class_map=swapped, classes=["c", "a"], old_classes=["a", "b"])
    assert result["all_rows"]["negative_flips"] == 1 and result["flips"]["examples"][0]["old"] == "b"
    with pytest.raises(
        InputError, match="classes are those after the class map, and the old arrays has those before it"
    ):
        compare(old, new, class_map=swapped, classes=["c", "a"])
    with pytest.raises(InputError, match="expected names with class_map: the classes that the old model knows"):
        compare(old, new, class_map=swapped, classes=["c", "a"], old_classes=2)
    with pytest.raises(InputError, match="unknown old class 'b' in the class map; valid: 0, 1"):
        compare(old, new, class_map=swapped, classes=["c", "a"], old_classes=["0", "1"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"unlabelled": "only"}, "class_map does not apply without labels"),
        ({"multi_label": "list"}, "class_map does not apply with several labels a row"),
        ({"max_macro_f1_drop": 0.1}, "mean F1 does not apply with the split class 'dog'"),
    ],
)
def test_what_a_map_does_not_apply_to_is_refused_in_one_line(options, message):
    with pytest.raises(InputError, match=message):
        compare(*PAIR, class_map=MAP, **options)
    with pytest.raises(InputError, match="max_old_taxonomy_nfr is given without class_map; expected --class-map, too"):
        compare(*PAIR, max_old_taxonomy_nfr=0.1)


def test_a_map_may_be_an_object_a_policy_or_a_file(tmp_path):
    (tmp_path / "map.json").write_text(json.dumps(MAP))
    (tmp_path / "gate.toml").write_text('max-nfr = 0.5\nclass-map = "map.json"\n')
    (tmp_path / "table.toml").write_text('max-nfr = 0.5\n[class-map]\nretire = ["floppy disk"]\n' + TABLES)
    expected = compare(*PAIR, class_map=MAP, max_nfr=0.5)
    parsed = ClassMap(MAP["rename"], {"cat": ("tabby", "siamese")}, {"dog": ("puppy", "adult dog")}, ("floppy disk",))
    for options in (
        {"class_map": str(tmp_path / "map.json"), "max_nfr": 0.5},
        {"class_map": parsed, "max_nfr": 0.5},
        {"policy": str(tmp_path / "gate.toml")},
        {"policy": str(tmp_path / "table.toml")},
    ):
        found = compare(*PAIR, **options)
        assert without_record(found) == without_record(expected)
        assert json.loads(json.dumps(found)) == found
        assert any(each["role"] == "class_map" for each in found["inputs"])


TABLES = """
[class-map.rename]
car = "automobile"

[class-map.merge]
cat = ["tabby", "siamese"]

[class-map.split]
dog = ["puppy", "adult dog"]
"""
