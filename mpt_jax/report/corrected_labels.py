"""Flips on test images whose label was corrected since the old release: which of them the correction explains."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mpt_jax.report.blocks import Points, Table, Text

KINDS = ("explained", "revealed", "in_both")


def count(
    pair: Any, former_labels: Mapping[str, str], class_names: Sequence[str], becomes: Mapping[str, Sequence[str]]
) -> dict[str, int]:
    """Count the negative flips by the former and by the corrected label, on the images whose label was corrected.

    Args:
      pair: a `flips.Pair`; its labels are the corrected ones.
      former_labels: by id.
      class_names: of the new release.
      becomes: the new classes of each old one; a former label may be an old class.

    Returns:
      `images`; `explained`, flips by the former label that are none by the corrected one; `revealed`, the reverse;
      `in_both`.
    """
    rows = np.flatnonzero([each in former_labels for each in pair.ids.tolist()])
    before = np.zeros((len(rows), len(class_names)), bool)  # the classes that the former label stands for
    for i, row in enumerate(rows):
        label = former_labels[str(pair.ids[row])]
        before[i] = [name in becomes.get(label, (label,)) for name in class_names]
    now = np.eye(len(class_names), dtype=bool)[pair.labels[rows]]
    old, new = pair.old[rows].argmax(-1), np.eye(len(class_names), dtype=bool)[pair.new[rows].argmax(-1)]
    allowed = np.eye(pair.old.shape[1], len(class_names), dtype=bool) if pair.allowed is None else pair.allowed
    by_former, by_corrected = (
        (allowed[old] & truth).any(1) & ~(new & truth).any(1)  # right before, wrong now
        for truth in (before, now)
    )
    counts = (by_former & ~by_corrected, by_corrected & ~by_former, by_former & by_corrected)
    return {"images": len(rows), **{kind: int(flips.sum()) for kind, flips in zip(KINDS, counts, strict=True)}}


def blocks(report: Mapping[str, Any]) -> list[Any]:
    """Return the section of a report; nothing if no label was corrected."""
    found = report.get("corrected_labels")
    if not found:
        return []
    first = next(iter(found.values()))
    meanings = {
        "explained by the correction": "negative flips by the former label, and none by the corrected one",
        "revealed by it": "negative flips by the corrected label, and none by the former one",
        "flips by both": "negative flips whichever label counts",
    }
    rows = [[method, *(str(counts[kind]) for kind in KINDS)] for method, counts in found.items()]
    return [
        Text(
            f"The labels of {first['images']:,} test images were corrected since the old release (counts are sums over "
            "the seeds). The corrected label counts in all other sections."
        ),
        Table(["method", *meanings], rows, meanings=meanings),
        Points([f"**{name}**: {meaning}." for name, meaning in meanings.items()]),
    ]
