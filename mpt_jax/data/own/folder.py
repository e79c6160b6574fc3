"""Folders of image files: `train/CLASS/IMAGE` or `CLASS/IMAGE` for a run, or any folder for predictions."""

import dataclasses
import os
import pathlib
from collections.abc import Iterator

from mpt_jax.data import findings, images
from mpt_jax.data.findings import Finding
from mpt_jax.data.own import listing
from mpt_jax.data.own.listing import Listing
from mpt_jax.data.own.paths import is_inside, is_text
from mpt_jax.errors import InputError

JUNK = ("__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information", "lost+found")
"""Folders that other programs leave behind, which are no classes."""

LAYOUTS = "train/CLASS/IMAGE and optionally test/CLASS/IMAGE, or CLASS/IMAGE"
_FOLLOW = " (in a run, dataset.follow_links=follow reads links, and skip leaves them out)"


def list_folder(root: pathlib.Path, *, policy: str = "error", links: str = "error") -> Listing:
    """List the images of a folder ``train/CLASS/**`` beside other parts, or of a folder ``CLASS/**`` without parts.

    Other parts are ``test`` and one of `mpt_jax.data.own.listing.HELD_OUT`, such as ``val``. An id is the path relative
    to `root`. Classes are sorted by name, or as numbers if all are numbers. Names that begin with a dot, folders that
    programs leave behind (`JUNK`) and files without a suffix of `mpt_jax.data.images.SUFFIXES` are ignored and, hidden
    files excepted, reported.

    Args:
      policy: "error", or "skip" class folders without images.
      links: what to do with links to folders and to files outside `root`: "error", "skip" or "follow".

    Raises:
      InputError: no such folder, parts without a folder train, two parts of `HELD_OUT`, no classes, a class folder
        without images if the policy is "error", a link if `links` is "error", or a part that is a link if it is "skip".
    """
    if not root.is_dir():
        raise InputError(f"dataset.data_dir={root} is not a folder; expected a folder with {LAYOUTS}")
    folders = {path.name for path in _entries(root) if path.is_dir()}
    roles = listing.roles(str(root), folders)
    if roles and "train" not in roles:
        raise InputError(f"{root} has {', '.join(roles)} but has no folder train; expected {LAYOUTS}")
    if nested := [name for name in sorted(folders) if not roles and (root / name / "train").is_dir()]:
        raise InputError(f"{root} has no folder train, but {nested[0]} has; set dataset.data_dir={root / nested[0]}")
    places = {part: root / part for part in roles} or {"train": root}
    for place in places.values():
        if place != root and links != "follow":
            _refuse_link(place)
    listed = {part: _list_part(place, root, links) for part, place in places.items()}
    names = listing.natural_order(set(listed["train"].classes))
    if not names:
        hint = f"; to read {root / 'metadata.csv'}, set dataset.name=metadata.csv"
        raise InputError(
            f"{places['train']} contains no folders; expected one folder of images per class"
            + (hint if (root / "metadata.csv").is_file() else "")
        )
    empty = [name for name in names if not listed["train"].classes[name]]
    fault = {"class folders without images": [_relative(root, places["train"] / name) for name in empty]}
    found = findings.resolve(f"folder {root}", fault, policy)
    names = [name for name in names if name not in empty]
    label_of = {name: label for label, name in enumerate(names)}
    rows, unknown = [], []
    for part, content in listed.items():
        notes = {name: findings.alike(name, names) for name in content.classes.keys() - label_of.keys()}
        for name, files in content.classes.items():
            for path in files:
                if name in label_of:
                    rows.append((path, _relative(root, path), label_of[name], part))
                else:
                    unknown.append(f"{_relative(root, path)}{notes[name]}")
    others = [path for path in _entries(root) if path.name not in roles] + _junk(root) if roles else []
    ignored = [
        _relative(root, path) for path in [*others, *(path for part in listed.values() for path in part.ignored)]
    ]
    refused = [_relative(root, path) for part in listed.values() for path in part.links]
    reported = {
        ("files and folders that are not images", "ignored"): ignored,
        ("links to folders or out of the folder", "skipped"): refused,
    }
    return listing.make(
        *(str(root), names, rows),
        roles=roles or {"train": "train"},
        faults={"images of classes that are not in train": unknown},
        reported=(
            *found,
            *(Finding(what, tuple(found), outcome) for (what, outcome), found in reported.items() if found),
        ),
    )


