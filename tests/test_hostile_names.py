"""Names of files, classes and models are text everywhere: on a terminal, in a page, in CI, in a spreadsheet."""

import csv
import json
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
import tiny_network
from PIL import Image

from mpt_jax import predict, train
from mpt_jax.compare.__main__ import main as compare
from mpt_jax.export.__main__ import main as export
from mpt_jax.files import released_model

pytestmark = pytest.mark.usefixtures("one_device", "without_plots")

# A formula, a title of the window, cleared screen, markup of rich, a reversed direction, C1's escape, HTML, Markdown.
NASTY = "=cmd|' C'!A0\x1b]0;x\x07\x1b[2J[red]x[bold\u202e\x9b31m<b>`\n"
FOLDER = NASTY.replace("[", "(")  # orbax takes brackets in the path of a release for a pattern
CONFIG = f"""
def get_config():
    return {{
        "dataset": {{"name": "folder", "channels": 1, "image_size": 8}},
        "optimizer": {{"epochs": 1, "batch_size": 16}},
        "update": {{"schedule": [2, 3], "methods": ["no_treatment"]}},
        "model": {{"name": {tiny_network.NAME!r}}},
    }}
"""


def unsafe(text):
    """Return the characters of a text on which a terminal, or a reader of XML, would act."""
    return {c for c in text if not c.isprintable()} - {"\n", "\u2060"}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """A folder of images with such a name, in which classes and files have such names."""
    root, random = tmp_path_factory.mktemp("images") / f"a{FOLDER}", np.random.default_rng(0)
    for name in ("zero", NASTY, f"+third{NASTY}"):
        (root / "train" / name).mkdir(parents=True)
        for i in range(20):
            pixels = random.integers(0, 256, (8, 8), np.uint8)
            Image.fromarray(pixels).save(root / "train" / name / f"{i}{NASTY}.png")
    return root


@pytest.fixture(scope="module")
def run(images, tmp_path_factory):
    """A finished run in a folder with such a name, and its command."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "config.py").write_text(CONFIG)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mpt_jax.report.plots.draw", lambda report, thumbnails: {})
        line = [f"--config={folder}/config.py", f"--workdir={folder}/{FOLDER}", f"--config.dataset.data_dir={images}"]
        assert train.main([*line, "--no-compilation-cache"]) == 0
    return folder / FOLDER, line


def test_a_run(run, capsys):
    folder, line = run
    for more, status in (((), 0), (("--plan",), 0), (("--config.seeds=7",), 2), ((f"--config.{NASTY}=1",), 2)):
        assert train.main([*line, "--no-compilation-cache", *more]) == status
        printed = capsys.readouterr()
        assert printed.out + printed.err and not unsafe(printed.out + printed.err)
        assert status == 0 or printed.err.count("\n") == 1
    for name in ("report.md", "report.html", "report.json", "metrics.jsonl"):
        assert not unsafe((folder / name).read_text(encoding="utf-8")), name
    assert NASTY in json.loads((folder / "report.json").read_text())["classes"]["order"]


def test_predictions_their_comparison_and_an_export(run, images, tmp_path, capsys):
    folder, _ = run
    outputs = []
    for name in ("r0-old-seed0", "r1-independent-seed0"):
        for ending in ("csv", "parquet"):
            outputs.append(tmp_path / f"{name}.{ending}")
            line = [str(folder / "releases" / name), str(images / "train"), f"--output={outputs[-1]}"]
            assert predict.main([*line, "--no-compilation-cache"]) == 0
            printed = capsys.readouterr().err
            assert not unsafe(printed) and ("has ' before them" in printed) == (ending == "csv")
    with outputs[0].open(newline="", encoding="utf-8") as file:
        cells = [cell for row in csv.reader(file) for cell in row]
    assert not [cell for cell in cells if cell[:1] in "=+@" or unsafe(cell)]
    written = {kind: tmp_path / f"gate.{kind}" for kind in ("html", "markdown", "junit", "json")}
    line = ["--max-nfr=0.1", "--max-class-nfr=0.1", "--allow-poor-old", "--min-rows=1"]
    results = []
    for old, new in ((outputs[0], outputs[2]), (outputs[1], outputs[3]), (outputs[0], outputs[3])):
        status = compare([str(old), str(new), *line, *(f"--{kind}={path}" for kind, path in written.items())])
        printed = capsys.readouterr()
        assert status in (0, 1), printed.err
        assert not unsafe(printed.out + printed.err)
        assert compare([str(old), str(new), *line, "--json=-"]) == status and not unsafe(capsys.readouterr().out)
        assert not [path for path in written.values() if unsafe(path.read_text(encoding="utf-8"))]
        ElementTree.parse(written["junit"])
        results.append(json.loads(written["json"].read_text(encoding="utf-8")))
    assert results[0]["per_class"] == results[1]["per_class"] == results[2]["per_class"]
    assert NASTY in results[0]["classes"]["old"] or NASTY in str(results[0]["per_class"])
    assert compare([str(outputs[0]), f"{tmp_path}/{NASTY}.csv"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and not unsafe(error)
    assert export([str(folder / "releases/r0-old-seed0"), str(tmp_path / f"out{FOLDER}"), "--platforms=cpu"]) == 0
    printed = capsys.readouterr()
    assert not unsafe(printed.out + printed.err)
    assert not unsafe((tmp_path / f"out{FOLDER}" / "README.md").read_text(encoding="utf-8"))
    card = released_model.read_card(folder / "releases/r0-old-seed0")
    assert all(name in ("zero", NASTY, f"+third{NASTY}") for name in card["classes"])
