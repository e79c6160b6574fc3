"""Names of classes that would hide a flip are found, counted and named, with what would mend them."""

import shlex
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpt_jax.compare import compare, vocabulary
from mpt_jax.compare.__main__ import main
from mpt_jax.errors import InputError

E_COMPOSED, E_DECOMPOSED = unicodedata.normalize("NFC", "café"), unicodedata.normalize("NFD", "café")
HIDDEN = {  # kind -> OLD's file, NEW's predictions, what the error names, what mends it, the flips that then show
    "case": (
        "id,label,prediction\n1,cat,Cat\n2,cat,cat\n3,dog,dog\n",
        ["dog", "cat", "dog"],
        "'cat' in 2 labels, .* and 'Cat' in 1 predictions of",
        ["--same", "Cat=cat"],
    ),
    "Unicode": (
        f"id,label,prediction\n1,{E_COMPOSED},{E_DECOMPOSED}\n2,tea,tea\n",
        ["tea", "tea"],
        "look like one class",
        ["--same", f"{E_DECOMPOSED}={E_COMPOSED}"],
    ),
    "a column that is no class": (
        "id,label,score_max,score_a,score_b\n1,a,.91,.9,.1\n2,b,.81,.2,.8\n",
        ["b", "a"],
        "predicts 'max' .2 rows. by the columns of its scores, never a label",
        None,
    ),
    "labels from 1, predictions from 0": (
        "id,label,prediction\n1,1,0\n2,2,1\n",
        ["0", "1"],
        "never predicts '2' .1 row., and predicts '0' .1 row., never a label",
        None,
    ),
    "mixed prefixes": (
        "id,label,logit_a,score_b\n1,a,-2,.1\n2,b,-3,.9\n",
        ["b", "b"],
        "scores that begin with 'logit' and with 'score'",
        None,
    ),
    "other names": (
        "id,label,prediction\n1,car,automobile\n2,dog,dog\n",
        ["dog", "dog"],
        "--same automobile=car",
        ["--same", "automobile=car"],
    ),
    "white space": (
        "id,label,prediction\n1,hot dog,hot dog \n2,cat,cat\n",
        ["cat", "cat"],
        "look like one class",
        ["--same", "hot dog =hot dog"],
    ),
    "punctuation": (
        "id,label,prediction\n1,hot-dog,hot_dog\n2,cat,cat\n",
        ["cat", "cat"],
        "look like one class",
        ["--same", "hot_dog=hot-dog"],
    ),
    "writing of a number": (
        "id,label,prediction\n1,01,1\n2,02,02\n",
        ["02", "02"],
        "look like one class",
        ["--same", "1=01"],
    ),
}


