"""One JSON document is a table in each way that people and pandas write it, or one clear error."""

import json

import pytest

from mpt_jax.errors import InputError
from mpt_jax.files.predictions import json_table

TABLE = {"id": [1, 2], "label": ["cat", None], "scores": [[0.5, 1.0], [2.0, 3.0]]}
ROWS = [dict(zip(TABLE, row, strict=True)) for row in zip(*TABLE.values(), strict=True)]


@pytest.mark.parametrize(
    "value",
    [
        ROWS,
        TABLE,
        {"columns": list(TABLE), "index": [7, 8], "data": [list(row.values()) for row in ROWS]},
        {name: {"7": values[0], "8": values[1]} for name, values in TABLE.items()},
        {name: dict(sorted({"8": values[1], "7": values[0]}.items())) for name, values in TABLE.items()},
        {"a": ROWS[0], "b": ROWS[1]},
        {"schema": {"fields": []}, "data": ROWS},
        {"model": "v1", "predictions": ROWS},
    ],
)
def test_rows_and_columns_are_the_same_table(value):
    assert json_table.read(json.dumps(value), "it", ["id"]) == TABLE


def test_pandas_writes_them(tmp_path):
    frame = pytest.importorskip("pandas").DataFrame(TABLE)
    for orient in ("columns", "records", "split", "index", "table"):
        found = json_table.read(frame.to_json(orient=orient), "it", ["id"])
        assert {name: found[name] for name in TABLE} == TABLE
    with pytest.raises(InputError, match=r"it: row 1 is \[1, .*expected an array of objects"):
        json_table.read(frame.to_json(orient="values"), "it", ["id"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "has no rows"),
        ("3", "it is 3; expected an array of objects"),
        ("{}", r"it is \{\}; expected"),
        ("[1, 2]", "row 1 is 1; expected"),
        ('{"a": {"label": 1}, "b": {"label": 2}}', "an object of objects by 'a', 'b'; expected"),
        ('{"id": {"0": 1}, "label": {"1": 2}}', "the column 'label' has other rows than the first"),
        ('{"id": [1], "label": 2}', "is an object with 'id', 'label'; expected"),
        ('{"columns": ["id", "label"], "data": [[1]]}', "rows without one value for each of its 2 columns"),
        ('[{"id": 1, "id": 2}]', "the key 'id' twice"),
    ],
)
def test_another_structure_is_an_error(text, message):
    with pytest.raises(InputError, match=message):
        json_table.read(text, "it", ["id"])
