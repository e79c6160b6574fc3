"""The pictures of a report are drawn, complete and reproducible."""

import io
import re

import numpy as np
from PIL import Image

from mpt_jax import report
from mpt_jax.report import plots


def test_a_second_report_has_the_same_bytes(written, tmp_path):
    folder, _ = written
    text = (folder / "report.md").read_text()
    linked = re.findall(r"(?m)^!\[.*\]\(plots/(\w+\.png)\)$", text)
    files = {path.name: path.read_bytes() for path in (folder / "plots").iterdir()}
    assert set(linked) == set(files) and len(linked) == len(files)
    assert {"tradeoff.png", "classes.png", "confusion.png", "margins.png", "gallery.png"} <= set(files)
    for name, content in files.items():
        pixels = np.asarray(Image.open(io.BytesIO(content)).convert("L"))
        assert (pixels < 128).mean() > 0.002, f"{name} is blank"
        assert (pixels[[0, -1]] > 250).mean() > 0.5  # nothing is cut off along whole edges
    before = {name: (folder / name).read_bytes() for name in ("report.html", "report.md", "report.json")}
    report.write(folder)
    assert {name: (folder / name).read_bytes() for name in before} == before
    assert {path.name: path.read_bytes() for path in (folder / "plots").iterdir()} == files


def test_the_tradeoff_omits_methods_that_diverged_or_are_far_less_accurate():
    summary = {m: {"accuracy": {"mean": a}} for m, a in (("none", 0.9), ("near", 0.81), ("far", 0.79), ("nan", 0.9))}
    compared = {"best": None, "baseline": "none", "methods": {m: {} for m in ("none", "near", "far")}}
    found = {"summary": summary, "comparison": compared}
    assert plots.far_off(found) == ["far", "nan"] and plots.focus(found) == ["none"]
    del compared["methods"]["none"]
    assert plots.far_off(found) == list(summary)


def test_only_methods_tuned_over_three_biases_and_nothing_else_are_swept():
    def tried(*numbers):
        return {"candidates": [{"numbers": n} for n in numbers]}

    selection = {"mpt_kl": tried({"bias": 2}, {"bias": 0}, {"bias": 1}), "two": tried({"bias": 0}, {"bias": 1})}
    selection["both"] = tried(*({"bias": b, "weight": 1} for b in range(3)))
    assert {m: [b for b, _ in of] for m, of in plots.swept_bias({"selection": selection}).items()} == {
        "mpt_kl": [0, 1, 2]
    }
