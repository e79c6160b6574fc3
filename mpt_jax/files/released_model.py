"""Released models: a folder with `model/` (the weights) and `card.json`.

The card holds the architecture, class names in order, parents, digest and metrics. If a run has trained only heads, the
weights of its releases are in two parts: `model/` has the head, and `backbone/` the frozen rest, whose files are links
to one copy in the work directory. A copied folder is complete. The release of a network of one's own has a copy of its
file, `network.py`, which is never run from there. Reading and checking cards imports no JAX.
"""

import pathlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from mpt_jax.errors import InputError
from mpt_jax.files import array_folder, schema, storage
from mpt_jax.files.sealed import digest, read_sealed
from mpt_jax.runtime.provenance import PROVENANCE

if TYPE_CHECKING:
    from mpt_jax.models import Classifier

NETWORK = "network.py"  # the file of a network of one's own
PARTS = ("model", "backbone")  # subfolders with arrays; the second only where it is shared
_RATE = (float, None)
_CANDIDATE = {"numbers": {...: float}, "accuracy": _RATE, "nfr": _RATE, "diverged?": bool}
_CHOICE = {"candidates": [_CANDIDATE], "chosen": int, "validation_images": int, "required_accuracy": float}
CARD = {
    **{"name": str, "method": str, "release": int, "seed": int, "dataset": str, "digest": str, "files": {...: str}},
    **{"sizes?": {...: int}, "run?": str},
    "architecture": {"name?": str, "options?": {...: (str, float, bool)}, "predictions?": str, "ensemble?": bool},
    **{"normalization": {...: (list, None)}, "objective": dict, "parents": {...: str}, "metrics": {...: _RATE}},
    **{"classes": [str], "image_shape": [int], "steps": int, "seconds": float, "examples_per_second": float},
    **{"made_with?": PROVENANCE, "scenario?": dict, "backbone?": str, "diverged?": bool, "adopted_from?": str},
    **{"pretrained?": dict, "resizing?": {"resize": int, "interpolation": str}},
    "selection?": (_CHOICE, None),
}
"""What a card must hold."""
_OF_WEIGHTS = {"architecture": {"name": str, "options": dict}, "normalization": {"mean": list, "std": list}}
"""What the card of a release with weights must hold as well."""


def identity(classifier: "Classifier") -> str:
    """Return the digest of a classifier's weights, which is also in the card of its release."""
    return digest(_weights(classifier))


def _on_host(tree: Any) -> Any:
    return _each(np.asarray, tree)


def _each(function: Callable[[Any], Any], tree: Any) -> Any:
    import jax  # not needed for cards

    return jax.tree.map(function, tree)


def _weights(classifier: "Classifier") -> dict[str, Any]:
    return _on_host({"params": classifier.params, "batch_stats": classifier.batch_stats})


def write_backbone(folder: pathlib.Path, params: Any, batch_stats: Any) -> pathlib.Path:
    """Write the frozen part of networks below a folder, unless it is there, and return its own folder.

    Args:
      params: without the head.
      batch_stats: of all layers.

    Raises:
      InputError: it is there, but damaged.
    """
    arrays = _on_host({"params": params, "batch_stats": batch_stats})
    own = folder / digest(arrays)
    if not (own / "backbone.json").is_file():
        array_folder.write(own, "backbone.json", {"digest": own.name}, arrays)
        return own
    try:
        array_folder.read(own, "backbone.json", None)
    except InputError as error:
        raise InputError(f"{error}; remove {own} to write it again") from error
    return own


def write(
    folder: pathlib.Path,
    classifier: "Classifier | None",
    card: Mapping[str, Any],
    backbone: pathlib.Path | None = None,
) -> None:
    """Write a classifier without leading axes and its card, to which the mean, std and digests are added.

    Args:
      folder: of this release.
      classifier: None for a model known only by its predictions, whose card has a digest and gains no files.
      card: JSON values. A `digest` in it must be that of the weights.
      backbone: of `write_backbone`, with all weights of the classifier but its head.

    Raises:
      OSError: the disk is full, or cannot be written.
    """
    if classifier is None:
        return array_folder.write(folder, "card.json", {"schema": 2, **card, "normalization": {}}, None)
    weights = _weights(classifier)
    normalization = {name: np.asarray(getattr(classifier, name)).tolist() for name in ("mean", "std")}
    card = {"schema": 2, **card, "normalization": normalization, "digest": card.get("digest") or digest(weights)}
    if backbone is None:
        return array_folder.write(folder, "card.json", card, weights, texts=_texts(card))
    head = {"params": {"head": weights["params"]["head"]}}
    array_folder.write(folder, "card.json", {**card, "backbone": backbone.name}, head, {"backbone": backbone})


def _texts(card: Mapping[str, Any]) -> dict[str, bytes]:
    """Return the copy of the file of a network of one's own, by its name in the release."""
    from mpt_jax.models import own_network

    name, sha256 = card["architecture"]["name"], card["architecture"]["options"].get("sha256")
    return {NETWORK: own_network.text(name, sha256)} if sha256 and own_network.is_own(name) else {}