@pytest.mark.parametrize("kind", HIDDEN)
def test_no_flip_is_hidden(kind, tmp_path, capsys):
    table, predictions, message, mend = HIDDEN[kind]
    _, *rows = table.splitlines()
    labels = [row.split(",")[1] for row in rows]
    old, new = tmp_path / "old.csv", tmp_path / "new.csv"
    old.write_text(table, encoding="utf-8")
    lines = [f"{i},{label},{answer}\n" for i, (label, answer) in enumerate(zip(labels, predictions, strict=True), 1)]
    new.write_text("id,label,prediction\n" + "".join(lines), encoding="utf-8")
    with pytest.raises(InputError, match=message):
        compare(old, new, max_nfr=0)
    assert main([str(old), str(new), "--max-nfr=0"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    if mend:
        assert mend[1].split("=")[0] in error and "--same" in error
        assert main([str(old), str(new), "--max-nfr=0", *mend]) == 1


def test_a_column_beside_the_scores_that_only_ties_with_them_hides_nothing():
    old = {"id": [1, 2], "label": ["a", "b"], "score_max": [0.9, 0.8], "score_a": [0.9, 0.2], "score_b": [0.1, 0.8]}
    new = {"id": [1, 2], "label": ["a", "b"], "prediction": ["b", "a"]}
    assert compare(old, new)["all_rows"]["negative_flips"] == 2


def test_classes_that_are_listed_may_look_alike():
    table = {"id": [1, 2, 3, 4], "label": ["c", "c", "c++", "C"], "prediction": ["c", "c++", "c++", "C"]}
    with pytest.raises(InputError, match="look like one class"):
        compare(table, table)
    assert compare(table, table, classes=["c", "c++", "C"])["classes"]["count"] == 3


def test_a_class_without_rows_and_new_classes_are_told_apart_by_old_classes():
    old = {"id": [1, 2, 3], "label": ["cat", "dog", "owl"], "prediction": ["cat", "zebra", "cat"]}
    new = old | {"prediction": ["cat", "dog", "owl"]}
    with pytest.raises(InputError, match=r"never predicts 'dog' \(1 row\), 'owl' \(1 row\), and predicts 'zebra'"):
        compare(old, new)
    found = compare(old, new, old_classes=["cat", "dog", "zebra"])
    assert found["new_classes"] == [{"class": "owl", "rows": 1}]


def with_another_name(*, new_class_rows):
    """Return tables of a model that says car for automobile, and of one that takes both for the new class owl."""
    labels = ["cat"] * 40 + ["automobile"] * 20 + ["owl"] * new_class_rows
    old = ["cat"] * 40 + ["car"] * 19 + ["cat"] + ["car", "cat", "cat"] * (new_class_rows // 3)
    new = ["cat"] * 40 + ["owl"] * (20 + new_class_rows)
    ids = list(range(len(labels)))
    return {"id": ids, "label": labels, "prediction": old}, {"id": ids, "label": labels, "prediction": new}


@pytest.mark.parametrize("new_class_rows", [6, 60])
def test_the_proposed_name_is_that_of_the_rows_and_not_of_the_most_frequent_label(new_class_rows):
    old, new = with_another_name(new_class_rows=new_class_rows)
    with pytest.raises(InputError, match=r"expected --same car=automobile \(19 of 20 rows\) for each, --classes"):
        compare(old, new)
    found = compare(old, new, same={"car": "automobile"})
    assert found["old_classes_rows"]["negative_flips"] == 19


def test_a_wrong_pair_of_names_is_refused_for_what_the_old_model_then_confuses():
    old, new = with_another_name(new_class_rows=45)
    with pytest.raises(InputError, match="'owl' for 19 of 20 rows of 'automobile'"):
        compare(old, new, same={"car": "owl"})


def test_no_name_is_proposed_that_the_rows_do_not_show():
    table = {"id": [1, 2, 3, 4], "label": ["cat", "cat", "dog", "dog"], "prediction": ["cat", "cat", "fox", "cat"]}
    with pytest.raises(InputError, match="expected --same OLD=LABEL for each"):
        compare(table, table)


def test_a_proposed_option_can_be_pasted_into_a_shell():
    odd = "it's <5"
    table = {"id": [1, 2], "label": [odd, "dog"], "prediction": [f"{odd}.", "dog"]}
    with pytest.raises(InputError) as error:
        compare(table, table)
    proposed = str(error.value).partition("make them one with ")[2].partition(", or keep")[0]
    assert shlex.split(proposed) == ["--same", f"{odd}.={odd}"]


@pytest.mark.parametrize(
    ("same", "message"),
    [
        ({"dgo": "cat"}, "unknown class 'dgo' in same; did you mean 'dog'"),
        ({"cat": "dog", "dog": "owl"}, "'cat' is 'dog', and that 'dog' is 'owl'; expected one step"),
    ],
)
def test_names_that_are_the_same_are_checked(same, message):
    table = {"id": [1, 2], "label": ["cat", "dog"], "prediction": ["cat", "dog"]}
    with pytest.raises(InputError, match=message):
        compare(table, table, same=same)


@given(st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=5))
def test_spelling_ignores_case_form_and_space(name):
    for other in (unicodedata.normalize("NFD", name), unicodedata.normalize("NFC", name), f" {name} ", f"{name}."):
        assert vocabulary.spelling(other) == vocabulary.spelling(name)


def test_every_row_is_counted():
    found = vocabulary.problems(
        {"cat": 3, "dog": 2}, {"Cat": 2, "cat": 1, "dog": 2}, {"cat": 3, "dog": 2}, names=("old.csv", "new.csv")
    )
    assert found == [
        "'cat' in 3 labels, 1 predictions of old.csv, 3 predictions of new.csv and 'Cat' in 2 predictions of old.csv "
        "look like one class; expected one spelling: make them one with --same Cat=cat, or keep them apart with "
        "--classes and all names"
    ]
