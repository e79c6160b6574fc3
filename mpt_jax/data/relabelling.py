"""Images whose labels are those of an older release: they get the labels that a change of the classes gives them."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mpt_jax.data.findings import Finding
from mpt_jax.data.splits import Parts, Source, Split, pick
from mpt_jax.errors import InputError, listed, unknown
from mpt_jax.files.class_changes import LabelChanges

_PARTS = {"train": "training", "validation": "validation", "test": "test"}


def relabelled(
    source: Source, becomes: Mapping[str, Sequence[str]], name: str, changes: LabelChanges | None = None
) -> Source:
    """Return the source with the classes of a new release; its images may have labels of the old or of the new one.

    A label that names a class of the new release stays. Of the others, one that an old class alone had is replaced by
    what the class became; images of a retired class are left out and reported, unless their label was corrected.

    Args:
      source: of images.
      becomes: the new classes of each old one: one if it stays, is renamed or merged, several if it is split, none if
        it is retired.
      name: of the data set, for errors.
      changes: the images whose label was corrected; `corrected` applies the others.

    Raises:
      InputError: the data set lacks a new class, or has images of a class that is split.
    """
    new = dict.fromkeys(each for classes in becomes.values() for each in classes)
    former = [label for label in source.class_names if label in becomes and label not in new]
    if split := [label for label in former if len(becomes[label]) > 1]:
        raise InputError(
            f"data set {name} has the class {split[0]!r}, which update.class_map splits into "
            f"{listed([repr(part) for part in becomes[split[0]]])}; expected images with the labels of these"
        )
    label_now = {label: (becomes[label] or (None,))[0] if label in former else label for label in source.class_names}
    names = tuple(dict.fromkeys(label for label in label_now.values() if label is not None))
    if missing := [each for each in new if each not in names]:
        old = next(label for label, classes in becomes.items() if missing[0] in classes)
        raise InputError(
            f"data set {name} has no class {missing[0]!r}, which the old model's {old!r} "
            f"{'stays' if old == missing[0] else 'becomes'} by update.class_map; its classes are "
            f"{listed(list(source.class_names), most=10)}; expected that class, or {old!r} in retire"
        )
    retired = [i for i, label in enumerate(source.class_names) if label_now[label] is None]
    now = _classes_now(changes, names, becomes) if changes else {}
    rows = zip(changes.ids, changes.former, changes.corrected, strict=True) if changes else ()
    corrected_to = {(id_, former): now[label] for id_, former, label in rows}

    def read(order: tuple[int, ...]) -> Parts:
        members = [[i for i, label in enumerate(source.class_names) if label_now[label] == names[k]] for k in order]
        as_stored = [i for indices in members for i in indices]
        label_of = np.repeat(np.arange(len(order), dtype=np.int32), [len(indices) for indices in members])
        place: dict[str | None, int] = {names[k]: position for position, k in enumerate(order)}
        parts = source.read((*as_stored, *retired))
        found, kept = list(parts.findings), dict[str, Any]()
        for part, words in _PARTS.items():
            split: Split | None = getattr(parts, part)
            if split is None:
                continue
            counts = len(as_stored) > split.labels
            labels = np.append(label_of, np.full(len(retired), -1, np.int32))[split.labels]
            for i in np.flatnonzero(~counts).tolist():
                label = source.class_names[retired[split.labels[i] - len(as_stored)]]
                labels[i] = place.get(corrected_to.get((str(split.ids[i]), label)), -1)
            kept_rows = np.flatnonzero(labels >= 0)
            kept[part] = _sorted(dataclasses.replace(pick(split, kept_rows), labels=labels[kept_rows]))
            stored = np.array([source.class_names[i] in former for i in as_stored], bool)[split.labels[counts]]
            for what, ids, outcome in (
                (f"{words} images of retired classes", split.ids[labels < 0], "left out"),
                (f"{words} images with labels of the old release", split.ids[counts][stored], "relabelled"),
            ):
                if len(ids):
                    found.append(Finding(what, tuple(ids.tolist()), outcome))
        return dataclasses.replace(parts, **kept, findings=tuple(found))

    return dataclasses.replace(source, class_names=names, read=read)


def corrected(source: Source, changes: LabelChanges, becomes: Mapping[str, Sequence[str]], name: str) -> Source:
    """Return the source with corrected labels, whichever of both labels its images have.

    An image that is corrected to a retired class is left out.

    Args:
      source: of images, with the classes of the new release.
      changes: the images whose label was corrected.
      becomes: see `relabelled`; both labels may be those of an old class.
      name: of the data set, for errors.

    Raises:
      InputError: a label that is no class; when it is read: an image that has neither of its two labels.
    """
    place = {label: k for k, label in enumerate(source.class_names)}
    former: dict[str, set[int]] = {}
    for label in dict.fromkeys(changes.former):
        former[label] = {place[each] for each in becomes.get(label, (label,)) if each in place}
        if label not in place and label not in becomes:
            raise InputError(unknown(f"label {label!r} in {changes.name}", label, list(source.class_names)))
    place_now = {
        label: None if new is None else place[new]
        for label, new in _classes_now(changes, source.class_names, becomes).items()
    }
    rows = {row[0]: row[1:] for row in zip(changes.ids, changes.former, changes.corrected, strict=True)}

    def read(order: tuple[int, ...]) -> Parts:
        involved = {k for k in place_now.values() if k is not None} | {k for each in former.values() for k in each}
        every = (*order, *sorted(involved - {*order}))
        parts = source.read(every)
        found, kept, seen = list(parts.findings), dict[str, Any](), set[str]()
        for part, words in _PARTS.items():
            split: Split | None = getattr(parts, part)
            if split is None:
                continue
            labels, changed = split.labels.copy(), [i for i, each in enumerate(split.ids.tolist()) if each in rows]
            for i in changed:
                before, after = rows[str(split.ids[i])]
                now = place_now[after]
                if every[labels[i]] not in former[before] | {now}:
                    raise InputError(
                        f"{changes.name} changes the label of {split.ids[i]} from {before!r} to {after!r}, but it is "
                        f"{source.class_names[every[labels[i]]]!r} in {name}; expected one of both"
                    )
                labels[i] = len(every) if now is None else every.index(now)
            gone = labels == len(every)  # these come last, and are cut off
            seen |= {*split.ids[changed].tolist()}
            ids = tuple(split.ids[[i for i in changed if not gone[i]]].tolist())
            for what, of, outcome in (
                (f"{words} images with corrected labels", ids, "the corrected label counts"),
                (f"{words} images corrected to a retired class", tuple(split.ids[gone].tolist()), "left out"),
            ):
                if of:
                    found.append(Finding(what, of, outcome))
            if part == "test":
                kept["corrected"] = {each: rows[each][0] for each in ids}
            resorted = _sorted(dataclasses.replace(split, labels=labels))
            kept[part] = pick(resorted, np.arange(int(np.searchsorted(resorted.labels, len(order)))))
        if absent := tuple(each for each in rows if each not in seen):
            found.append(Finding(f"rows of {changes.name} for images that are not read", absent, "ignored"))
        return dataclasses.replace(parts, **kept, findings=tuple(found))

    return dataclasses.replace(source, read=read)


def _classes_now(
    changes: LabelChanges, names: Sequence[str], becomes: Mapping[str, Sequence[str]]
) -> dict[str, str | None]:
    """Return the class of the new release that each corrected label means, None if it is retired."""
    found: dict[str, str | None] = {}
    for label in dict.fromkeys(changes.corrected):
        news = (label,) if label in names else becomes.get(label)
        if news is None:
            raise InputError(unknown(f"label {label!r} in {changes.name}", label, list(names)))
        if len(news) > 1:
            raise InputError(
                f"{changes.name} corrects a label to {label!r}, which update.class_map splits into "
                f"{listed([repr(part) for part in news])}; expected one of these"
            )
        found[label] = news[0] if news else None
    return found


def _sorted(split: Split) -> Split:
    """Return the split sorted by label and id."""
    rows = np.lexsort((split.ids, split.labels))
    if np.array_equal(rows, np.arange(len(rows))):
        return split
    return pick(split, rows)
