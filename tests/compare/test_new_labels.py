"""The truth of a row is a label of the last release, whichever file shows it; what is not clear is refused."""

import contextlib
import random
import re

import pytest

from mpt_jax.class_map import ClassMap
from mpt_jax.compare import chain, compare, pairs
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
        match="2 rows of the new arrays with a label that means several classes after the class map: 'b', 'c', the "
        "first 'puppy', 'adult dog'; expected the new labels in the last file, or --labels FILE with them",
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
    with pytest.raises(InputError, match="with a label that means several classes after the class map: '3', '4'"):
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
        with pytest.raises(
            InputError,
            match=r"label that means several classes after the class map: '1', '2', the first 'dog', 'pup.*with them$",
        ):
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
        "classes": ["apple"],  # nothing else shows which of the two is meant where no label is "apple fruit"
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
    with pytest.raises(InputError, match="the new arrays has the label 'apple', which means another class before"):
        compare(old, new, **{key: known[key] for key in ("old_classes", "class_map")})


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


def drawn_map(rng, classes):
    """Return a map of some classes, with names that come back, and what each class becomes."""
    changed = rng.sample(classes, rng.randrange(min(len(classes), 4)))
    names = [name for name in "abcdefghij" if name not in classes or name in changed]
    rng.shuffle(names)
    rename, merge, split, retire = {}, {}, {}, []
    for name in changed:
        kind, free = (
            rng.choice(["rename", "merge", "split", "split", "keep", "retire"]),
            [n for n in names if n != name],
        )
        others = [other for other in classes if other not in changed]
        if kind == "rename" and free:
            rename[name] = free[0]
        elif kind == "split" and len(free) > 1:
            split[name] = tuple(free[:2])
        elif kind == "keep" and free:
            split[name] = (name, free[0])
        elif kind == "merge" and others:
            merge[rng.choice([name, others[0], *free[:1]])] = (name, others[0])
        elif kind == "retire":
            retire.append(name)
    map_ = ClassMap(rename, merge, split, tuple(retire))  # some contradict themselves
    return map_, {name: map_.changed().get(name, (name,)) for name in classes}


def drawn_chain(rng):
    """Return the maps, the classes of each release, and for each row its class in each, None where it has none."""
    releases, maps, becomes = [rng.sample("abcdefghij", rng.randrange(2, 5))], [], []
    for _ in range(rng.randrange(1, 3)):
        map_, news = drawn_map(rng, releases[-1])
        free = [
            name
            for name in "abcdefghij"
            if name not in {*releases[-1], *(new for each in news.values() for new in each)}
        ]
        maps.append(map_)
        becomes.append(news)
        releases.append([*dict.fromkeys([*(new for each in news.values() for new in each), *free[: rng.randrange(2)]])])
    rows = []
    for _ in range(rng.randrange(2, 7)):
        path = [rng.choice(releases[0])]
        for news in becomes:
            path.append(rng.choice(news[path[-1]]) if path[-1] and news[path[-1]] else None)
        rows.append(path)
    return maps, releases, rows


@pytest.mark.parametrize("seed", range(20))
def test_in_any_chain_the_truth_is_found_or_refused(seed):
    """Every file has the labels of one release, none where that has no class for the row."""
    rng = random.Random(seed)
    found = [the_truth_is_found(rng) for _ in range(200)]
    assert sum(found) > 60  # not all are refused


def the_truth_is_found(rng):
    """Check the truth of a random chain, and return whether it was found."""
    with contextlib.suppress(InputError):
        maps, releases, rows = drawn_chain(rng)
        files = []
        for place, classes in enumerate(releases):
            of = rng.choice([place, place, place, 0, len(maps)])
            labels = [path[of] or "" for path in rows]
            predictions = [rng.choice(classes) for _ in rows]
            files.append({"id": range(len(rows)), "label": labels, "prediction": predictions, "class_names": classes})
        found = pairs.read_versions(files, class_map=maps, unlabelled="skip")
        if not found.problems:
            last = found.rows[-1]
            kept = range(len(rows)) if found.kept is None else found.kept.tolist()
            truth = dict(zip(kept, (last.classes[code] for code in last.labels), strict=True))
            shown = {row for row, path in enumerate(rows) if path[-1] and any(file["label"][row] for file in files)}
            assert truth == {row: rows[row][-1] for row in shown}
            return True
    return False


