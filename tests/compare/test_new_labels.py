"""The truth of a row is a label of the last release, whichever file shows it; what is not clear is refused."""

import re

import pytest

from mpt_jax.compare import chain, compare
from mpt_jax.errors import InputError

MAP = {
    "rename": {"car": "automobile"},
    "merge": {"cat": ["tabby", "siamese"]},
    "split": {"dog": ["puppy", "adult dog"]},
    "retire": ["disk"],
}
IDS = ["a", "b", "c", "d", "e"]
OLD_LABELS, NEW_LABELS = ["car", "tabby", "siamese", "owl", "disk"], ["automobile", "cat", "cat", "owl", "disk"]
OLD = {"id": IDS, "label": OLD_LABELS, "prediction": ["car", "siamese", "dog", "owl", "disk"]}
NEW = {"id": IDS, "label": NEW_LABELS, "prediction": ["owl", "cat", "cat", "owl", "owl"]}
CLASSES = {"old_classes": ["car", "tabby", "siamese", "owl", "disk", "dog"], "allow_poor_old": True}


def counts(old, new, class_map=MAP, **options):
    found = compare(old, new, class_map=class_map, **CLASSES, **options)
    rows = found["all_rows"]
    kinds = [rows[key] for key in ("both_right", "negative_flips", "positive_flips", "both_wrong")]
    return kinds, found["left_out"], {each["class"]: each["rows"] for each in found["class_map"]["retired"]}


@pytest.mark.parametrize("old_labels", [OLD_LABELS, NEW_LABELS])
@pytest.mark.parametrize("new_labels", [OLD_LABELS, NEW_LABELS, [*NEW_LABELS[:4], ""]])
def test_labels_of_either_release_are_read_in_either_file(old_labels, new_labels):
    found = counts(OLD | {"label": old_labels}, NEW | {"label": new_labels})
    assert found == ([2, 1, 1, 0], {"rows of retired classes": 1}, {"disk": 1})


def test_a_file_of_labels_may_have_labels_of_either_release():
    old, new = ({key: table[key] for key in ("id", "prediction")} for table in (OLD, NEW))
    for labels in (OLD_LABELS, NEW_LABELS):
        found = counts(old, new, labels={"id": IDS, "label": labels})
        assert found == ([2, 1, 1, 0], {"rows of retired classes": 1}, {"disk": 1})
    with pytest.raises(InputError, match=r"1 row of .* with no label: 'd'"):
        counts(old, new, labels={"id": IDS, "label": [*OLD_LABELS[:3], "", "disk"]})
    found = counts(old, new, labels={"id": IDS, "label": [*OLD_LABELS[:3], "", "disk"]}, unlabelled="skip")
    assert found[1] == {"rows of retired classes": 1, "rows without a label": 1}


def test_a_split_label_needs_the_new_one_in_another_file():
    old = OLD | {"label": ["car", "dog", "dog", "owl", "disk"]}
    new = NEW | {"label": ["automobile", "puppy", "adult dog", "owl", "disk"]}
    assert counts(old, new)[0] == [1, 2, 0, 1]
    with pytest.raises(
        InputError,
        match="2 rows of the new arrays with a label that the class map splits: 'b', 'c', the first into 'puppy', "
        "'adult dog'; expected the new labels in the last file, or --labels FILE with them",
    ):
        counts(old, NEW | {"label": old["label"]})
    labels = {"id": IDS, "label": new["label"]}
    assert counts(old, NEW | {"label": old["label"]}, labels=labels)[0] == [1, 2, 0, 1]


@pytest.mark.parametrize(
    ("label", "message"),
    [
        ("owl", "1 label disagrees between the old arrays and another file: 'b' is 'tabby' and 'owl'"),
        ("disk", "1 label disagrees between the new arrays and another file: 'b' is 'disk' and 'cat'"),
        ("automobile", "1 label disagrees between the old arrays and another file: 'b' is 'tabby' and 'automobile'"),
    ],
)
def test_labels_that_do_not_fit_each_other_are_refused(label, message):
    with pytest.raises(InputError, match=re.escape(message)):
        counts(OLD, NEW | {"label": ["automobile", label, "cat", "owl", "disk"]})


