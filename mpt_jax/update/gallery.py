"""Thumbnails of the test images that flipped, so that a report can show them without the data set."""

import numpy as np
from PIL import Image

from mpt_jax import metrics
from mpt_jax.runtime import processes
from mpt_jax.update import lineage, workdir
from mpt_jax.update.run import Run

_TOTAL, _MINIMUM = 96, 6  # thumbnails: of all methods together, in equal shares; of each method in any case
_SIDE = 64  # pixels


def write(run: Run) -> None:
    """Write `gallery.npz` with the most confident flips of each method, for the last release and the first seed."""
    test, pictures, release, seed = run.dataset.test, run.test_images, run.releases[-1], run.config.seeds[0]
    if pictures.ndim != 4 or not processes.is_first():  # features have no thumbnails
        return
    methods = [method for method in lineage.made(run.config, release) if method != lineage.OLD]
    count = max(_MINIMUM, _TOTAL // len(methods))
    known = slice(len(run.known(test, release - 1)))
    rows: set[int] = set()
    for method in methods:
        folders = [run.folder(*pair, seed) for pair in (lineage.previous(release, method), (release, method))]
        old, new = (run.read_predictions(folder)["logits"][known] for folder in folders)
        ranked = metrics.ranked_flips(old, new, test.labels[known], allowed=run.allowed)
        rows |= set(ranked[:count].tolist())
    chosen = np.array(sorted(rows), int)
    height, width = thumbnail(np.asarray(pictures[0])).shape[:2]
    images = np.zeros((0, height, width, 1), np.uint8)
    if rows:
        images = np.stack([thumbnail(image) for image in np.asarray(pictures[chosen])])
    workdir.write_gallery(run.workdir, images=images, ids=test.ids[chosen])


def thumbnail(image: np.ndarray) -> np.ndarray:
    """Scale an image down, in proportion, to at most 64 pixels per side.

    Args:
      image: ``uint8 [H, W, C]``. The first three channels are shown as RGB, or of fewer the first one as grey.

    Examples:
      >>> thumbnail(np.zeros((256, 128, 3), np.uint8)).shape, thumbnail(np.zeros((8, 8, 2), np.uint8)).shape
      ((64, 32, 3), (8, 8, 1))
    """
    visible = image[..., :3] if image.shape[-1] >= 3 else image[..., :1]
    small = Image.fromarray(visible.squeeze(-1) if visible.shape[-1] == 1 else visible)
    small.thumbnail((_SIDE, _SIDE))
    return np.asarray(small).reshape(*small.size[::-1], visible.shape[-1])