@pytest.mark.parametrize("parts", [("dog", "puppy"), ("adult", "puppy")])
def test_a_label_of_a_split_class_may_be_of_a_part_that_was_retired_later(parts):
    """Image 2 is a puppy, a class that the last release no longer has."""
    stays, gone = parts
    maps = [{"split": {"dog": [stays, gone]}}, {"retire": [gone]}]
    ids = [1, 2, 3]
    v1 = {"id": ids, "label": ["dog", "dog", "cat"], "prediction": ["dog", "dog", "cat"], "class_names": ["dog", "cat"]}
    v2 = {"id": ids, "label": [stays, gone, "cat"], "prediction": [stays, gone, "cat"]}
    v3 = {"id": ids, "label": [stays, "", "cat"], "prediction": [stays, "cat", "cat"]}
    v2, v3 = v2 | {"class_names": [stays, gone, "cat"]}, v3 | {"class_names": [stays, "cat"]}
    classes = [stays, "cat"]  # that the last labels are not those of the first release
    result = chain([v1, v2, v3], class_map=maps, classes=classes)
    assert result["lost_from_any"]["count"] == 0
    assert [step["left_out"] for step in result["steps"]] == [{"rows of retired classes": 1}] * 2
    for of_third in (v1["label"], ["dog", "", "cat"] if stays == "dog" else v1["label"]):
        with pytest.raises(InputError, match=r"means (another class|several classes)|'dog'"):
            chain([v1, v2 | {"label": v1["label"]}, v3 | {"label": of_third}], class_map=maps)


def test_a_class_that_a_map_took_away_may_come_back_as_another():
    ids, names = [1, 2, 3, 4], ["cat", "owl"]
    v1 = {"id": ids, "label": ["car", "auto", "cat", "auto"], "prediction": ["cat", "car", "cat", "car"]}
    v1 |= {"label": ["", "car", "cat", "car"], "class_names": [*names, "car"]}
    v2 = {"id": ids, "label": ["", "auto", "cat", "auto"], "prediction": ["cat", "auto", "cat", "auto"]}
    v3 = {"id": ids, "label": ["car", "auto", "cat", "auto"], "prediction": ["car", "auto", "cat", "auto"]}
    v2, v3 = v2 | {"class_names": [*names, "auto"]}, v3 | {"class_names": [*names, "auto", "car"]}
    result = chain([v1, v2, v3], class_map=[{"rename": {"car": "auto"}}, {}], unlabelled="skip")
    assert result["steps"][1]["new_classes"] == [{"class": "car", "rows": 1}]
    assert result["steps"][1]["all_rows"]["positive_flips"] == 1


def test_old_labels_are_not_taken_for_new_ones_where_every_new_name_is_an_old_one():
    swapped = {"merge": {"truck": ["van", "truck"]}, "split": {"car": ["car", "van"]}}
    ids, names = [1, 2, 3, 4], ["car", "van", "truck"]
    old = {"id": ids, "label": ["van", "van", "truck", "car"], "class_names": names}
    old |= {"prediction": old["label"]}
    new = {"id": ids, "label": ["truck", "truck", "truck", "car"], "prediction": ["truck", "truck", "truck", "car"]}
    new |= {"class_names": names}
    with pytest.raises(
        InputError, match=r"the new arrays has the label 'van', .* or --classes with the names of all of"
    ):
        compare(old, new | {"label": old["label"]}, class_map=swapped)
    with pytest.raises(InputError, match="the new arrays has the label 'car', which means another class"):
        compare(old, new, class_map=swapped)
    assert compare(old, new, class_map=swapped, classes=names)["all_rows"]["both_right"] == 4


@pytest.mark.parametrize("slip", ["dgo", "nan", "-1", "1"])
def test_a_correction_to_a_label_that_is_no_class_is_refused(slip):
    """It would make a new class, whose rows cannot flip."""
    labels = ["cat"] * 5 + ["dog"] * 5
    old = {"id": range(10), "label": labels, "prediction": labels, "class_names": ["cat", "dog"]}
    new = old | {"prediction": ["dog", *labels[1:]]}
    changes = {"id": [0], "old_label": ["cat"], "new_label": [slip]}
    with pytest.raises(InputError, match=f"unknown class '{slip}', the corrected label of '0' in label_changes"):
        compare(old, new, label_changes=changes, max_nfr=0)
    found = compare(old, new, label_changes=changes | {"new_label": ["owl"]}, classes=["cat", "dog", "owl"], max_nfr=0)
    assert found["passed"] and found["label_changes"]["explained"] == 1


