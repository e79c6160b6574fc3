"""A proposal for a class map is a valid map, and the right one where names or rows show it."""

import tomllib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpt_jax.class_map import ClassMap, carried_over, parse
from mpt_jax.compare import compare, suggest_class_map
from mpt_jax.compare.__main__ import main
from mpt_jax.errors import InputError

OLD = ["car", "tabby", "siamese", "dog", "dog", "owl", "disk"]
NEW = ["automobile", "cat", "cat", "puppy", "adult dog", "owl", "owl"]


def table(predictions, labels=None, times=10):
    rows = {"prediction": predictions * times} | ({"label": labels * times} if labels else {})
    return {"id": list(range(len(predictions) * times)), **rows}


def suggested(old, new, **options):
    return parse(tomllib.loads(suggest_class_map(old, new, **options)))


def test_predictions_show_renames_merges_and_splits():
    found = suggested(table(OLD[:-1]), table(NEW[:-1]))
    assert found == ClassMap({"car": "automobile"}, {"cat": ("siamese", "tabby")}, {"dog": ("adult dog", "puppy")})


def test_labels_of_each_release_show_more_than_predictions():
    labels = [*OLD[:-1], "owl"], [*NEW[:-1], "barn owl"]
    wrong = ["owl"] * len(OLD)
    text = suggest_class_map(table(wrong, labels[0]), table(wrong, labels[1]))
    assert "from the labels of 70 rows" in text and "# car: automobile 10 of 10 rows" in text
    assert parse(tomllib.loads(text)) == ClassMap(
        {"car": "automobile"},
        {"cat": ("siamese", "tabby")},
        {"dog": ("adult dog", "puppy"), "owl": ("barn owl", "owl")},
    )


def test_labels_show_a_split_that_keeps_the_name():
    known = table(["dog", "dog", "cat"], ["dog", "dog", "cat"]), table(["dog", "dog", "cat"], ["dog", "puppy", "cat"])
    assert suggested(*known) == ClassMap(split={"dog": ("dog", "puppy")})
    # A class that the new model does not know is retired, also if its images keep the label.
    known = (
        table(["dog", "dog", "disk"], ["dog", "dog", "disk"]),
        table(["dog", "puppy", "dog"], ["dog", "puppy", "disk"]),
    )
    text = suggest_class_map(*known)
    assert parse(tomllib.loads(text)) == ClassMap(split={"dog": ("dog", "puppy")}, retire=("disk",))
    assert "# retired: disk: disk 10 of 10 rows" in text
    # Labels of the same release in both files show nothing, whatever is missing in one of them.
    same = table(["car", "owl"], ["automobile", ""]), table(["automobile", "fox"], ["automobile", "fox"])
    assert suggested(*same).rename["car"] == "automobile"


def test_that_an_old_model_takes_a_new_class_for_one_that_stays_is_no_split():
    text = suggest_class_map(table(["owl", "owl"]), table(["owl", "barn owl"]))
    assert parse(tomllib.loads(text)) == ClassMap() and "# new: barn owl (10 rows)" in text


def test_a_class_that_comes_nowhere_is_retired_and_one_from_nowhere_is_new():
    old = table(["disk", "disk", "disk", "owl", "hen", "jay"])
    new = table(["owl", "hen", "jay", "owl", "hen", "fox"])
    text = suggest_class_map(old, new)
    assert parse(tomllib.loads(text)) == ClassMap(retire=("disk",))
    assert "# retired: disk: hen 10, jay 10, owl 10 of 30 rows" in text and "# new: fox (10 rows)" in text


def test_names_show_a_rename_where_rows_do_not():
    old, new = {"id": [1], "prediction": ["owl"]}, {"id": [1], "prediction": ["owl"]}
    known = {"class_names": ["owl", "Traffic_Light"]}, {"class_names": ["owl", "traffic light"]}
    assert suggested(old | known[0], new | known[1]) == ClassMap({"Traffic_Light": "traffic light"})


def test_what_is_neither_is_left_to_the_person():
    old, new = table(["a", "a", "a", "b", "b", "b"]), table(["x", "x", "y", "x", "x", "z"])
    found = suggest_class_map(old, new)
    assert "# unclear, and not in this map: a: x 20, y 10, z 0 of 30 rows; b: x 20, y 0, z 10 of 30 rows" in found
    assert parse(tomllib.loads(found)) == ClassMap()


NAMES = st.sampled_from(["a", "b", "c", 'say "x"', "tab\there", "= [x]", "#", "\x7f", "é"])


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(NAMES, NAMES, NAMES, NAMES), min_size=1, max_size=12))
def test_a_proposal_is_always_a_valid_map(rows):
    old_labels, old, new_labels, new = (list(column) for column in zip(*rows, strict=True))
    for labels in ((None, None), (old_labels, new_labels)):
        found = suggested(table(old, labels[0], 1), table(new, labels[1], 1))
        assert carried_over(found, sorted({*old, *found.changed(), "stays"}))


def test_the_command_prints_it_and_takes_no_limit(tmp_path, capsys):
    for name, predictions in (("old.csv", OLD[:-1]), ("new.csv", NEW[:-1])):
        rows = "".join(f"{place},{each}\n" for place, each in enumerate(predictions))
        (tmp_path / name).write_text(f"id,prediction\n{rows}")
    files = [str(tmp_path / name) for name in ("old.csv", "new.csv")]
    assert main(["--suggest-class-map", *files]) == 0
    (tmp_path / "map.toml").write_text(capsys.readouterr().out)
    labelled = table(NEW[:-1], NEW[:-1], 1)
    result = compare(table(OLD[:-1], NEW[:-1], 1), labelled, class_map=tmp_path / "map.toml")
    assert result["all_rows"]["both_right"] == 6
    for more in (["--max-nfr", "0.1"], ["--json", str(tmp_path / "out.json")], [files[0]]):
        assert main(["--suggest-class-map", *files, *more]) == 2
        out, err = capsys.readouterr()
        assert not out and err.count("\n") == 1
    assert "expected no third file" in (tmp_path / "out.json").read_text()
    with pytest.raises(InputError, match="unknown option 'max_nfr' with suggest_class_map"):
        suggest_class_map(labelled, labelled, max_nfr=0.1)
