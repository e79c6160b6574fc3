"""The check of a whole work directory: every digest, and every link of its chain, without changing anything.

What reads no model imports no JAX.
"""

import dataclasses
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mpt_jax.errors import InputError, listed
from mpt_jax.files import array_folder, checkpoint, released_model, schema, sealed, storage
from mpt_jax.files.predictions import released
from mpt_jax.update import chain, records


@dataclasses.dataclass(frozen=True)
class Row:
    """The result for one kind of file."""

    what: str
    checked: int
    faults: Sequence[str]  # a line for each that does not hold
    unnamed: int = 0  # of a version whose files did not yet name where they belong


def verify(folder: pathlib.Path, *, digests: bool = True) -> list[Row]:
    """Check a work directory, while no process writes to it.

    Args:
      folder: the work directory.
      digests: read every file and compare its digest. Otherwise models are compared by the size of their files, and by
        the digest only of files that were changed after the release; predictions by what they say that they are of.

    Raises:
      InputError: the folder is not a work directory.
    """
    storage.check_access(folder)
    if not (folder / "config.json").exists():
        raise InputError(f"{folder} is not a work directory of mpt_jax: it has no config.json; expected a --workdir")
    try:
        facts = records.read_facts(folder)
    except InputError as error:
        return [Row("config", 1, [str(error)])]
    cards, row_of_cards = _cards(folder, facts)
    return [
        Row("config", 1, []),
        row_of_cards,
        _links(folder, cards),
        _models(folder, cards, digests=digests),
        _predictions(folder, cards, facts.get("contents", {}), digests=digests),
        _checkpoints(folder, records.identity(facts), digests=digests),
        _backbones(folder, digests=digests),
        _gallery(folder, digests=digests),
        _report(folder, facts, cards),
    ]


def verify_release(folder: pathlib.Path, *, digests: bool = True) -> list[Row]:
    """Check one released model, wherever its folder is.

    Args:
      digests: as of `verify`.
    """
    try:
        card = released_model.read_card(folder)
        released_model.check(folder, card, digests=digests)
    except InputError as error:
        return [Row("models", 1, [str(error)])]
    return [Row("models", 1, [])]


def releases(folder: pathlib.Path) -> list[pathlib.Path]:
    """Return the folders of the releases in a work directory."""
    return [folder / "releases" / name for name in _names(folder / "releases")]


def _cards(folder: pathlib.Path, facts: Mapping[str, Any]) -> tuple[dict[str, dict[str, Any]], Row]:
    """Return the cards that hold, by release."""
    present = _names(folder / "releases")
    expected = chain.releases(facts["config"]) if (folder / "report.json").exists() else ()  # of a finished run
    missing = [name for name in expected if name not in present]
    faults = [f"{folder / 'releases' / name} is missing" for name in missing]
    run, cards, unnamed = records.identity(facts), {}, 0
    for name in present:
        try:
            cards[name] = chain.read_card(folder / "releases" / name, run)
        except InputError as error:
            faults.append(str(error))
        else:
            unnamed += "run" not in cards[name]
    return cards, Row("cards", len(present) + len(missing), faults, unnamed)


def _links(folder: pathlib.Path, cards: chain.Cards) -> Row:
    faults = [
        f"{folder / 'releases' / name} {fault}"
        for name in cards
        for fault in chain.broken_links(name, cards, complete=True)
    ]
    return Row("links to parents", sum(len(card["parents"]) for card in cards.values()), faults)


def _models(folder: pathlib.Path, cards: chain.Cards, *, digests: bool) -> Row:
    faults = []
    with_weights = {name: card for name, card in cards.items() if card["files"]}
    for name, card in with_weights.items():
        try:
            released_model.check(folder / "releases" / name, card, digests=digests)
        except InputError as error:
            faults.append(str(error))
    return Row("models", len(with_weights), faults)


