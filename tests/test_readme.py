"""The README: its Python example runs, and it stays two screens long."""

import pathlib
import re

import pytest
import tensorflow_datasets as tfds
import tiny_network

from mpt_jax import api

ROOT = pathlib.Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_python_example_runs(tmp_path, monkeypatch, digits_dir, one_device, without_plots, capsys):
    run, small = api.run, {"model.name": tiny_network.NAME, "optimizer.epochs": 1, "update.methods": "mpt_kl"}
    monkeypatch.setattr(api, "run", lambda *given, overrides: run(*given, overrides=overrides | small))
    monkeypatch.setattr(tfds.core.constants, "DATA_DIR", str(digits_dir))
    monkeypatch.chdir(tmp_path)
    for name, prediction in (("old", "cat"), ("new", "dog")):
        (tmp_path / f"{name}.csv").write_text(f"id,label,prediction\n1,cat,{prediction}\n2,dog,dog\n")
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    names = {}
    exec(example, names)
    printed = capsys.readouterr().out
    assert "mpt_kl" in printed and "runs/one-seed/report.html" in printed and printed.endswith("False\n")
    assert (tmp_path / "runs/one-seed/report.html").is_file()
    assert names["loss"].shape == (8,)


@pytest.mark.parametrize("path", re.findall(r"\]\(((?!http)[^)#]+)", README))
def test_links_lead_to_files(path):
    assert (ROOT / path).is_file()


def test_it_is_short():
    assert len(README.splitlines()) < 130
