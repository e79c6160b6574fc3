"""The chain of a work directory: what each file says that it is and was made from, and the checks that this holds.

- A card names its release, its run and the digests of its parents.
- Predictions name their release, the digest of its weights, and that of the test data.
- A checkpoint names its step, its stage and its run, see `files.checkpoint`.

A digest proves that a file is whole. These names prove that it is the file that belongs in its place.
"""

import hashlib
import json
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from mpt_jax.errors import InputError
from mpt_jax.files import released_model, sealed
from mpt_jax.files.predictions import released
from mpt_jax.update import records

Cards = Mapping[str, Mapping[str, Any]]  # by the name of the release
Predictions = Callable[[str], Mapping[str, np.ndarray]]  # from the name of a release


def read_card(folder: pathlib.Path, run: str) -> dict[str, Any]:
    """Read the card of a release in a work directory, and check that it belongs in this folder.

    Args:
      folder: of the release.
      run: `records.identity` of the run. Cards of a version that did not record it are not checked for it.

    Raises:
      InputError: it is missing or damaged, or that of another release or of another run.
    """
    card = released_model.read_card(folder)
    name = records.release_name(card["release"], card["method"], card["seed"])
    if folder.name != name:
        raise InputError(
            f"{folder} holds the release {name}, because folders were renamed, copied or linked; move it to its own "
            f"name, or remove {folder} to train it again"
        )
    if card.get("run", run) != run:
        raise InputError(
            f"{folder} is a release of another run; restore the one of this run, or remove {folder} to train it again "
            "(a run starts from the models of another one with update.old=DIR)"
        )
    return card


def broken_links(name: str, cards: Cards, *, complete: bool) -> Iterator[str]:
    """Yield a line for each parent of a release that is not the one it was made with.

    Args:
      complete: whether a parent may not be missing.
    """
    for parent, digest in cards[name]["parents"].items():
        if parent in cards and cards[parent]["digest"] != digest:
            yield f"was made with another {parent} than the one in the work directory"
        elif complete and parent not in cards:
            yield f"was made with {parent}, which is missing"


def read_cards(folder: pathlib.Path, facts: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Read the cards of a finished run's methods and of all that they were made from, and check every link.

    Args:
      folder: the work directory.
      facts: of `records.read_facts`.

    Raises:
      InputError: a card is missing, damaged or out of place, or a release was made with another parent.
    """
    run, cards = records.identity(facts), {}
    waiting = list(releases(facts["config"]))
    while waiting:
        name = waiting.pop(0)
        if name not in cards:
            cards[name] = read_card(folder / "releases" / name, run)
            waiting += [*cards[name]["parents"]]
    for name in cards:
        for fault in broken_links(name, cards, complete=True):
            raise InputError(f"{folder / 'releases' / name} {fault}; run the same command again")
    return cards


def releases(config: Mapping[str, Any]) -> Iterator[str]:
    """Yield the names of the releases that a report is about, the old models first; their parents may be others.

    Args:
      config: as in `config.json`.
    """
    update = config["update"]
    for release in range(len(update["schedule"])):
        for method in (records.INDEPENDENT, *update["methods"]) if release else (records.OLD,):
            for seed in config["seeds"]:
                yield records.release_name(release, method, seed)


def about(name: str, digest: str, contents: Mapping[str, str]) -> dict[str, str]:
    """Return what the predictions of a release say that they are of.

    Args:
      name: of the release.
      digest: of its weights.
      contents: digests of the run's data, as in `config.json`. Without them the test data is not named.
    """
    test = {what: value for what, value in contents.items() if what.startswith("test ")}
    data = {"test data": hashlib.sha256(json.dumps(test, sort_keys=True).encode()).hexdigest()} if test else {}
    return {"release": name, "weights": digest, **data}


def predictions_path(folder: pathlib.Path, name: str) -> pathlib.Path:
    """Return the file of a release's predictions on the test images."""
    return folder / "predictions" / f"{name}.npz"


def read_predictions(
    folder: pathlib.Path, name: str, card: Mapping[str, Any], contents: Mapping[str, str]
) -> dict[str, np.ndarray]:
    """Read the predictions of a release, and check that they are of its weights on the test data of the run.

    Args:
      folder: the work directory.
      name: of the release.
      card: of the release.
      contents: digests of the run's data.

    Raises:
      InputError: they are missing or damaged, or other ones.
    """
    path = predictions_path(folder, name)
    arrays = released.read(path, about(name, card["digest"], contents))
    data = sealed.digest({"labels": arrays["labels"], "ids": arrays["ids"]})
    if data != contents.get("test labels and ids", data):
        raise InputError(f"{path} has other labels or ids than the test data of the run; {sealed.AGAIN}")
    if arrays["logits"].shape != (expected := (len(arrays["labels"]), len(card["classes"]))):
        found = list(arrays["logits"].shape)
        raise InputError(
            f"{path} has logits of shape {found}; expected {[*expected]}, images and classes; {sealed.AGAIN}"
        )
    return arrays


def reader(folder: pathlib.Path, facts: Mapping[str, Any], cards: Cards) -> Predictions:
    """Return a function that reads the predictions of a release of a finished run, by its name.

    Args:
      folder: the work directory.
      facts: of `records.read_facts`.
      cards: of `read_cards`.
    """
    return lambda name: read_predictions(folder, name, cards[name], facts.get("contents", {}))
