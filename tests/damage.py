"""Damage to the files of a folder."""

import shutil

import numpy as np


def damaged_copies(folder, target):
    """Yield (copy, file name) for copies of a folder with one file truncated, emptied, missing or one bit flipped."""
    random = np.random.default_rng(0)
    files = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    for number, name in enumerate(files):
        content = (folder / name).read_bytes()
        bit = int(random.integers(8 * len(content)))
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        damage = {"truncated": content[: len(content) // 2], "flipped": flipped, "empty": b"", "missing": None}
        for kind, damaged in damage.items():
            copy = target / f"{number}-{kind}" / folder.name
            shutil.copytree(folder, copy)
            (copy / name).unlink()
            if damaged is not None:
                (copy / name).write_bytes(damaged)
            yield copy, name
