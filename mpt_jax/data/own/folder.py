"""Folders of image files: `train/CLASS/IMAGE` for a run, or any folder for predictions."""

import os
import pathlib
from collections.abc import Iterator

from mpt_jax.data import images
from mpt_jax.data.own import listing
from mpt_jax.data.own.listing import PARTS, Listing
from mpt_jax.data.own.paths import is_inside, is_text
from mpt_jax.errors import InputError


def list_folder(root: pathlib.Path) -> Listing:
    """List the images of ``train/CLASS/**`` and, if it exists, ``test/CLASS/**``.

    An id is the path relative to `root`. Classes are sorted by name, or as numbers if all are numbers. Names that begin
    with a dot are ignored. Files without a suffix of `mpt_jax.data.images.SUFFIXES` are ignored and reported.

    Raises:
      InputError: no such folder, no folder train in it, no classes, or a link to a folder or to a file outside `root`.
    """
    if not root.is_dir():
        raise InputError(f"dataset.data_dir={root} is not a folder; expected a folder with train/CLASS/IMAGE")
    if not (root / "train").is_dir():
        raise InputError(f"{root} has no folder train; expected train/CLASS/IMAGE and optionally test/CLASS/IMAGE")
    parts = [part for part in PARTS if (root / part).is_dir()]
    for part in parts:
        _refuse_link(root / part)
    class_folders = {part: [path for path in _entries(root / part) if path.is_dir()] for part in parts}
    names = listing.natural_order({folder.name for folder in class_folders["train"]})
    if not names:
        raise InputError(f"{root / 'train'} contains no folders; expected one folder of images per class")
    real, label_of = os.path.realpath(root), {name: label for label, name in enumerate(names)}
    rows, unknown = [], []
    ignored = [_relative(root, path) for path in _entries(root) if path.name not in parts]
    for part, folders in class_folders.items():
        ignored += [_relative(root, path) for path in _entries(root / part) if not path.is_dir()]
        for folder in folders:
            for path in _files(folder, root, real):
                example_id = _relative(root, path)
                if path.suffix.lower() not in images.SUFFIXES:
                    ignored.append(example_id)
                elif folder.name not in label_of:
                    unknown.append(example_id)
                else:
                    rows.append((path, example_id, label_of[folder.name], part == "test"))
    return listing.make(
        *(str(root), names, rows),
        has_test="test" in parts,
        faults={"test images of classes that are not in train": unknown},
        ignored=ignored,
    )


def find_images(root: pathlib.Path) -> dict[str, pathlib.Path]:
    """Return all images in a folder and its subfolders by id, the path relative to `root`, in the order of the ids.

    Raises:
      InputError: no such folder, a link to a folder or to a file outside it, a name that is not UTF-8.
    """
    if not root.is_dir():
        raise InputError(f"{root} is not a folder; expected a folder of images")
    real = pathlib.Path(os.path.realpath(root))
    found = {
        _relative(real, path): path for path in _files(real, real, str(real)) if path.suffix.lower() in images.SUFFIXES
    }
    if bad := [name for name in found if not is_text(name)]:
        raise InputError(f"{root} has images whose name is not UTF-8 ({len(bad)}), such as {bad[0]!r}; rename them")
    return dict(sorted(found.items()))


def _entries(folder: pathlib.Path) -> list[pathlib.Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _files(folder: pathlib.Path, root: pathlib.Path, real: str) -> Iterator[pathlib.Path]:
    """Yield all files below a folder; refuse links to folders and to files outside `real`, the real path of `root`."""
    _refuse_link(folder)
    folders = [folder]
    while folders:
        for path in _entries(folders.pop()):
            if path.is_dir():
                _refuse_link(path)
                folders.append(path)
                continue
            if path.is_symlink() and not is_inside(os.path.realpath(path), real):
                raise InputError(f"{path} is a link to a file outside {root}; copy the file there")
            yield path


def _refuse_link(folder: pathlib.Path) -> None:
    if folder.is_symlink():
        raise InputError(
            f"{folder} is a link to a folder; expected the folder itself (only dataset.data_dir may be a link)"
        )


def _relative(root: pathlib.Path, path: pathlib.Path) -> str:
    return path.relative_to(root).as_posix()
