"""The classes that an update changes (`update.class_map`): which classes of the run each class of the old model is.

The classes that any old one stands for come first in the run's order, the new ones after them. So "a class from this
position on is new" holds with and without a change.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from mpt_jax import class_map, losses, objectives
from mpt_jax.class_map import ClassMap
from mpt_jax.config import Config
from mpt_jax.errors import InputError, listed
from mpt_jax.files import class_changes
from mpt_jax.models import Classifier, parameters
from mpt_jax.objectives import CommonClasses

KEY = "update.class_map"


@dataclasses.dataclass(frozen=True, eq=False)
class ClassChange:
    """How the classes of the old model become those of a run.

    Attributes:
      map: as the config gives it.
      old_names: the classes of the old model, in the order of its outputs.
      allowed: which of the run's classes each of them stands for, ``[K_old, K]``, see `class_map.matrix`.
    """

    map: ClassMap
    old_names: tuple[str, ...]
    allowed: np.ndarray

    @property
    def num_carried(self) -> int:
        """How many of the run's classes are not new; they are the first ones."""
        return int(self.allowed.any(0).sum())

    @property
    def common(self) -> CommonClasses | None:
        """What students and the old model are compared on; None if these are the first classes of both."""
        return objectives.common_classes(self.allowed)

    def becomes(self) -> dict[str, tuple[str, ...]]:
        """Return the new classes of each class of the old model."""
        return dict(zip(self.old_names, class_map.targets(self.map, self.old_names), strict=True))

    def record(self) -> dict[str, Any]:
        """Return the map and its digest, as in cards."""
        return {**self.map.as_dict(), "digest": digest(self.map)}

    def in_common(self, logits: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the old model's logits ``[n, K_old]`` and the labels ``[n]`` on the common classes.

        Args:
          labels: of classes that are not new.
        """
        common = self.common
        if common is None:
            return logits, labels
        place = np.full(self.allowed.shape[1], -1)
        for g, members in enumerate(common.of_student):
            place[list(members)] = g
        return np.asarray(losses.carry_over(logits, common.of_source)), place[labels]


def digest(map_: ClassMap) -> str:
    """Return the SHA-256 of a map's entries, in any order."""
    return hashlib.sha256(json.dumps(map_.as_dict(), sort_keys=True).encode()).hexdigest()


def read(config: Config) -> ClassMap | None:
    """Read the class map of a config, if it has one.

    Raises:
      InputError: no such file, or entries that contradict each other.
    """
    given = config.update.class_map
    return class_changes.read_class_map(given, KEY) if given else None


def becomes(config: Config, map_: ClassMap, old_names: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Return the classes of the run that each class of the old model becomes.

    Raises:
      InputError: the old model's classes have no names, the map names others, or `update.schedule` does not fit.
    """
    if not old_names:
        raise InputError(f"{_shown(config)} needs the names of the old model's classes; expected old.classes with them")
    try:
        found = dict(zip(old_names, class_map.targets(map_, old_names), strict=True))
    except InputError as error:
        raise InputError(f"{_shown(config)}: {error}; the old model has {listed(list(old_names))}") from error
    schedule, carried = config.update.schedule, class_map.carried_over(map_, old_names)
    if schedule[0] != len(old_names) or schedule[1] < len(carried):
        raise InputError(
            f"update.schedule={list(schedule)}, but the old model has {len(old_names)} classes, which become "
            f"{len(carried)} by {_shown(config)}; expected [{len(old_names)}, {len(carried)}], or more in the second "
            "place for new classes"
        )
    return found


def make(config: Config, map_: ClassMap, old_names: Sequence[str], class_names: Sequence[str]) -> ClassChange:
    """Return the change to the classes of a run.

    Raises:
      InputError: new classes before others in `dataset.class_order`, or a setting that needs new classes without any.
    """
    allowed = class_map.matrix(map_, old_names, class_names)
    change = ClassChange(map_, tuple(old_names), allowed)
    is_new = np.asarray(~allowed.any(0))
    if is_new[: change.num_carried].any():
        first = class_names[int(np.flatnonzero(is_new)[0])]
        raise InputError(
            f"dataset.class_order={config.dataset.class_order!r} puts the new class {first!r} before some that old "
            f"classes become by {_shown(config)}; expected the new classes last, as with 'natural'"
        )
    return change


def from_cards(card: Mapping[str, Any], old_card: Mapping[str, Any]) -> ClassChange:
    """Return the change to a release whose card has a `class_map` from its predecessor."""
    map_ = class_map.parse({key: value for key, value in card["class_map"].items() if key != "digest"})
    return ClassChange(map_, tuple(old_card["classes"]), class_map.matrix(map_, old_card["classes"], card["classes"]))


def with_carried_head(classifier: Classifier, change: ClassChange) -> Classifier:
    """Return a model whose head has the columns that students start from, for the run's classes that are not new.

    A column moves with its class; that of a merged class is the mean of its m classes', and each of the n parts of a
    split class has a copy. The bias changes by log m and by -log n, so that the probabilities start where the old
    model's are: for a split class exactly, its parts together, and for a merged class where its classes have equal
    logits. Elsewhere log m is still nearer, as ``logsumexp z >= mean z + log m``. Without it, a class that is split
    into n would start with n times its odds.

    The network stays that of the old number of classes, for its weights alone are used.

    Args:
      classifier: an old model, or a stack of some.
      change: of its classes.
    """
    columns = [np.flatnonzero(rows) for rows in change.allowed.T[: change.num_carried]]
    share = 1 / np.maximum(change.allowed.sum(1), 1)  # of an old class in each of its parts
    offsets = np.log([share[rows].sum() for rows in columns])

    def carry(leaf: Any) -> np.ndarray:
        leaf = np.asarray(leaf)
        carried = [leaf[..., rows].mean(-1) if len(rows) > 1 else leaf[..., rows[0]] for rows in columns]
        return np.stack(carried, axis=-1)

    head = jax.tree.map(carry, dict(classifier.params[parameters.HEAD]))
    if "bias" in head:
        head["bias"] = (head["bias"] + offsets).astype(head["bias"].dtype)
    return classifier.replace(params={**classifier.params, parameters.HEAD: head})


def _shown(config: Config) -> str:
    given = config.update.class_map
    return f"{KEY}={given}" if isinstance(given, str) else KEY
