"""Policies: a file gives what the same options do, and limits of single classes."""

import pytest

from mpt_jax.compare import __main__ as command
from mpt_jax.compare import compare, policy
from mpt_jax.errors import InputError

OLD = {"id": range(400), "label": ["a", "b"] * 200, "prediction": ["a", "b"] * 200}
NEW = OLD | {"prediction": ["b", *OLD["prediction"][1:]]}  # one flip of class a


def write(path, text):
    path.write_text(text)
    return path


def test_a_file_gives_what_the_options_do(tmp_path):
    file = write(tmp_path / "gate.toml", "max-nfr = 0.1\nmin_accuracy = 0.9\nmin-rows = 3\nundecided = 'pass'\n")
    found = compare(OLD, NEW, policy=file)
    assert found["checks"] == compare(OLD, NEW, max_nfr=0.1, min_accuracy=0.9, min_rows=3, undecided="pass")["checks"]
    assert {"policy": str(file), "max_nfr": 0.1, "undecided": "pass"}.items() <= found["options"].items()
    (record,) = [each for each in found["inputs"] if each["role"] == "policy"]
    assert record["kind"] == "file" and len(record["sha256"]) == 64


def test_the_command_line_overrides_the_file(tmp_path, capsys):
    file = write(tmp_path / "gate.toml", "max-nfr = 0.0\n")
    for name, table in (("old", OLD), ("new", NEW)):
        rows = zip(*table.values(), strict=True)
        write(tmp_path / f"{name}.csv", "id,label,prediction\n" + "".join(f"{a},{b},{c}\n" for a, b, c in rows))
    line = [str(tmp_path / "old.csv"), str(tmp_path / "new.csv"), "--policy", str(file)]
    assert command.main(line) == 1 and command.main([*line, "--max-nfr=0.1"]) == 0
    assert "max_nfr" in capsys.readouterr().out


def test_a_class_may_have_limits_of_its_own(tmp_path):
    found = compare(OLD, NEW, policy={"class": {"a": {"max-nfr": 0}}})
    (check,) = found["checks"]
    assert (
        check["limit"] == "max_class_nfr" and check["verdict"] == "regression" and check["where"].startswith("class a")
    )
    assert compare(OLD, NEW, policy={"class": {"b": {"max-nfr": 0, "max-accuracy-drop": 0}}})["passed"]
    assert compare(OLD, NEW, policy={"confident": True, "class": {"a": {"max-nfr": 0.1}}})["passed"]


def test_paths_start_from_the_folder_of_the_file(tmp_path, monkeypatch):
    write(tmp_path / "labels.csv", "id,label\n1,a\n2,b\n")
    file = write(tmp_path / "gate.toml", "labels = 'labels.csv'\nmax-nfr = 0.0\n")
    monkeypatch.chdir(tmp_path.parent)
    table = {"id": [1, 2], "prediction": ["a", "b"]}
    assert compare(table, table, policy=file)["passed"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("max-nrf = 0.1", "gate.toml: unknown option 'max_nrf'; did you mean 'max_nfr'"),
        ("max-nfr = ", "gate.toml: .*expected options in TOML"),
        ("max-nfr = 1.5", "gate.toml: max_nfr is 1.5; expected a fraction below 1"),
        ("[class.a]\nmax-nfr = 2", "gate.toml: max_nfr is 2"),
        ("[class.a]\nmax-nrf = 0", "unknown limit 'max_nrf' of class 'a'; did you mean 'max_nfr'"),
        ("slice = 'site'\n[slice.site]\nmax-nfr = 0", r"expected \[slice.NAME\] for each slice in place of slice ="),
        ("min-rows = 50", "gate.toml: it has no limits, so that every model would pass; expected max-nfr"),
        ("[class.a]", "gate.toml: it has no limits"),
        ("x = " + "[" * 100_000, "expected options in TOML"),
        ("class = 1", "class is 1; expected a table for each, such as \\[class.cat\\]"),
        ("[class.c]\nmax-nfr = 0.1", "the policy has limits of class 'c', which no row has"),
    ],
)
def test_files_that_are_not_valid(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        compare(OLD, NEW, policy=write(tmp_path / "gate.toml", text))


def test_no_such_file(tmp_path):
    with pytest.raises(InputError, match="no such file; expected a policy in TOML"):
        policy.read(tmp_path / "gate.toml", {})


def test_slices_may_have_limits_of_their_own():
    columns = {"site": ["x", "y", "x", "z"] * 100, "night": [True, False] * 200}
    old, new = OLD | columns, NEW | {"prediction": [*"bbab" * 10, *OLD["prediction"][40:]]}  # ten flips at site x
    given = {"slice": {"site": {"max-nfr": 0.01, "x": {"max-nfr": 0.2}}, "night": {"max-accuracy-drop": 0.3}}}
    found = compare(old, new, policy=given)
    assert {row["column"] for row in found["slices"]} == {"site", "night"} and found["passed"]
    (nfr, drop) = found["checks"]
    assert nfr["groups"]["count"] == 3 and drop["groups"]["count"] == 2
    given["slice"]["site"].pop("x")
    assert compare(old, new, policy=given)["checks"][0]["where"] == "slice site=x, 200 rows"
    with pytest.raises(InputError, match="limits of slice 'site=q', which no row has"):
        compare(old, new, policy={"slice": {"site": {"q": {"max-nfr": 0.1}}}})