def _predictions(folder: pathlib.Path, cards: chain.Cards, contents: Mapping[str, str], *, digests: bool) -> Row:
    present = [name.removesuffix(".npz") for name in _names(folder / "predictions") if name.endswith(".npz")]
    names, faults, unnamed = sorted({*present, *cards}), [], 0
    for name in names:
        path = chain.predictions_path(folder, name)
        if name not in cards:
            faults.append(f"{path} belongs to no release that holds")
            continue
        try:
            unnamed += not released.check(path, chain.about(name, cards[name]["digest"], contents))
            if digests:
                chain.read_predictions(folder, name, cards[name], contents)
        except InputError as error:
            faults.append(str(error))
    return Row("predictions", len(names), faults, unnamed)


def _checkpoints(folder: pathlib.Path, run: str, *, digests: bool) -> Row:
    faults, checked, unnamed = [], 0, 0
    for stage in _names(folder / "checkpoints"):
        states = folder / "checkpoints" / stage
        for step in checkpoint.saved_steps(states):
            path, checked = checkpoint.step_folder(states, step), checked + 1
            try:
                notes = checkpoint.read_notes(states, step, {"run": run, "stage": stage})
            except InputError as error:
                faults.append(str(error))
            else:
                unnamed += "step" not in notes
                faults += array_folder.faults(path, checkpoint.NOTES, notes, digests=digests)
    return Row("checkpoints", checked, faults, unnamed)


def _backbones(folder: pathlib.Path, *, digests: bool) -> Row:
    names = _names(folder / "backbone")
    return Row("backbones", len(names), [*_faults_of_backbones(folder / "backbone", names, digests=digests)])


def _faults_of_backbones(folder: pathlib.Path, names: Sequence[str], *, digests: bool) -> Iterator[str]:
    for path in (folder / name for name in names):
        try:
            facts = sealed.read_sealed(path / "backbone.json", {"digest": str, **array_folder.FILES})
        except InputError as error:
            yield str(error)
            continue
        if facts["digest"] != path.name:
            yield f"{path} holds the backbone {facts['digest']}"
        yield from array_folder.faults(path, "backbone.json", facts, digests=digests)


def _gallery(folder: pathlib.Path, *, digests: bool) -> Row:
    exists = (folder / "gallery.npz").exists()
    if digests and exists:
        from mpt_jax.update import workdir

        try:
            workdir.read_gallery(folder)
        except InputError as error:
            return Row("gallery", 1, [str(error)])
    return Row("gallery", int(exists), [])


def _report(folder: pathlib.Path, facts: Mapping[str, Any], cards: chain.Cards) -> Row:
    """Compare the rows of `report.json` with the cards."""
    path, fault = folder / "report.json", ""
    if not path.exists():
        return Row("report", 0, [])
    try:
        rows = schema.read(path)["rows"]
        by_name = {records.release_name(row["release"], row["method"], row["seed"]): row for row in rows}
    except InputError as error:
        return Row("report", 1, [f"{error}; {sealed.AGAIN}"])
    except (LookupError, TypeError, AttributeError) as error:
        return Row("report", 1, [f"{path} is damaged ({type(error).__name__}); {sealed.AGAIN}"])
    expected = [name for name in chain.releases(facts["config"]) if not name.startswith("r0-")]
    differing = [name for name in expected if name not in cards or not _reports(by_name.get(name, {}), cards[name])]
    if differing or len(rows) != len(expected):
        fault = (
            f"{path} has other numbers than the card of {listed(differing)}" if differing else f"{path} has more rows"
        )
    return Row("report", 1, [f"{fault}; {sealed.AGAIN}"] if fault else [])


def _reports(row: Mapping[str, Any], card: Mapping[str, Any]) -> bool:
    """Return whether a row has the rates of a card; those of a diverged model are None."""
    shared = row.keys() & card["metrics"].keys()
    same = all(row[key] == card["metrics"][key] or (row[key] is None and card.get("diverged")) for key in shared)
    return bool(shared) and same


def _names(folder: pathlib.Path) -> list[str]:
    """Return the sorted names in a folder, without those that a process has not finished."""
    found = folder.iterdir() if folder.is_dir() else ()
    return sorted(path.name for path in found if not path.name.startswith("."))