def test_a_name_that_means_another_class_afterwards_is_read_as_the_file_shows():
    """A dog is a dog or a puppy afterwards, and the crane a bird where it was a machine."""
    again = {"rename": {"crane": "machine", "bird": "crane"}, "split": {"dog": ["dog", "puppy"]}}
    known = {"old_classes": ["crane", "bird", "dog"], "allow_poor_old": True, "class_map": again}
    old = {"id": [1, 2, 3, 4], "label": ["crane", "bird", "dog", "dog"], "prediction": ["crane", "bird", "dog", "dog"]}
    new = {
        "id": [1, 2, 3, 4],
        "label": ["machine", "crane", "dog", "puppy"],
        "prediction": ["machine", "crane", "dog", "dog"],
    }
    found = compare(old, new, **known)
    assert (found["all_rows"]["both_right"], found["all_rows"]["negative_flips"]) == (3, 1)
    assert found["flips"]["examples"] == [{"id": "4", "label": "puppy", "old": "dog", "new": "dog"}]
    # Old labels in both files: the crane is a machine, and which dogs are puppies is not known.
    with pytest.raises(InputError, match="with a label that the class map splits: '3', '4'"):
        compare(old, new | {"label": old["label"]}, **known)
    # New labels in both files.
    assert compare(old | {"label": new["label"]}, new, **known)["all_rows"]["negative_flips"] == 1
    # Labels of both releases in the old file only have to agree with those of the new one.
    mixed = compare(old | {"label": ["crane", "bird", "dog", "puppy"]}, new, **known)
    assert mixed["all_rows"] == found["all_rows"]
    # Only names that both releases have.
    only = [{key: values[1:3] for key, values in table.items()} for table in (old, new)]
    only[0]["label"] = ["crane", "dog"]
    with pytest.raises(InputError, match=r"has the label 'crane', .* and no label 'machine', 'puppy'; expected labels"):
        compare(*only, **known)
    assert compare(*only, **known, classes=["machine", "crane", "dog", "puppy"])["all_rows"]["both_right"] == 2
    with pytest.raises(InputError, match="has the label 'crane', which means another class before the class map than"):
        compare(old, new | {"label": ["crane", "bird", "dog", "puppy"]}, **known)


KEPT = {"split": {"dog": ["dog", "puppy"]}, "rename": {"car": "automobile"}}
KEPT_OLD = {"id": [1, 2, 3, 4], "prediction": ["dog", "dog", "cat", "car"], "class_names": ["dog", "cat", "car"]}
KEPT_NEW = KEPT_OLD | {
    "prediction": ["dog", "puppy", "cat", "automobile"],
    "class_names": ["dog", "puppy", "cat", "automobile"],
}
OF_OLD, OF_NEW = ["dog", "dog", "cat", "car"], ["dog", "puppy", "cat", "automobile"]
HALF = ["dog", "dog", "cat", "automobile"]  # renamed, and the dogs not labelled anew yet


@pytest.mark.parametrize("of_old", [OF_OLD, OF_NEW, HALF])
@pytest.mark.parametrize("of_new", [OF_OLD, OF_NEW, HALF])
@pytest.mark.parametrize("of_file", [None, OF_OLD, OF_NEW, HALF])
def test_a_split_that_keeps_the_name_never_takes_a_label_from_before_it_for_one_after_it(of_old, of_new, of_file):
    """Image 2 is a puppy, which both models recognise. With "dog" for its label, the new one would seem to be wrong."""
    old, new = KEPT_OLD | {"label": of_old}, KEPT_NEW | {"label": of_new}
    given = {} if of_file is None else {"labels": {"id": KEPT_OLD["id"], "label": of_file}}
    last = [of_new] + ([] if of_file is None else [of_file])
    if HALF in last:
        with pytest.raises(
            InputError,
            match="has the label 'dog', which means another class before the class map than after it, beside "
            "'automobile' from after it, and no label 'puppy'; expected labels of the classes after it in all files, "
            "or --classes with the names of all of these, if they are",
        ):
            compare(old, new, class_map=KEPT, **given)
    elif OF_NEW in [*last, of_old]:
        rows = compare(old, new, class_map=KEPT, **given)["all_rows"]
        assert (rows["both_right"], rows["negative_flips"]) == (4, 0)
    else:
        with pytest.raises(InputError, match="a label that the class map splits: '1', '2', the first into 'dog', 'pup"):
            compare(old, new, class_map=KEPT, **given)


