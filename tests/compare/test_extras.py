"""Slices, weights and examples that must pass: from any of the files, matched by id, or an error with the rows."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpt_jax.compare import compare, pairs, text
from mpt_jax.compare.factors import MISSING
from mpt_jax.errors import InputError
from mpt_jax.files.predictions import formats

OLD = {
    "id": ["a", "b", "c", "d"],
    "label": [0, 1, 0, 1],
    "prediction": [0, 1, 1, 1],
    "time": ["day", "", "day", "night"],
}
NEW = {"id": ["d", "c", "b", "a"], "label": [1, 0, 1, 0], "prediction": [1, 0, 0, 0], "camera": [4, 3, 2, 1]}
META = {"id": ["z", "c", "a"], "site": ["rome", "oslo", "bonn"], "label": [[1], [2], [3]]}


def values(pair, column):
    factor = pair.extras.factors[column]
    return [factor.names[code] for code in factor.codes]


def test_columns_of_every_file_are_in_the_order_of_the_first():
    pair = pairs.read(OLD, NEW, extra=["time", "camera", "site"], metadata=META)
    assert values(pair, "time") == ["day", MISSING, "day", "night"]
    assert values(pair, "camera") == ["1", "2", "3", "4"]
    assert values(pair, "site") == ["bonn", MISSING, "oslo", MISSING]
    assert pairs.read(OLD, NEW).extras == pairs.Extras()


def test_columns_of_a_file_of_labels_and_rows_without_a_label():
    labels = {"id": ["b", "a", "d"], "label": [1, 0, 1], "site": ["oslo", "bonn", "rome"]}
    old, new = ({key: table[key] for key in table if key != "label"} for table in (OLD, NEW))
    pair = pairs.read(
        old, new, labels=labels, unlabelled="skip", extra=["site", "time"], must_pass=["d"], weight="camera"
    )
    assert values(pair, "site") == ["bonn", "oslo", "rome"] and values(pair, "time") == ["day", MISSING, "night"]
    assert pair.extras.must_pass.tolist() == [2] and pair.extras.weights.tolist() == [0.25, 0.5, 1.0]
    with pytest.raises(InputError, match=r"with no label: 'c'; expected one for each id of must_pass"):
        pairs.read(old, new, labels=labels, unlabelled="skip", must_pass=["d", "c"])


@pytest.mark.parametrize("name", ["m.csv", "m.parquet", "m.jsonl", "m.npz", "m.tsv"])
def test_metadata_in_any_format_and_with_other_names(name, tmp_path, monkeypatch):
    monkeypatch.setattr(formats, "ROWS", 2)
    path, columns = (
        tmp_path / name,
        {"uid": ["d", "a", "b"], "n": [10, 7, 10], "w": [1.5, 0.5, 2.0], "t": ["x", "y", "x"]},
    )
    if name.endswith("npz"):
        np.savez(path, **{key: np.array(each) for key, each in columns.items()})
    elif name.endswith("jsonl"):
        rows = (dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True))
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif name.endswith("parquet"):
        pyarrow.parquet.write_table(pa.table(columns), path)
    else:
        mark = "," if name.endswith("csv") else "\t"
        lines = [list(columns), *zip(*columns.values(), strict=True)]
        path.write_text("".join(mark.join(map(str, line)) + "\n" for line in lines))
    old, new = ({"uid" if key == "id" else key: each for key, each in table.items()} for table in (OLD, NEW))
    pair = pairs.read(old, new, extra=["n", "t"], metadata=path, columns={"id": "uid"})
    assert values(pair, "n") == ["7", "10", MISSING, "10"] and values(pair, "t") == ["y", "x", MISSING, "x"]
    with pytest.raises(InputError, match="1 row of the old arrays with no weight: 'c'; expected a number of 0 or more"):
        pairs.read(old, new, weight="w", metadata=path, columns={"id": "uid"})


def test_weights_are_relative_to_the_largest():
    pair = pairs.read(OLD, NEW | {"w": [1e300, 0, 5e299, 1e-300]}, weight="w")
    assert pair.extras.weights.tolist() == [1e-300 / 1e300, 0.5, 0.0, 1.0]


def test_the_halves_depend_on_the_ids_alone():
    ids = [f"image_{i}" for i in range(4000)]
    table = {"id": ids, "label": [0] * 4000, "prediction": [0] * 4000, "p": ["x"] * 4000, "q": ["y"] * 4000}
    half = pairs.read(table, table, extra=["p", "q"]).extras.second_half
    assert abs(half.mean() - 0.5) < 0.04
    order = np.random.default_rng(0).permutation(4000)
    turned = table | {"id": [ids[place] for place in order]}
    again = pairs.read(turned, table, extra=["p", "q"]).extras.second_half
    assert np.array_equal(again, half[order])
    assert (
        abs(half[0::2].mean() - half[1::2].mean()) < 0.05
        and pairs.read(table, table, extra=["p"]).extras.second_half is None
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"extra": ["tyme"]}, "unknown column 'tyme' for slice; did you mean 'time'?"),
        ({"extra": ["time", "time"]}, "slice 'time' is given twice"),
        ({"weight": "site"}, "unknown column 'site' for weight"),
        ({"metadata": META}, "the metadata' arrays is given without slice or weight; expected a slice or weight of"),
        ({"metadata": META, "extra": ["time"]}, "the metadata' arrays has none of the columns 'time'"),
        ({"metadata": {"site": [1]}, "extra": ["site"]}, "expected one called 'id'"),
        ({"metadata": {"id": ["q"], "site": [1]}, "extra": ["site"]}, "no id of the old arrays, such as 'a', is in"),
        ({"metadata": {"id": ["a", "a"], "site": [1, 1]}, "extra": ["site"]}, "an id that occurs again: 'a'"),
        ({"metadata": {"id": ["a", ""], "site": [1, 1]}, "extra": ["site"]}, "with no id"),
        (
            {"metadata": {"id": ["a"], "time": ["noon"]}, "extra": ["time"]},
            "column 'time' differs between .*: 1 row, such as 'a'",
        ),
        ({"extra": ["scores"]}, "unknown column 'scores' for slice"),
        ({"weight": "time"}, "column 'time': .*'night'.*expected a number in each row"),
        (
            {"metadata": {"id": ["a"], "w": [-1]}, "weight": "w"},
            "1 row of the old arrays with a weight below 0 or infinite: 'a'",
        ),
        ({"metadata": {"id": list("abcd"), "w": [0] * 4}, "weight": "w"}, "the weights in column 'w' are all 0"),
        ({"must_pass": []}, "must_pass has no ids"),
        ({"must_pass": ["a", "x", "y"]}, "2 ids of must_pass are not in the old arrays: 'x', 'y'; expected"),
        ({"must_pass": "nowhere.txt"}, "nowhere.txt: no such file; expected one id per line"),
        ({"must_pass": {"uid": ["a"]}}, "expected one called 'id'"),
    ],
)
def test_what_does_not_fit_is_an_error(options, message):
    with pytest.raises(InputError, match=message):
        pairs.read(OLD, NEW, **options)


def test_weights_that_differ_or_that_the_known_classes_lack_are_errors():
    with pytest.raises(InputError, match=r"weights 'w' differ between .*: 1 row, such as 'b'"):
        pairs.read(OLD | {"w": [1, 2, 3, 4]}, NEW | {"w": [4, 3, 1, 1]}, weight="w")
    new = {"id": ["a", "b"], "label": [0, 1], "prediction": [0, 0]}
    with pytest.raises(InputError, match=r"weights of the rows whose label .* are all 0"):
        pairs.read(new | {"w": [0, 1]}, new, weight="w")


@pytest.mark.parametrize("content", ["c\nb\n", "\ufeffb\r\n\r\nc\r\n", "b\nb\nc"])
def test_a_file_of_ids_that_must_pass(content, tmp_path):
    path = tmp_path / "ids.txt"
    path.write_bytes(content.encode())
    assert pairs.read(OLD, NEW, must_pass=path).extras.must_pass.tolist() == [1, 2]
    table = tmp_path / "ids.csv"
    table.write_text("note,id\nx,c\ny,b\n")
    assert pairs.read(OLD, NEW, must_pass=table).extras.must_pass.tolist() == [1, 2]
    assert pairs.read(OLD, NEW, must_pass=pa.table({"id": ["c", "b"]})).extras.must_pass.tolist() == [1, 2]


def test_any_flip_of_an_example_that_must_pass_is_a_regression():
    found = compare(OLD, NEW, must_pass=["b", "c"], undecided="pass")
    assert not found["passed"] and found["verdict"] == "regression"
    (check,) = found["checks"]
    assert check["limit"] == "must_pass" and check["value"] == 0.5 and check["allowed"] == 0
    assert found["must_pass"] == {
        **{"rows": 2, "both_right": 0, "negative_flips": 1, "positive_flips": 1, "both_wrong": 0},
        "flips": [{"id": "b", "label": "1", "old": "1", "new": "0"}],
    }
    assert compare(OLD, NEW, must_pass=["a", "c", "d"])["passed"]


ROWS = st.lists(
    st.tuples(st.integers(0, 2), st.integers(0, 1), st.integers(0, 2), st.integers(0, 4)), min_size=1
).filter(lambda rows: any(label < 2 and weight for label, _, _, weight in rows))


@given(ROWS)
def test_weighted_rates_are_those_of_rows_repeated_by_their_weight(rows):
    def table(rows, which, **more):
        columns = {"id": [str(i) for i in range(len(rows))], "label": [row[0] for row in rows]}
        return columns | {"prediction": [row[which] for row in rows]} | more

    options = {"old_classes": 2, "allow_poor_old": True, "classes": ["x", "y", "z"]}
    weights = [row[3] for row in rows]
    found = compare(table(rows, 1, w=weights), table(rows, 2), weight="w", **options)
    repeated = [row for row in rows for _ in range(row[3])]
    expected = compare(table(repeated, 1), table(repeated, 2), **options)
    for part in ("old_classes_rows", "all_rows"):
        for key, value in expected[part].items():
            if isinstance(value, float) and key != "mcnemar_p":
                assert found[part][key] == pytest.approx(value, abs=1e-9), key
        chosen = [row for row in rows if row[0] < 2 or part == "all_rows"]
        squares = sum(row[3] ** 2 for row in chosen)
        assert found[part]["effective_rows"] == pytest.approx(sum(row[3] for row in chosen) ** 2 / squares)
        assert found[part]["count"] == len(chosen)
        assert found[part]["negative_flips"] == sum(a == label != b for label, a, b, _ in chosen)
        low, high = found[part]["intervals"]["nfr"]
        assert low - 1e-9 <= found[part]["nfr"] <= high + 1e-9
    rates = {row["class"]: row for row in expected["per_class"]}
    for row in found["per_class"]:
        assert row["nfr"] == pytest.approx(rates[row["class"]]["nfr"] if row["class"] in rates else 0.0)


@given(ROWS)
def test_equal_weights_change_nothing(rows):
    columns = {"id": [str(i) for i in range(len(rows))], "label": [row[0] for row in rows], "w": [0.3] * len(rows)}
    old, new = (columns | {"prediction": [row[which] for row in rows]} for which in (1, 2))
    options = {"old_classes": 2, "allow_poor_old": True, "max_nfr": 0.1, "max_class_nfr": 0.2, "slices": ["label"]}
    plain, weighted = compare(old, new, **options), compare(old, new, weight="w", **options)
    for part in ("old_classes_rows", "all_rows"):
        assert weighted[part].pop("effective_rows") == pytest.approx(plain[part]["count"])
        intervals = weighted[part].pop("intervals"), plain[part].pop("intervals")
        assert intervals[0]["nfr"] == pytest.approx(intervals[1]["nfr"])
        assert weighted[part] == pytest.approx(plain[part])
    assert [check["verdict"] for check in weighted["checks"]] == [check["verdict"] for check in plain["checks"]]


def test_a_limit_on_slices_holds_each_of_them():
    count = 4000
    labels, sites = np.zeros(count, int), np.arange(count) % 4
    new = np.where((sites == 2) & (np.arange(count) % 10 < 2), 1, 0)
    old_table = {"id": np.arange(count), "label": labels, "prediction": labels, "site": sites}
    new_table = {"id": np.arange(count), "label": labels, "prediction": new}
    found = compare(
        old_table, new_table, slices=["site"], max_slice_nfr=0.05, max_slice_accuracy_drop=0.05, max_nfr=0.1
    )
    verdicts = {check["limit"]: check["verdict"] for check in found["checks"]}
    assert verdicts == {"max_nfr": "pass", "max_slice_nfr": "regression", "max_slice_accuracy_drop": "regression"}
    for check in found["checks"][1:]:
        assert [group["group"] for group in check["groups"]["regression"]] == ["site=2"] and check["groups"][
            "count"
        ] == 4
        assert check["where"] == "slice site=2, 1,000 rows"
    small = compare(old_table, new_table, slices=["site"], max_slice_nfr=0.05, min_rows=1001)
    assert len(small["checks"][0]["groups"]["not_judged"]) == 4
    with pytest.raises(InputError, match="a limit on slices is given without slices"):
        compare(old_table, new_table, max_slice_nfr=0.05)
    with pytest.raises(InputError, match="slices is 'site'; expected a list"):
        compare(old_table, new_table, slices="site")


def test_a_slice_is_a_column_of_groups():
    def table(values):
        rows = range(len(values))
        return {"id": rows, "label": [0, 1] * (len(rows) // 2), "prediction": [0, 1] * (len(rows) // 2), "x": values}

    fine, coarse = [i + 0.5 for i in range(120)], [i // 2 for i in range(120)]
    with pytest.raises(InputError, match=r"slice 'x' has 120 values in 120 rows; expected a column of groups: divide"):
        compare(table(fine), table(fine), slices=["x"])
    assert len(compare(table(coarse), table(coarse), slices=["x"])["slices"]) == 60
    assert len(compare(table(fine[:98]), table(fine[:98]), slices=["x"])["slices"]) == 98


def test_a_slice_without_weight_can_be_held_against_every_limit():
    old = {"id": [1, 2, 3], "label": [0, 1, 0], "prediction": [0, 1, 0], "x": ["a", "a", "b"], "w": [1, 1, 0]}
    limits = {"max_slice_nfr": 0.1, "max_slice_accuracy_drop": 0.1}
    found = compare(old, old | {"prediction": [0, 1, 1]}, slices=["x"], weight="w", **limits)
    assert found["passed"] and found["weightless"] == {"rows": 1, "negative_flips": 1}


def test_rows_that_the_metadata_lack_are_counted_and_a_writing_that_differs_is_refused():
    ids = [f"img-{i}" for i in range(40)]
    labels = ["a", "b"] * 20
    table = {"id": ids, "label": labels, "prediction": labels}
    metadata = {"id": ids[:30], "country": ["IS", "is", "FR"] * 10}
    found = compare(table, table, metadata=metadata, slices=["country"])
    assert found["without_metadata"] == 10
    assert text.notes(found)[-2:] == [
        "The metadata lack 10 rows, whose slice is (missing)",
        "Values of the slice country that look like one: 'IS' and 'is'",
    ]
    whole = {"id": ids, "country": ["IS", "FR"] * 20}
    assert "without_metadata" not in compare(table, table, metadata=whole, slices=["country"])
    with pytest.raises(
        InputError, match=r"lacks 38 rows of .*; 'img-2' and 'IMG_2' differ only in case or punctuation"
    ):
        compare(
            table, table, metadata=whole | {"id": [*ids[:2], *(f"IMG_{i}" for i in range(2, 40))]}, slices=["country"]
        )
