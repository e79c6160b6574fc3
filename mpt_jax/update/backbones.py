"""Frozen backbones: networks without their heads, and heads that learn from their features.

In a run on frozen features every model is a head, a `models.LinearHead` that takes its backbone's columns of the
features. On disk it is the whole network again.
"""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from flax import linen as nn

from mpt_jax import data, models
from mpt_jax.errors import InputError
from mpt_jax.files import released_model, sealed
from mpt_jax.models import Classifier, parameters


@dataclasses.dataclass(frozen=True, eq=False)
class Backbone:
    """A frozen network without its head.

    Attributes:
      facts: what its features depend on, see `facts_of`.
      classifier: its weights, without a head, and its normalization.
      columns: the first column of its features in the arrays of the run, and the one after the last.
      folder: of its weights in the work directory, once they are there.
    """

    facts: Mapping[str, Any]
    classifier: Classifier
    columns: tuple[int, int]
    folder: pathlib.Path | None = None

    @property
    def network(self) -> Mapping[str, Any]:
        """Its `name` and `options`, as in the card of a release."""
        return self.facts["network"]

    @property
    def width(self) -> int:
        """How many features an image has."""
        return self.columns[1] - self.columns[0]

    def module(self, num_classes: int) -> nn.Module:
        """Return a head on its columns."""
        dtype = np.dtype(self.classifier.module.dtype).name
        return models.build("linear", 1, dtype=dtype).clone(num_classes=num_classes, columns=self.columns)

    def made(self, card: Mapping[str, Any]) -> bool:
        """Return whether it is the backbone of a release that has one of its own."""
        ours = {"mean": self.classifier.mean, "std": self.classifier.std}
        same = [np.all(np.asarray(card["normalization"][key], np.float32) == ours[key]) for key in ours]
        return self.folder is not None and self.folder.name == card.get("backbone") and all(same)


@dataclasses.dataclass(frozen=True, eq=False)
class Backbones:
    """The backbones of a run on frozen features.

    Attributes:
      old: of the first release; None: only its logits are known.
      new: of all other releases.
      cache: folder of the features of all networks.
      test_images: of the run.
    """

    old: Backbone | None
    new: Backbone
    cache: pathlib.Path
    test_images: np.ndarray | data.Stream

    @property
    def each(self) -> list[Backbone]:
        """Each backbone once, in the order of their columns."""
        return [self.new] if self.old in (None, self.new) else [self.new, self.old]  # type: ignore[list-item]

    @property
    def width(self) -> int:
        """How many columns the features have."""
        return max(backbone.columns[1] for backbone in self.each)

    def of_release(self, release: int) -> Backbone:
        """Return the backbone of the models of a release."""
        return self.new if release or self.old is None else self.old

    def head(self, classifier: Classifier, network: Mapping[str, Any]) -> Classifier | None:
        """Return the head of a whole network on the features; None if its backbone is none of these.

        Args:
          classifier: without leading axes.
          network: its `name` and `options`.
        """
        facts = facts_of(network, classifier)
        chosen = next((backbone for backbone in self.each if backbone.facts == facts), None)
        return None if chosen is None else self.on_features(chosen, classifier.params[parameters.HEAD])

    def read(self, folder: pathlib.Path, card: Mapping[str, Any]) -> Classifier:
        """Read the head of a release of the run.

        Raises:
          InputError: it is damaged, or has another backbone.
        """
        head = None
        if "backbone" not in card:  # it was released while features were not precomputed
            head = self.head(released_model.read(folder)[0], card["architecture"])
        elif chosen := next((backbone for backbone in self.each if backbone.made(card)), None):
            ensemble = card["architecture"].get("ensemble") is True
            head = self.on_features(chosen, released_model.read_head(folder), ensemble)
        if head is None:
            raise InputError(
                f"{folder} has another backbone than the models of this run; restore it from a copy, set "
                "training.precompute_features=False, or give another --workdir"
            )
        return head

    def on_features(self, backbone: Backbone, head: Mapping[str, Any], ensemble: bool = False) -> Classifier:
        """Return the classifier of features that consists of a head."""
        leading = np.shape(head["kernel"])[:-2]
        mean, std = (np.broadcast_to(np.float32(value), (*leading, self.width)) for value in (0, 1))
        module = backbone.module(np.shape(head["kernel"])[-1])
        return Classifier(module, {parameters.HEAD: dict(head)}, {}, mean, std, ensemble)

    def whole(self, head: Classifier) -> tuple[Classifier, pathlib.Path | None]:
        """Return the network of a head without leading axes, those of an ensemble excepted, and its backbone's folder.

        Weights have the leading axes of an ensemble without taking their memory.
        """
        backbone = next(backbone for backbone in self.each if backbone.columns == head.module.columns)
        kernel = head.params[parameters.HEAD]["kernel"]
        frozen = jax.tree.map(
            lambda leaf: np.broadcast_to(leaf, (*kernel.shape[:-2], *leaf.shape)), backbone.classifier
        )
        module = models.build(backbone.network["name"], kernel.shape[-1], **backbone.network["options"])
        params = {**frozen.params, parameters.HEAD: head.params[parameters.HEAD]}
        return frozen.replace(module=module, params=params, ensemble=head.ensemble), backbone.folder


def without_head(classifier: Classifier) -> Classifier:
    """Return a classifier whose parameters have no head; it has features, but no logits."""
    params = {name: values for name, values in classifier.params.items() if name != parameters.HEAD}
    return jax.tree.map(np.asarray, classifier.replace(params=params))


def facts_of(network: Mapping[str, Any], classifier: Classifier) -> dict[str, Any]:
    """Return what the features of an image depend on: the network, its weights without the head, its normalization."""
    frozen = without_head(classifier)
    weights = sealed.digest([frozen.params, frozen.batch_stats, frozen.mean, frozen.std])
    return {"network": {key: network[key] for key in ("name", "options")}, "weights": weights}
