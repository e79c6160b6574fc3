"""A network's weights among the names of a checkpoint: which prefix they have, and what is beside them."""

from collections import Counter
from collections.abc import Collection, Mapping
from typing import TypeVar

from mpt_jax.errors import InputError, listed

T = TypeVar("T")


def select(state: Mapping[str, T], known: Collection[str], prefix: str = "") -> tuple[dict[str, T], str]:
    """Return the weights of one network without the prefix of their names, and that prefix.

    The prefix is the one under which most of the network's names are: `module.` of a wrapper, `state_dict.` of a
    checkpoint, `backbone.` of a trainer, or several nested ones. Everything else (an optimizer, a loss, a moving
    average named `ema`) is ignored.

    Args:
      state: the arrays of a file by name.
      known: the names of the network.
      prefix: of the weights; empty: to be found.

    Raises:
      InputError: no name has the prefix, or several prefixes fit.

    Examples:
      >>> known = ("conv.weight", "fc.weight", "fc.bias")
      >>> select({"net.conv.weight": 1, "net.fc.weight": 2, "net.fc.bias": 3, "loss.weight": 4}, known)
      ({'conv.weight': 1, 'fc.weight': 2, 'fc.bias': 3}, 'net.')
      >>> select({"a.fc.weight": 1, "b.fc.weight": 2}, known)
      Traceback (most recent call last):
      ...
      mpt_jax.errors.InputError: several networks: under 'a.', 'b.'; expected the prefix of one of them as strip
    """
    if prefix:
        prefix = f"{prefix.rstrip('.')}."
        if not any(name.startswith(prefix) for name in state):
            raise InputError(f"no name begins with {prefix!r}; the names are {listed(list(state), most=3)}")
    else:
        prefix = _found(state, set(known))
    return {name.removeprefix(prefix): array for name, array in state.items() if name.startswith(prefix)}, prefix


def _found(state: Collection[str], known: Collection[str]) -> str:
    counts = Counter(
        name[:start] for name in state for start in starts(name) if name[start:] in known and start < len(name)
    )
    most = max(counts.values(), default=0)
    if 10 * most < len(state):  # another network, for the messages about its names
        return common(state)
    rivals = [prefix for prefix, count in counts.items() if 2 * count > most]
    if len(rivals) > 1:
        rivals = [prefix for prefix in rivals if not _is_average(prefix)] or rivals
    if len(rivals) > 1:
        under = listed([repr(prefix) for prefix in sorted(rivals)])
        raise InputError(f"several networks: under {under}; expected the prefix of one of them as strip")
    return rivals[0]


def starts(name: str) -> list[int]:
    """Return the positions at which a part of a name begins.

    Examples:
      >>> starts("net.fc.bias")
      [0, 4, 7]
    """
    return [0, *(i + 1 for i, character in enumerate(name) if character == ".")]


def _is_average(prefix: str) -> bool:
    return "ema" in prefix.replace("_", ".").split(".")


def common(names: Collection[str]) -> str:
    """Return the leading parts that all names share, without numbers.

    Examples:
      >>> common(["net.conv.weight", "net.conv.bias"])
      'net.conv.'
    """
    prefix = ""
    while True:
        heads = {name[len(prefix) :].partition(".")[::2] for name in names}
        first = {head for head, _ in heads}
        if len(first) != 1 or not all(rest for _, rest in heads) or next(iter(first)).isdecimal():
            return prefix
        prefix += f"{first.pop()}."