def find_images(root: pathlib.Path) -> dict[str, pathlib.Path]:
    """Return all images in a folder and its subfolders by id, the path relative to `root`, in the order of the ids.

    Raises:
      InputError: no such folder, a link to a folder or to a file outside it, a name that is not UTF-8.
    """
    if not root.is_dir():
        raise InputError(f"{root} is not a folder; expected a folder of images")
    real = pathlib.Path(os.path.realpath(root))
    found = {_relative(real, path): path for path in _files(real, real) if _is_image(path)}
    if bad := [name for name in found if not is_text(name)]:
        raise InputError(f"{root} has images whose name is not UTF-8 ({len(bad)}), such as {bad[0]!r}; rename them")
    return dict(sorted(found.items()))


@dataclasses.dataclass(frozen=True)
class _Content:
    """What a part of a folder contains: the images of each class folder, what is no image, and links left out."""

    classes: dict[str, list[pathlib.Path]]
    ignored: list[pathlib.Path]
    links: list[pathlib.Path]


def _list_part(place: pathlib.Path, root: pathlib.Path, links: str) -> _Content:
    entries = _entries(place)
    content = _Content({}, [path for path in entries if not path.is_dir()] + _junk(place), [])
    for folder in (path for path in entries if path.is_dir()):
        files = list(_files(folder, root, links, content.ignored, content.links))
        if folder not in content.links:
            content.classes[folder.name] = [path for path in files if _is_image(path)]
            content.ignored.extend(path for path in files if not _is_image(path))
    return content


def _is_image(path: pathlib.Path) -> bool:
    return path.suffix.lower() in images.SUFFIXES


def _entries(folder: pathlib.Path) -> list[pathlib.Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith(".") and path.name not in JUNK)


def _junk(folder: pathlib.Path) -> list[pathlib.Path]:
    """Return the hidden folders in a folder, and those that programs leave behind."""
    hidden = (path for path in folder.iterdir() if path.name.startswith(".") or path.name in JUNK)
    return sorted(path for path in hidden if path.is_dir())


def _files(
    folder: pathlib.Path,
    root: pathlib.Path,
    links: str = "error",
    ignored: list[pathlib.Path] | None = None,
    skipped: list[pathlib.Path] | None = None,
) -> Iterator[pathlib.Path]:
    """Yield all files below a folder; refuse, skip or follow links to folders and to files outside `root`.

    Args:
      ignored: gets the folders that are not read.
      skipped: gets the links that are skipped.
    """
    real = os.path.realpath(root)
    waiting: list[tuple[pathlib.Path, frozenset[str]]] = [(folder, frozenset())]  # with the real folders around it
    while waiting:
        current, around = waiting.pop()
        if current.is_symlink() and links != "follow":
            if links == "error":
                _refuse_link(current)
            elif skipped is not None:
                skipped.append(current)
            continue
        if (here := os.path.realpath(current)) in around:
            raise InputError(f"{current} is a link to a folder that contains it; remove the link")
        if ignored is not None:
            ignored.extend(_junk(current))
        for path in _entries(current):
            if path.is_dir():
                waiting.append((path, around | {here}))
            elif path.is_symlink() and links != "follow" and not is_inside(os.path.realpath(path), real):
                if links == "error":
                    raise InputError(f"{path} is a link to a file outside {root}; copy the file there{_FOLLOW}")
                if skipped is not None:
                    skipped.append(path)
            else:
                yield path


def _refuse_link(folder: pathlib.Path) -> None:
    if folder.is_symlink():
        raise InputError(f"{folder} is a link to a folder; expected the folder itself{_FOLLOW}")


def _relative(root: pathlib.Path, path: pathlib.Path) -> str:
    return path.relative_to(root).as_posix()
