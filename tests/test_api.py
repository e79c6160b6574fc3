"""The Python API: a run, its report in a notebook and on a terminal, and the names of the package."""

import functools
import html.parser
import json
import pathlib
import re

import jax
import pytest

import mpt_jax
from mpt_jax import api
from mpt_jax import config as configs
from mpt_jax.errors import InputError
from mpt_jax.training import sharding

ROOT = pathlib.Path(__file__).resolve().parents[1]
DIGITS = ROOT / "configs/digits.py"
METHODS = ["independent", "no_treatment", "mpt_kl"]


@pytest.fixture(scope="module", autouse=True)
def one_device():
    """Programs for one of the eight devices, which compile faster."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sharding, "make_mesh", functools.partial(sharding.make_mesh, jax.devices()[:1]))
        yield


@pytest.fixture(scope="module")
def overrides(features_file):
    """Values that make a run small: linear models on the digits' pixels as features."""
    return {
        **{"seeds": (0, 1), "optimizer.epochs": 1, "model.name": "linear", "dataset.name": str(features_file)},
        **{"dataset.data_dir": "", "update.methods": "no_treatment,mpt_kl", "update.tune": {}},
    }


@pytest.fixture(scope="module")
def lines():
    """The metrics lines that the run of `report` passed to its function."""
    return []


@pytest.fixture(scope="module")
def report(overrides, lines, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("api") / "run"
    return mpt_jax.run(str(DIGITS), workdir, overrides=overrides, on_metrics=lines.append)


def test_a_run_returns_what_its_report_file_holds(report):
    written = json.loads(report.paths["json"].read_text())
    assert written["classes"]["order"][0] == "digit 0"
    assert report.rows == written["rows"] and [row["method"] for row in report.rows[::2]] == METHODS
    assert report.summary == written["summary"] and report.summary["mpt_kl"]["nfr"]["count"] == 2
    assert report.comparison == written["comparison"] and report.comparison["baseline"] == "no_treatment"
    assert all(path.exists() and path.parent == report.workdir for path in report.paths.values())
    begun_with = written["command"]
    assert begun_with.startswith(f"mpt_jax.run({str(DIGITS)!r}, {str(report.workdir)!r}, overrides={{'seeds': (0, 1)")
    assert len(list(report.paths["releases"].iterdir())) == len(list(report.paths["predictions"].iterdir())) == 2 * 4


def test_the_metrics_function_gets_every_line(report, lines):
    text = (report.workdir / "metrics.jsonl").read_text()
    assert lines and lines == [json.loads(line) for line in text.splitlines()]


class Tags(html.parser.HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.found, self.images = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append(tag)
        if tag == "img":
            self.images.append(dict(attrs))


def test_a_notebook_shows_the_table_and_the_plots(report):
    text = report._repr_html_()
    tags = Tags(text)
    assert tags.found.count("tr") == 1 + len(METHODS) and "script" not in tags.found
    assert all(f"<td>{method}</td>" in text for method in METHODS)
    assert len(tags.images) == len(list(report.paths["plots"].glob("*.png"))) > 1
    assert all(image["alt"] and image["src"].startswith("data:image/png;base64,iVBOR") for image in tags.images)


def test_print_shows_the_table_of_the_command(report):
    text = str(report)
    assert all(method in text for method in METHODS) and "negative flips" in " ".join(text.split())
    assert max(map(len, text.splitlines())) <= 80
    assert repr(report) == f"Report(workdir={str(report.workdir)!r}, methods={METHODS})"


def test_the_same_call_again_trains_nothing(report, overrides, capsys):
    times = {path: path.stat().st_mtime_ns for path in report.paths["releases"].rglob("*")}
    again = mpt_jax.run(str(DIGITS), str(report.workdir), overrides=overrides)
    assert again == report and "nothing to train" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in report.paths["releases"].rglob("*")} == times


def test_every_kind_of_config_is_the_same_run(report, overrides, without_plots, capsys):
    lines = [f"{key}={value}" for key, value in overrides.items()]
    config = configs.load(str(DIGITS), lines)
    assert configs.to_dict(config) == json.loads((report.workdir / "config.json").read_text())["config"]
    for given in (config, configs.to_dict(config), DIGITS):
        more = overrides if given is DIGITS else {}
        assert mpt_jax.run(given, report.workdir, overrides=more, quiet=True).rows == report.rows
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("config", "workdir", "overrides", "message"),
    [
        ("nowhere.py", "run", {}, "nowhere.py"),
        (DIGITS, "run", {"optimizer.epoch": 3}, r"unknown config key 'optimizer.epoch'.*did you mean 'epochs'"),
        (DIGITS, "run", {"optimizer.epochs": 0}, r"optimizer.epochs=0; expected"),
        (DIGITS, "run", {"optimizer.epochs": "many"}, r"'optimizer.epochs'='many'; expected an integer"),
        (DIGITS, "run", {"update.bias": 1}, r"'update.bias'=1; expected text in quotes"),
        (DIGITS, "run", {3: 4}, r"config key 3 is not text; expected a name such as"),
        (DIGITS, "run", "optimizer.epochs=3", r"overrides='optimizer.epochs=3'; expected keys with values"),
        (DIGITS, "run", ["optimizer.epochs"], r"override 'optimizer.epochs'; expected KEY=VALUE"),
        (3, "run", {}, r"config=3; expected a name such as 'digits'"),
        (DIGITS, "run", {"optimizer.epochs.more": 1}, r"'more' is below 30, which is a value; expected a section"),
        ({}, None, {}, "needs a workdir"),
        (DIGITS, 3, {}, r"workdir is 3; expected the path of a folder"),
    ],
)
def test_bad_input_is_an_input_error(config, workdir, overrides, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message):
        mpt_jax.run(config, workdir, overrides=overrides)
    assert not list(tmp_path.iterdir())


def test_another_config_needs_another_work_directory(report, overrides):
    other = {**overrides, "seeds": (0, 2)}
    with pytest.raises(InputError, match=r"seeds=\[0, 1\].*--workdir"):
        mpt_jax.run(DIGITS, report.workdir, overrides=other)
    folder = api.new_run_folder(report.workdir, configs.load(str(DIGITS)))
    assert folder == report.workdir.with_name("run-2")


def test_the_package_lists_its_public_names():
    assert {"run", "Report", "compare", "losses", "metrics", "objectives"} <= set(dir(mpt_jax))
    assert mpt_jax.Report is api.Report and mpt_jax.losses.__name__ == "mpt_jax.losses"
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        mpt_jax.nothing  # noqa: B018


def test_the_gate_takes_the_predictions_of_a_run(report):
    old, new = (report.paths["predictions"] / f"{name}-seed0.npz" for name in ("r0-old", "r1-mpt_kl"))
    result = mpt_jax.compare(old, new, max_nfr=0.99)
    row = next(row for row in report.rows if (row["method"], row["seed"]) == ("mpt_kl", 0))
    assert result["passed"] and result["old_classes_rows"]["nfr"] == pytest.approx(row["nfr"])


def test_the_example_of_the_documentation_runs(report, monkeypatch, capsys, tmp_path):
    page = (ROOT / "docs/library.md").read_text()
    examples = [code for code in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "mpt_jax.run(" in code]
    assert examples

    def small_run(config, workdir, *, overrides):
        configs.load(config, overrides)  # the example's own config and overrides are valid
        return report

    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    monkeypatch.setattr(api, "run", small_run)
    for code in examples:
        exec(code, {})
    assert "mpt_kl" in capsys.readouterr().out