def read_card(folder: pathlib.Path) -> dict[str, Any]:
    """Read the card of a released model.

    Raises:
      InputError: the folder is missing, is not a released model, or its card is damaged.
    """
    storage.check_name(folder)
    storage.check_access(folder)
    if not folder.is_dir():
        raise InputError(f"no released model at {folder}; expected a folder with card.json and model/")
    path = folder / "card.json"
    if not path.is_file():
        raise InputError(
            f"{folder} is not a released model: it has no card.json; expected a folder in WORKDIR/releases"
        )
    try:
        card = read_sealed(path)
    except InputError as error:
        raise InputError(f"{error}; {_remedy(folder)}") from error
    if card.get("schema") != 2:
        raise InputError(f"{path} has schema {card.get('schema')!r}; expected a card of schema 2")
    if found := _fault(card):
        raise InputError(f"{path} is damaged: {found}; {_remedy(folder)}")
    return card


def _fault(card: Mapping[str, Any]) -> str:
    """Return the first thing that a card lacks or has of another kind, in words; "" if there is none."""
    if found := schema.fault(card, CARD) or (schema.fault(card, _OF_WEIGHTS) if card["files"] else ""):
        return found
    choice = card.get("selection") or {"chosen": 0, "candidates": [{}]}
    if not 0 <= choice["chosen"] < len(choice["candidates"]):
        return f"selection.chosen is {choice['chosen']}; expected one of the {len(choice['candidates'])} candidates"
    return ""


def read(folder: pathlib.Path) -> "tuple[Classifier, dict[str, Any]]":
    """Read a released model and its card, and check its files and weights against the digests in the card.

    Raises:
      InputError: not a released model, damaged, or an architecture that this version does not have.
    """
    from mpt_jax import models
    from mpt_jax.models import own_network

    card = read_card(folder)
    if not card["files"]:
        source = card["architecture"].get("predictions")
        raise InputError(
            f"{folder} has no weights: the model is known only by its predictions in {source}; expected a release "
            "with weights"
        )
    weights = _checked_weights(folder, card)
    try:
        name, options = str(card["architecture"]["name"]), dict(card["architecture"]["options"])
        mean, std = (np.asarray(card["normalization"][key], np.float32) for key in ("mean", "std"))
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{folder} cannot be read ({type(error).__name__}); {_remedy(folder)}") from error
    try:
        module = models.build(name, len(card["classes"]), **options)
    except InputError as error:
        copy = folder / NETWORK
        remedy = f"a copy of the text is {copy}" if own_network.is_own(name) and copy.exists() else _remedy(folder)
        raise InputError(f"{folder}: {error}; {remedy}") from error
    ensemble = card["architecture"].get("ensemble") is True
    return models.Classifier(module=module, mean=mean, std=std, ensemble=ensemble, **weights), card


def check(folder: pathlib.Path, card: Mapping[str, Any], *, digests: bool = False) -> None:
    """Check that the weights of a release are those of its card.

    Args:
      digests: read them. Otherwise check that their files are there in their size, and read only those that were
        changed after the release.

    Raises:
      InputError: a file is missing or damaged, or holds other weights.
    """
    if digests:
        _checked_weights(folder, card)
    for fault in array_folder.faults(folder, "card.json", card, PARTS, digests=False):
        raise InputError(f"{fault}; {_remedy(folder)}")


def read_head(folder: pathlib.Path) -> Any:
    """Read the head of a release with a backbone: ``{"kernel": [D, K], "bias": [K]}``.

    Raises:
      InputError: damaged.
    """
    try:
        return _on_host(array_folder.read(folder, "card.json", None)[0]["params"]["head"])
    except (InputError, KeyError) as error:
        raise InputError(f"{error}; {_remedy(folder)}") from error


def _checked_weights(folder: pathlib.Path, card: Mapping[str, Any]) -> dict[str, Any]:
    """Read the weights of a release, and check its files and them against the digests in its card."""
    try:
        weights = _read_weights(folder, card)
    except InputError as error:
        raise InputError(f"{error}; {_remedy(folder)}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{folder} cannot be read ({type(error).__name__}); {_remedy(folder)}") from error
    if digest(weights) != card["digest"]:
        raise InputError(f"{folder}/model does not match the digest in its card.json; {_remedy(folder)}")
    return weights


def _read_weights(folder: pathlib.Path, card: Mapping[str, Any]) -> dict[str, Any]:
    weights, _ = array_folder.read(folder, "card.json", None)
    if "backbone" not in card:
        return _on_host({key: weights[key] for key in ("params", "batch_stats")})
    backbone, _ = array_folder.read(folder, "card.json", None, "backbone")
    head = weights["params"]["head"]
    networks = head["kernel"].shape[:-2]  # of an ensemble, which share the backbone
    shared = _each(lambda leaf: np.broadcast_to(leaf, (*networks, *np.shape(leaf))), backbone)
    whole = {"params": {**shared["params"], "head": head}, "batch_stats": shared["batch_stats"]}
    return _on_host(whole)


def _remedy(folder: pathlib.Path) -> str:
    return f"restore it from a copy, or remove {folder} to train it again"