def test_names_that_are_the_same_are_so_in_corrections_too():
    labels = ["car", "dog", "owl", "owl"]
    old = {"id": range(4), "label": labels, "prediction": ["automobile", "car", "owl", "owl"]}
    new = {"id": range(4), "label": labels, "prediction": ["car", "owl", "owl", "owl"]}
    for name in ("car", "automobile"):
        changes = {"id": [1, 0], "old_label": ["dog", "automobile"], "new_label": [name, "car"]}
        found = compare(old, new, same={"automobile": "car"}, label_changes=changes)
        assert found["all_rows"]["negative_flips"] == 1 and not found["new_classes"]
        assert (found["label_changes"]["rows"], found["label_changes"]["revealed"]) == (1, 1)


@pytest.mark.parametrize("place", ["old_label", "new_label"])
def test_a_correction_whose_name_means_several_classes_is_refused(place):
    """Before the split, a dog could have been a puppy."""
    changes = {"id": [3], "old_label": ["cat"], "new_label": ["cat"], place: ["dog"]}
    labels = ["dog", "puppy", "dog" if place == "old_label" else "cat", "cat"]
    old, new = KEPT_OLD | {"label": labels}, KEPT_NEW | {"label": labels}
    split = {"split": {"dog": ["dog", "puppy"]}}
    old, new = (
        table | {"prediction": ["dog", "dog", "cat", "cat"], "class_names": names}
        for table, names in ((old, ["dog", "cat"]), (new, ["dog", "puppy", "cat"]))
    )
    with pytest.raises(InputError, match=r"'dog', the .* label of '3' in label_changes, means another class before"):
        compare(old, new, class_map=split, label_changes=changes)
    found = compare(old, new, class_map=split, label_changes=changes, classes=["dog", "puppy", "cat"])
    assert found["label_changes"]["rows"] == 1


def test_a_row_whose_label_is_unclear_is_not_called_one_without_a_label():
    old = {"id": [1, 2], "label": ["dog", "cat"], "prediction": ["dog", "cat"]}
    with pytest.raises(InputError) as error:
        compare(old, old | {"prediction": ["puppy", "cat"]}, class_map={"split": {"dog": ["puppy", "adult"]}})
    assert "no label" not in str(error.value) and "skip" not in str(error.value)


def test_in_a_chain_dogs_that_were_not_labelled_anew_are_found():
    """Labels of another step's part, or of another renamed class, do not show that these dogs are new ones."""
    ids, lost = [1, 2, 3, 4], lambda *versions, maps: chain([*versions], class_map=maps)["lost_from_any"]["count"]

    def version(labels, names):
        return {"id": ids, "label": labels, "prediction": labels, "class_names": names}

    first = version(["dog", "dog", "cat", "car"], ["dog", "cat", "car"])
    second = version(["dog", "puppy", "cat", "car"], ["dog", "puppy", "cat", "car"])
    third = version(["hound", "puppy", "cat", "automobile"], ["dog", "puppy", "hound", "cat", "automobile"])
    maps = [{"split": {"dog": ["dog", "puppy"]}}, {"split": {"dog": ["dog", "hound"]}, "rename": {"car": "automobile"}}]
    assert lost(first, second, third, maps=maps) == 0
    with pytest.raises(InputError, match=r"label 'dog', which means another .* and no label 'hound'"):
        lost(first, second, third | {"label": ["dog", "puppy", "cat", "automobile"]}, maps=maps)
    maps = [{"split": {"dog": ["dog", "puppy"]}, "rename": {"car": "auto"}}, {"rename": {"auto": "automobile"}}]
    second = version(["dog", "puppy", "cat", "auto"], ["dog", "puppy", "cat", "auto"])
    third = version(["dog", "puppy", "cat", "automobile"], ["dog", "puppy", "cat", "automobile"])
    assert lost(first, second, third, maps=maps) == 0
    half = {"label": ["dog", "dog", "cat", "auto"]}
    with pytest.raises(InputError, match=r"the version 3 arrays has the label 'dog', .* and no label 'puppy'"):
        lost(first, second | half, third | half, maps=maps)


def test_a_class_that_is_renamed_and_then_retired_is_one_class():
    ids = [1, 2]
    first = {"id": ids, "label": ["car", "cat"], "prediction": ["car", "cat"], "class_names": ["car", "cat"]}
    second = {"id": ids, "label": ["auto", "cat"], "prediction": ["auto", "cat"], "class_names": ["auto", "cat"]}
    third = {"id": ids, "label": ["", "cat"], "prediction": ["cat", "cat"], "class_names": ["cat"]}
    result = chain([first, second, third], class_map=[{"rename": {"car": "auto"}}, {"retire": ["auto"]}])
    assert [step["left_out"] for step in result["steps"]] == [{"rows of retired classes": 1}] * 2