def test_labels_of_a_split_class_alone_are_of_the_new_release_if_its_classes_are_given():
    """No image is a puppy, and none a car: nothing but the user can know that the labels are new ones."""
    rows = [0, 2]
    labels = {"label": ["dog", "cat"]}
    old, new = (
        {key: values[:3:2] for key, values in each.items() if key != "class_names"} for each in (KEPT_OLD, KEPT_NEW)
    )
    known = {"class_map": {"split": KEPT["split"]}}
    for of_new in ({}, {"class_names": ["dog", "puppy", "cat"]}):  # what the model knows is not what the labels are
        with pytest.raises(
            InputError, match=r"label 'dog', which means another .* after it, and no label 'puppy'; expected"
        ):
            compare(old | labels, new | labels | of_new, **known)
    found = compare(old | labels, new | labels, **known, classes=["dog", "puppy", "cat"])
    assert found["all_rows"]["both_right"] == len(rows)
    declared = {"label": [0, 2], "label_names": ["dog", "puppy", "cat"]}
    assert compare(old | labels, new | declared, **known)["all_rows"] == found["all_rows"]


def test_in_a_chain_a_name_may_have_been_split_in_any_step():
    ids = [1, 2, 3]
    old = {"id": ids, "label": ["dog", "dog", "cat"], "prediction": ["dog", "dog", "cat"]}
    between = {"id": ids, "label": ["dog", "puppy", "cat"], "prediction": ["dog", "puppy", "cat"]}
    maps = [{"split": {"dog": ["dog", "puppy"]}}, {}]
    assert chain([old, between, between], class_map=maps)["lost_from_any"]["count"] == 0
    for place in (1, 2):
        versions = [old, between, between]
        versions[place] = versions[place] | {"label": old["label"]}
        if place == 1:  # its truth is in the last file
            assert chain(versions, class_map=maps)["lost_from_any"]["count"] == 0
        else:
            with pytest.raises(InputError, match="the version 3 arrays has the label 'dog', which means another class"):
                chain(versions, class_map=maps)


def test_in_a_chain_a_file_may_have_labels_of_a_release_after_it():
    """The fox is a class of the second release alone: no label of the first, and merged in the last."""
    v1 = {"id": [1, 2], "label": ["cat", "fox"], "prediction": ["cat", "cat"]}
    v2 = v1 | {"prediction": ["cat", "fox"]}
    v3 = {
        "id": [1, 2],
        "label": ["mammal", "mammal"],
        "prediction": ["mammal", "owl"],
        "class_names": ["mammal", "owl"],
    }
    result = chain([v1, v2, v3], class_map=[{}, {"merge": {"mammal": ["cat", "fox"]}}])
    assert [each["id"] for each in result["lost_from_any"]["examples"]] == ["2"]
    assert [step["class_map"]["retired"] for step in result["steps"]] == [[], []]  # a label of another release is not


def test_the_name_of_a_retired_class_may_be_that_of_another_afterwards():
    known = {
        "old_classes": ["apple", "apple fruit"],
        "class_map": {"retire": ["apple"], "rename": {"apple fruit": "apple"}},
    }
    old = {
        "id": [1, 2, 3],
        "label": ["apple", "apple fruit", "apple fruit"],
        "prediction": ["apple", "apple fruit", "apple"],
    }
    new = {"id": [1, 2, 3], "label": ["", "apple", "apple"], "prediction": ["apple", "apple", "apple"]}
    found = compare(old, new, **known)
    assert (found["all_rows"]["both_right"], found["all_rows"]["positive_flips"]) == (1, 1)
    assert found["class_map"]["retired"] == [{"class": "apple", "rows": 1, "predicts": 1}]
    with pytest.raises(InputError, match="the old arrays has the label 'apple', which means another class before"):
        compare(old | {"label": ["apple", "apple", "apple"]}, new, **known)


