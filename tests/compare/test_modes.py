"""A chain, no labels and several labels a row, from files to results."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpt_jax.compare import assert_no_regression, chain, compare
from mpt_jax.errors import InputError
from mpt_jax.files.predictions import formats

LABELS = ["cat", "dog", "owl"]
ONE = {"id": ["a", "b", "c"], "label": LABELS, "prediction": ["cat", "dog", "cat"]}
SETS = {"id": ["a", "b", "c"], "label": [["cat"], ["cat", "dog"], []], "prediction": [["cat"], ["cat", "dog"], []]}


def without_record(result):
    return {key: value for key, value in result.items() if key not in ("inputs", "options", "versions")}


@settings(max_examples=8)
@given(
    st.lists(st.tuples(*[st.integers(0, 2)] * 5), min_size=1, max_size=12),
    st.randoms(use_true_random=False),
)
def test_each_comparison_of_a_chain_is_that_of_its_two_files(rows, random):
    columns = list(zip(*rows, strict=True))
    shuffled = random.sample(range(len(rows)), len(rows))

    def table(version, order):
        return {
            "id": order,
            **{key: [columns[i][row] for row in order] for key, i in (("label", 0), ("prediction", version))},
        }

    versions = [table(1, list(range(len(rows)))), *(table(version, shuffled) for version in (2, 3, 4))]
    options = {
        "old_classes": 3,
        "classes": ["x", "y", "z"],
        "max_nfr": 0.2,
        "allow_poor_old": True,
    }
    named = [each | {"class_names": ["x", "y", "z"]} for each in versions]
    found = chain(named, **options)
    pairs_of = {"steps": [(0, 1), (1, 2), (2, 3)], "against_ancestors": [(0, 3), (1, 3), (2, 3)]}
    verdicts = []
    for key, pairs in pairs_of.items():
        for result, (old, new) in zip(found[key], pairs, strict=True):
            alone = without_record(compare(named[old], named[new], **options))
            verdicts += [check["verdict"] for check in result["checks"]]
            in_order = sorted(alone["flips"]["examples"], key=lambda each: int(each["id"]))
            alone["flips"]["examples"] = in_order
            if old:
                alone |= {"classes": result["classes"]}  # known from class_names, not from old_classes
            assert result | {"old": 0, "new": 0} == alone | {"old": 0, "new": 0}
    assert found["passed"] == all(verdict == "pass" for verdict in verdicts)
    assert found["verdict"] == max(verdicts, key=["pass", "undecided", "regression"].index)


def test_a_chain_reads_each_file_once(monkeypatch):
    opened = []
    read = formats.open_source
    monkeypatch.setattr(formats, "open_source", lambda source, *rest: opened.append(source) or read(source, *rest))
    found = chain([ONE] * 4, max_nfr=0.1)
    assert len(opened) == 4 and found["passed"] and found["lost_from_any"]["count"] == 0
    assert [each["role"] for each in found["inputs"]] == [f"version {place}" for place in (1, 2, 3, 4)]
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_bad_chains_are_refused():
    with pytest.raises(InputError, match="a chain has 1 version"):
        chain([ONE])
    with pytest.raises(InputError, match="1 id is in the version 1 arrays but not in the version 3 arrays: 'c'"):
        chain([ONE, ONE, {key: values[:2] for key, values in ONE.items()}])
    with pytest.raises(InputError, match=r"the version 2 arrays.* look like one class"):
        chain([ONE, ONE | {"prediction": ["cat", "Dog", "cat"]}, ONE])
    with pytest.raises(InputError, match="a chain has more than two files; expected two"):
        chain([ONE] * 3, unlabelled="only")
    with pytest.raises(InputError, match="unknown option 'max_flips'"):
        chain([ONE] * 3, max_flips=1)


def test_agreement_needs_no_labels_and_names_those_it_ignores():
    bare = {key: ONE[key] for key in ("id", "prediction")}
    new = {"id": ["c", "b", "a"], "prediction": ["cat", "bat", "cat"]}
    found = compare(bare, new, unlabelled="only", max_churn=0.5)
    assert found["kind"] == "agreement" and found["passed"] and found["all_rows"]["changed"] == 1
    assert found["changed"]["examples"] == [{"id": "b", "old": "dog", "new": "bat"}]
    assert found["classes"] == {
        "count": 3,
        "only_old": [{"class": "dog", "rows": 1}],
        "only_new": [{"class": "bat", "rows": 1}],
    }
    assert found["labels_ignored"] == []
    assert compare(ONE, new, unlabelled="only")["labels_ignored"] == ["the old arrays"]
    wrong = new | {"label": ["cat"] * 3}  # labels that disagree do not matter
    ignoring = compare(ONE, wrong, unlabelled="only")
    assert ignoring["labels_ignored"] == ["the old arrays", "the new arrays"]
    assert ignoring["all_rows"] == found["all_rows"] and ignoring["verdict"] is None
    assert json.loads(json.dumps(found, allow_nan=False)) == found


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1), st.randoms(use_true_random=False))
def test_agreement_is_the_churn_of_the_labelled_comparison_in_any_order(rows, random):
    old, new = zip(*rows, strict=True)
    order = random.sample(range(len(rows)), len(rows))
    first = {"id": list(range(len(rows))), "prediction": old}
    second = {"id": order, "prediction": [new[row] for row in order]}
    found = compare(first, second, unlabelled="only")
    labels = {"label": [0] * len(rows)}
    labelled = compare(first | labels, second | labels, old_classes=4, allow_poor_old=True)
    assert found["all_rows"]["churn"] == labelled["all_rows"]["churn"]
    assert found["all_rows"]["intervals"]["churn"] == labelled["all_rows"]["intervals"]["churn"]


def test_ties_that_could_change_the_churn_are_told():
    old = {"id": [1, 2], "scores": [[0.5, 0.5], [0.1, 0.9]]}
    new = {"id": [1, 2], "scores": [[0.9, 0.1], [0.1, 0.9]]}
    found = compare(old, new, unlabelled="only", max_churn=0)
    assert found["ties"] == {"rows": 1, "could_change": ["max_churn"]} and found["passed"]


@pytest.mark.parametrize(
    ("options", "changes", "message"),
    [
        ({"max_nfr": 0.1}, {}, "max_nfr does not apply without labels; expected among the limits only max_churn"),
        ({"min_accuracy": 0.1}, {}, "min_accuracy does not apply"),
        ({"old_classes": 2}, {}, "old_classes does not apply"),
        ({"labels": ONE}, {}, "labels does not apply"),
        ({"policy": {"class": {"cat": {"max-nfr": 0.1}}}}, {}, "does not apply without labels"),
        ({"allow_poor_old": True}, {}, "allow_poor_old does not apply"),
        ({"multi_label": "|"}, {}, "multi_label does not apply"),
        ({}, {"prediction": ["Cat", "dog", "cat"]}, "'Cat' in .*look like one class; .*--same Cat=cat"),
        ({}, {"prediction": [0, 1, 0]}, "predicts 'cat' and the new arrays '0'; expected either names or indices"),
        ({}, {"prediction": ["cat", "nan", "cat"]}, "no prediction"),
        ({}, {"id": ["a", "b", "x"]}, "1 id is in the old arrays but not in the new arrays: 'c'"),
    ],
)
def test_what_makes_an_agreement_wrong_is_refused(options, changes, message):
    with pytest.raises(InputError, match=message):
        compare(ONE, ONE | changes, unlabelled="only", **options)


def test_several_labels_a_row():
    new = {"id": ["c", "b", "a"], "label": SETS["label"][::-1], "prediction": [["owl"], ["cat"], ["cat"]]}
    found = compare(SETS, new, multi_label="list", max_nfr=0.5, max_class_nfr=0.9)
    assert found["all_rows"]["negative_flips"] == 2 and found["all_rows"]["only_new_classes"] == 1
    assert found["flips"]["examples"] == [
        {
            "id": "b",
            "label": ["cat", "dog"],
            "old": ["cat", "dog"],
            "new": ["cat"],
            "missed": ["dog"],
            "false_alarms": [],
        },
        {"id": "c", "label": [], "old": [], "new": ["owl"], "missed": [], "false_alarms": ["owl"]},
    ]
    assert found["classes"] == {"count": 3, "old": ["cat", "dog"], "known_from": "answers"}
    assert [check["where"] for check in found["checks"]] == ["3 rows", "class dog, 1 row"]
    assert json.loads(json.dumps(found, allow_nan=False)) == found


ROW = st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(0, 2))


@settings(max_examples=15)
@given(st.lists(ROW, min_size=1, max_size=15), st.randoms(use_true_random=False))
def test_lists_of_one_label_lose_what_the_comparison_of_one_label_loses(rows, random):
    columns = list(zip(*rows, strict=True))
    order = random.sample(range(len(rows)), len(rows))

    def table(version, order, form):
        places = (("label", 0), ("prediction", version))
        return {"id": order, **{key: [form("xyz"[columns[i][row]]) for row in order] for key, i in places}}

    options = {"classes": ["x", "y", "z"], "old_classes": ["x", "y", "z"], "allow_poor_old": True, "max_class_nfr": 0.1}
    alone = compare(table(1, list(range(len(rows))), str), table(2, order, str), **options)
    expected = {row["class"]: (row["count"], row["negative_flips"], row["nfr"]) for row in alone["per_class"]}
    for form in (lambda name: [name], str, lambda name: json.dumps([name])):
        both = table(1, list(range(len(rows))), form), table(2, order, form)
        found = compare(*both, multi_label="|", **options)
        classes = {row["class"]: (row["count"], row["missed"], row["nfr"]) for row in found["per_class"]}
        assert {name: counts for name, counts in classes.items() if counts[0]} == expected
        same = ("value", "verdict", "passed", "more_rows")
        assert [[check[key] for key in same] for check in found["checks"]] == [
            [check[key] for key in same] for check in alone["checks"]
        ]


def test_the_old_models_classes_are_given_in_every_way():
    indices = {"id": [1, 2], "label": [[0, 1], [1, 2]], "prediction": [[0], [1]]}
    named = indices | {"class_names": ["cat", "dog"], "label": [[0, 1], [1]]}
    for old, options, known in (
        (indices, {}, ["0", "1"]),
        (indices, {"old_classes": 3}, ["0", "1", "2"]),
        (indices, {"old_classes": ["0", "1", "2"]}, ["0", "1", "2"]),
        (indices, {"classes": ["cat", "dog", "owl"], "old_classes": 2}, ["cat", "dog"]),
        (indices, {"classes": ["cat", "dog", "owl"], "old_classes": ["0", "1"]}, ["cat", "dog"]),
        (indices, {"classes": ["cat", "dog", "owl"], "old_classes": ["owl", "cat", "dog"]}, ["cat", "dog", "owl"]),
        (named, {}, ["cat", "dog"]),
    ):
        assert compare(old, old, multi_label="list", **options)["classes"]["old"] == known
    new = {"id": [1, 2], "label": [["cat", "dog"], ["dog"]], "prediction": [["cat"], ["dog"]]}
    assert compare(named, new, multi_label="list")["all_rows"]["negative_flips"] == 0


@pytest.mark.parametrize(
    ("options", "changes", "message"),
    [
        ({"max_relative_nfr": 0.1}, {}, "max_relative_nfr does not apply with several labels a row"),
        ({"scores": "logit"}, {}, "scores does not apply"),
        ({"multi_label": ""}, {}, "multi_label is ''; expected the separator"),
        ({}, {"prediction": [["Cat"], ["cat", "dog"], []]}, "look like one class; .*--same Cat=cat"),
        ({}, {"prediction": ["cat;dog", "cat", ""], "label": ["cat", "cat|dog", ""]}, "look.* like several names"),
        ({}, {"label": [["cat"], ["dog"], []]}, r"1 label disagrees .*: 'b' is '\[\"cat\", \"dog\"\]' and"),
        ({}, {"prediction": [None, ["cat"], []]}, "1 row of the new arrays with no prediction: 'a'"),
        ({}, {"prediction": [["nan"], ["cat"], []]}, "'nan' among the names means that there is none"),
        ({}, {"prediction": [["0"], ["1"], []]}, "is an index and 'dog' a name"),
        ({"old_classes": ["cat"]}, {}, "the old arrays predicts 'dog', not among the 1 classes"),
        ({"old_classes": 3, "classes": ["cat", "dog"]}, {}, "old_classes is 3; expected at most 2"),
        ({"old_classes": 0}, {}, "old_classes is 0"),
    ],
)
def test_what_hides_a_flip_of_several_labels_is_refused(options, changes, message):
    with pytest.raises(InputError, match=message):
        compare(SETS, SETS | changes, **{"multi_label": "|"} | options)


def test_names_made_one_are_one_label():
    old = SETS | {"prediction": [["Cat"], ["cat", "Cat"], []]}
    found = compare(old, SETS, multi_label="|", same={"Cat": "cat"}, old_classes=["cat", "dog"], allow_poor_old=True)
    assert found["all_rows"]["negative_flips"] == 0 and found["classes"]["count"] == 2


def test_labels_of_other_names_that_the_old_model_never_gives_are_refused():
    old = SETS | {"prediction": [["feline"], ["feline", "dog"], []]}
    with pytest.raises(InputError, match=r"never predicts 'cat' \(2 rows\), and predicts 'feline' \(2 rows\)"):
        compare(old, SETS, multi_label="|")
    shifted = {
        "id": np.arange(60),
        "label": [[i % 5] for i in range(60)],
        "prediction": [[(i + 1) % 5] for i in range(60)],
    }
    with pytest.raises(InputError, match="micro-averaged F1 of 0 on its classes, close to chance"):
        compare(shifted, shifted, multi_label="list")


def test_labels_from_another_file_and_rows_without():
    bare = {"uid": ["a", "b", "c"], "guess": ["cat|dog", "", "cat"]}
    labels = {"uid": ["b", "a", "c"], "label": ["", "cat|dog", None]}
    options = {"columns": {"id": "uid", "prediction": "guess"}, "labels": labels, "multi_label": "|"}
    found = compare(bare, bare, unlabelled="skip", **options)
    assert found["all_rows"]["count"] == 2 and found["all_rows"]["accuracy_old"] == 1
    assert found["left_out"] == {"rows without a label": 1}
    with pytest.raises(InputError, match="no label: 'c'"):
        compare(bare, bare, **options)


def test_the_pytest_helper_takes_every_mode():
    assert assert_no_regression(ONE, ONE, unlabelled="only", max_churn=0.1)["passed"]
    with pytest.raises(AssertionError, match=r"max_churn: .*\n1 changed row, such as id 'b' \(old 'dog', new 'cat'\)"):
        assert_no_regression(ONE, ONE | {"prediction": ["cat"] * 3}, unlabelled="only", max_churn=0)
    lost = SETS | {"prediction": [["cat"], ["cat"], []]}
    with pytest.raises(
        AssertionError, match=r"1 flipped row, such as id 'b' .labels 'cat, dog', old 'cat, dog', new 'cat'"
    ):
        assert_no_regression(SETS, lost, multi_label="list", max_nfr=0)


def test_lists_without_the_option_say_what_would_work():
    with pytest.raises(InputError, match=r"column 'label' holds lists; .*--multi-label"):
        compare(SETS, SETS)


def test_two_classes_of_the_old_model_that_changed_places_are_refused_with_several_labels():
    names = [*"abcdefghij"]
    labels = [[names[i % 10], names[(i + 3) % 10]] for i in range(200)]
    swap = {"a": "b", "b": "a"}
    swapped = [[swap.get(name, name) for name in each] for each in labels]
    old, new = ({"id": range(200), "label": labels, "prediction": given} for given in (swapped, labels))
    with pytest.raises(
        InputError, match="the old model predicts 'b' for 40 of 40 rows of 'a', 'a' for 40 of 40 rows of"
    ):
        compare(old, new, multi_label="list")
    assert compare(old, new, multi_label="list", allow_poor_old=True)["all_rows"]["negative_flips"] == 0


def test_names_in_files_and_options_are_checked_with_several_labels():
    labels = [["a"], ["b"], ["c"]] * 20
    old = {"id": range(60), "label": labels, "prediction": [[0], [1], [2]] * 20, "class_names": ["a", "b", "c"]}
    new = old | {"class_names": ["b", "a", "c"]}
    for further in ({}, {"old_classes": ["a", "b", "c"]}):
        with pytest.raises(InputError, match="index 0 is 'b' by its class_names, and 'a' by classes"):
            compare(old, new, multi_label="list", classes=["a", "b", "c"], **further)
    for same, message in (
        ({"zzz": "a"}, "unknown class 'zzz' in same"),
        ({"a": "b", "b": "c"}, "'a' is 'b', and that 'b' is 'c'; expected one step"),
    ):
        with pytest.raises(InputError, match=message):
            compare(old, old, multi_label="list", same=same)
    with pytest.raises(InputError, match=r"old_classes is 1000000000; expected at most 1,048,576"):
        unnamed = {column: values for column, values in old.items() if column != "class_names"}
        compare(unnamed, unnamed, multi_label="list", old_classes=10**9)
    scores = {"id": [1], "score_a": [0.1], "score_b": [0.9]}
    for further in ({"label": ["a"]}, {}):
        with pytest.raises(InputError, match="the old arrays has no column of predictions; expected the names"):
            compare(scores | further, scores, multi_label="|", labels={"id": [1], "label": ["a"]})
