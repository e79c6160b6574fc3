"""Predictions that several tests compare."""

import json

import numpy as np
import pytest


@pytest.fixture
def files(tmp_path):
    """Predictions of 100 examples; of the 50 of old classes 40 were right and 5 of those flip."""
    labels = np.arange(100) % 4
    old = np.where(labels < 2, labels, 0)
    is_old = np.flatnonzero(labels < 2)
    old[is_old[:10]] = 1 - labels[is_old[:10]]
    new = labels.copy()
    new[is_old[-5:]] = 3
    order = np.random.default_rng(0).permutation(100)
    (tmp_path / "old.csv").write_text(
        "id,label,prediction\n" + "".join(f"i{i},{y},{p}\n" for i, (y, p) in enumerate(zip(labels, old, strict=True)))
    )
    rows = ({"id": f"i{i}", "label": int(labels[i]), "scores": np.eye(4)[new[i]].tolist()} for i in order)
    (tmp_path / "new.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return [str(tmp_path / "old.csv"), str(tmp_path / "new.jsonl")]