CHANGES = {"id": ["a", "b", "x"], "old_label": ["owl", "car", "owl"], "new_label": ["automobile", "cat", "cat"]}


@pytest.mark.parametrize("old_label", ["owl", "car", "automobile"])
@pytest.mark.parametrize("new_label", ["owl", "automobile"])
def test_a_corrected_label_counts_whichever_label_the_files_have(old_label, new_label):
    old = OLD | {"label": [old_label, "tabby", "siamese", "owl", "disk"]}
    new = NEW | {"label": [new_label, "cat", "cat", "owl", "disk"]}
    found = compare(old, new, class_map=MAP, label_changes=CHANGES, **CLASSES)
    assert found["all_rows"]["both_right"] == 2 and found["all_rows"]["negative_flips"] == 1
    changes = found["label_changes"]
    assert (changes["listed"], changes["rows"]) == (3, 2)
    # a: owl before, which only the new model says; automobile now, which only the old one says.
    # b: car before, which neither says; cat now, which both say.
    assert changes["former"] == {"both_right": 0, "negative_flips": 0, "positive_flips": 1, "both_wrong": 1}
    assert changes["corrected"] == {"both_right": 1, "negative_flips": 1, "positive_flips": 0, "both_wrong": 0}
    assert (changes["explained"], changes["revealed"]) == (0, 1)
    assert changes["examples"] == [
        {"id": "a", "former": "owl", "label": "automobile", "old": "car", "new": "owl", "flip": "revealed"}
    ]


def test_a_correction_explains_a_flip_of_the_former_label():
    old = {"id": [1, 2, 3], "label": ["cat", "cat", "dog"], "prediction": ["cat", "cat", "dog"]}
    new = {"id": [1, 2, 3], "label": ["dog", "cat", "dog"], "prediction": ["dog", "dog", "dog"]}
    changes = {"id": [1], "old_label": ["cat"], "new_label": ["dog"]}
    with pytest.raises(InputError, match="1 label disagrees"):
        compare(old, new)
    found = compare(old, new, label_changes=changes, max_nfr=0.5, allow_poor_old=True)
    assert found["flips"]["examples"] == [{"id": "2", "label": "cat", "old": "cat", "new": "dog"}]
    assert (found["label_changes"]["explained"], found["label_changes"]["revealed"]) == (1, 0)
    assert found["label_changes"]["examples"][0]["flip"] == "explained" and "class_map" not in found
    assert found["label_changes"]["former"]["negative_flips"] == 1
    assert found["label_changes"]["corrected"]["positive_flips"] == 1


def test_a_label_that_is_corrected_to_a_retired_class_leaves_the_rates():
    changes = {"id": ["d"], "old_label": ["owl"], "new_label": ["disk"]}
    found = compare(OLD, NEW, class_map=MAP, label_changes=changes, **CLASSES)
    assert found["left_out"] == {"rows of retired classes": 2} and found["label_changes"]["rows"] == 0
    back = {"id": ["e"], "old_label": ["disk"], "new_label": ["owl"]}
    found = compare(OLD, NEW, class_map=MAP, label_changes=back, **CLASSES)
    assert found["left_out"] == {} and found["label_changes"]["corrected"]["positive_flips"] == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"id": ["x"], "old_label": ["owl"], "new_label": ["cat"]},
            "no id of label_changes, such as 'x', is in the old",
        ),
        (
            {"id": ["a"], "old_label": ["owl"], "new_label": ["cat"]},
            "1 label of the old arrays is neither the former nor the corrected one: 'a' is 'automobile', corrected "
            "from 'owl' to 'cat'",
        ),
        (
            {"id": ["a"], "old_label": ["car"], "new_label": ["dog"]},
            "label_changes corrects the label of 'a' to 'dog', which is split into 'puppy', 'adult dog'; expected one",
        ),
        ({"id": ["a", "a"], "old_label": ["car"] * 2, "new_label": ["cat"] * 2}, "has the id 'a' twice"),
    ],
)
def test_corrected_labels_that_fit_no_row_are_refused(changes, message):
    with pytest.raises(InputError, match=re.escape(message)):
        compare(OLD, NEW, class_map=MAP, label_changes=changes, **CLASSES)
