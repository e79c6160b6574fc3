"""Networks of the user's own: a function of a Python file that returns a linen or an NNX module.

The file runs once for each of its texts, so that equal networks compare equal. A text that was used stays known to the
process, also when the file changes during a run.
"""

import functools
import hashlib
import inspect
import pathlib
import types
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import nnx

from mpt_jax.errors import InputError, listed
from mpt_jax.models import classifier, nnx_network, parameters
from mpt_jax.models.nnx_network import NNXNetwork
from mpt_jax.runtime import regular_file, user_program

EXAMPLE = "path/to/net.py:build"


class _Program(NamedTuple):
    text: bytes
    module: types.ModuleType


_PROGRAMS: dict[tuple[str, str], _Program] = {}  # by path and digest


def is_own(name: str) -> bool:
    """Return whether a name is that of a file, not of a network of this package.

    Examples:
        >>> is_own("nets/mine.py:build"), is_own("resnet18")
        (True, False)
    """
    return name.endswith(".py") or name.rpartition(":")[0].endswith(".py")


def split(name: str) -> tuple[pathlib.Path, str]:
    """Return the file and the function of a name; a path may contain colons.

    Raises:
        InputError: no function, or no such file.

    Examples:
        >>> split("net.py")
        Traceback (most recent call last):
        ...
        mpt_jax.errors.InputError: net.py names no function; expected path/to/net.py:build
    """
    path, _, function = name.rpartition(":")
    if not path or not function.isidentifier():
        raise InputError(f"{name} names no function; expected {EXAMPLE}")
    file = pathlib.Path(path).expanduser()
    if not file.is_file():
        raise InputError(f"{name}: no file {path}; expected {EXAMPLE}, from the current folder or absolute")
    return file, function


def digest(name: str) -> str:
    """Return the SHA-256 of the file of a name, as 64 hexadecimal digits; an unreadable file is an `InputError`."""
    path, _ = split(name)
    return hashlib.sha256(_text(name, path)).hexdigest()


def text(name: str, sha256: str) -> bytes:
    """Return the text of a network that was built, also if its file is gone by now."""
    path = pathlib.Path(name.rpartition(":")[0]).expanduser()
    return _PROGRAMS[str(path.absolute()), sha256].text


def build(name: str, num_classes: int, *, dtype: str = "float32", sha256: str = "") -> nn.Module:
    """Return the network of a name such as ``path/to/net.py:build``, as a linen module.

    Args:
        name: a file and a function ``build(num_classes, dtype)``, which returns a linen or an NNX module. A function of
            an NNX module may have a third argument ``rngs``, from which it takes the initial weights.
        num_classes: number of logits.
        dtype: of the computation.
        sha256: of the text of the file; empty: of the present text.

    Raises:
        InputError: no such file or function, another text, a function that fails or that returns something else.
    """
    path, function = split(name)
    sha256 = _load(name, path, sha256)
    return _built(name, str(path.absolute()), function, sha256, num_classes, jnp.dtype(dtype))


def _text(name: str, path: pathlib.Path) -> bytes:
    try:
        return regular_file.read_bytes(path)
    except OSError as error:
        raise InputError(f"{name}: {path} cannot be read ({error.strerror}); expected {EXAMPLE}") from error


def _load(name: str, path: pathlib.Path, sha256: str) -> str:
    """Run a file, unless this text of it has run, and return its digest."""
    place = str(path.absolute())
    if (place, sha256) in _PROGRAMS:
        return sha256
    current = _text(name, path)
    found = hashlib.sha256(current).hexdigest()
    if sha256 and found != sha256:
        raise InputError(
            f"{name}: {path} has changed: its SHA-256 is {found[:12]}..., but {sha256[:12]}... is needed; restore that "
            "text, or give the new one another file name"
        )
    if (place, found) not in _PROGRAMS:
        with user_program.reported(path, name):
            _PROGRAMS[place, found] = _Program(current, user_program.load(path, current))
    return found


@functools.lru_cache(maxsize=256)  # a network is compared by its values, some of which may be functions of `build`
def _built(name: str, place: str, function: str, sha256: str, num_classes: int, dtype: Any) -> nn.Module:
    constructor = getattr(_PROGRAMS[place, sha256].module, function, None)
    if not callable(constructor):
        raise InputError(f"{name}: the file has no function {function}; expected {function}(num_classes, dtype)")
    _check_arguments(name, constructor)
    with user_program.reported(pathlib.Path(place), name):
        built = _call(constructor, num_classes, dtype)
    if isinstance(built, nnx.Module):
        return NNXNetwork(constructor, num_classes, dtype)
    if not isinstance(built, nn.Module):
        kind = f"the class {built.__name__}" if isinstance(built, type) else f"a {type(built).__name__}"
        raise InputError(f"{name} returned {kind}; expected a flax.linen or flax.nnx module")
    try:
        hash(built)
    except TypeError as error:
        raise InputError(
            f"{name} returned a {type(built).__name__} that cannot be hashed ({error}); expected attributes that are "
            "numbers, text, tuples or functions"
        ) from error
    return built


def _call(constructor: Callable[..., Any], num_classes: int, dtype: Any) -> Any:
    """Return what a constructor returns; an NNX module without values, which would be random weights."""
    key = jax.random.key(0)
    if nnx_network.takes_rngs(constructor):
        built: list[Any] = []
        jax.eval_shape(lambda: built.append(nnx_network.construct(constructor, num_classes, dtype, key)))
        if isinstance(built[0], nnx.Module):
            return built[0]
    return nnx_network.construct(constructor, num_classes, dtype, key)


def _check_arguments(name: str, constructor: Callable[..., Any]) -> None:
    signature = nnx_network.signature(constructor)
    rngs = {"rngs": None} if "rngs" in signature.parameters else {}
    try:
        signature.bind(0, None, **rngs)
    except TypeError:
        function = name.rpartition(":")[2]
        raise InputError(
            f"{name} takes {signature}; expected {function}(num_classes, dtype), or for an nnx module "
            f"{function}(num_classes, dtype, rngs)"
        ) from None


def check(name: str, module: nn.Module, num_classes: int, image_shape: tuple[int, ...]) -> None:
    """Check that a network can be trained: how it is called, its variables, and the shape of its logits.

    Nothing is computed.

    Args:
        name: of the network.
        module: of `build`.
        num_classes: number of logits.
        image_shape: of one input.

    Raises:
        InputError: the first thing that does not fit.
    """
    path, _ = split(name)
    inputs = jax.ShapeDtypeStruct((2, *image_shape), jnp.float32)
    if not isinstance(module, NNXNetwork):
        _check_call(name, module)
    with user_program.reported(path, f"{name} on inputs of shape {list(inputs.shape)}"):
        variables, again = (
            jax.eval_shape(lambda x: module.init(jax.random.key(0), x, train=False), inputs) for _ in range(2)
        )
        params, batch_stats = variables.get("params", {}), variables.get("batch_stats", {})
        _check_variables(name, variables, again)
        logits, _, updated = _in_training(module, params, batch_stats, inputs)
        at_inference = jax.eval_shape(lambda variables, x: module.apply(variables, x, train=False), variables, inputs)
    for found, mode in ((logits, "in training"), (at_inference, "at inference")):
        _check_logits(name, found, (2, num_classes), mode)
    if jax.tree.map(_kind, updated) != jax.tree.map(_kind, batch_stats):
        raise InputError(
            f"{name}: training changes batch_stats from {_listed(batch_stats)} to {_listed(updated)}; expected the "
            "same names, shapes and dtypes"
        )


def _in_training(module: nn.Module, params: Any, batch_stats: Any, inputs: Any) -> tuple[Any, Any, Any]:
    """Return the shapes of `models.train_forward`."""

    def forward(params: Any, batch_stats: Any, inputs: Any) -> tuple[Any, Any, Any]:
        return classifier.train_forward(module, params, batch_stats, inputs, jax.random.key(0))

    return jax.eval_shape(forward, params, batch_stats, inputs)


def _check_call(name: str, module: nn.Module) -> None:
    call = inspect.signature(type(module).__call__)
    named = any(p.name == "train" or p.kind is inspect.Parameter.VAR_KEYWORD for p in call.parameters.values())
    if not named:
        raise InputError(
            f"{name}: {type(module).__name__}.__call__ takes {call}; expected __call__(self, x, train), with train for "
            "its Dropout and BatchNorm"
        )


def _check_variables(name: str, variables: Any, again: Any) -> None:
    if jax.tree.map(_kind, variables) != jax.tree.map(_kind, again):
        raise InputError(f"{name} has other parameters in each call; expected the same names and shapes")
    if others := sorted(set(variables) - {"params", "batch_stats"}):
        raise InputError(
            f"{name} has variables in {listed(others)}; expected params for weights and batch_stats for running "
            "statistics alone"
        )
    if not jax.tree.leaves(variables.get("params", {})):
        raise InputError(f"{name} has no parameters; expected a network with weights to train")
    for keys, leaf in jax.tree_util.tree_leaves_with_path(variables):
        if not jnp.issubdtype(leaf.dtype, jnp.floating) or leaf.dtype.itemsize < 4:
            raise InputError(
                f"{name}: {parameters.path_of(keys)} is {leaf.dtype}; expected float32: dtype is of the computation, "
                "and param_dtype stays float32"
            )


def _check_logits(name: str, found: Any, shape: tuple[int, int], mode: str) -> None:
    if not isinstance(found, jax.ShapeDtypeStruct):
        raise InputError(f"{name} returns a {type(found).__name__} {mode}; expected logits alone, [batch, num_classes]")
    if found.shape != shape or not jnp.issubdtype(found.dtype, jnp.floating):
        raise InputError(
            f"{name} returns {found.dtype} of shape {list(found.shape)} {mode}; expected floats of shape "
            f"{list(shape)}, [batch, num_classes]"
        )


def _kind(leaf: Any) -> tuple[Any, Any]:
    return leaf.shape, leaf.dtype


def _listed(tree: Any) -> str:
    return listed([f"{path} {list(leaf.shape)}" for path, leaf in parameters.with_paths(tree)]) or "none"


def without_head(module: nn.Module, image_shape: tuple[int, ...]) -> str:
    """Return why a network has no head that others can use, or an empty text.

    A head is the last layer: it is called `head`, has ``kernel [D, K]`` and ``bias [K]``, and takes features
    ``[batch, D]``.

    Examples:
        >>> from mpt_jax.models import build
        >>> without_head(build("convnet", 10), (8, 8, 1))
        ''
    """
    inputs = jax.ShapeDtypeStruct((2, *image_shape), jnp.float32)
    params, batch_stats = jax.eval_shape(lambda: classifier.init(module, jax.random.key(0), image_shape))
    logits, features, _ = _in_training(module, params, batch_stats, inputs)
    head = params.get(parameters.HEAD)
    if head is None:
        return f"it has no layer called head, but {listed(sorted(params))}"
    if features is None:
        return "its head is not called as self.head(features)"
    shapes = jax.tree.map(lambda leaf: leaf.shape, head)
    if shapes != {"kernel": (features.shape[-1], logits.shape[-1]), "bias": (logits.shape[-1],)}:
        return f"its head has {_listed(head)}, not a kernel [D, {logits.shape[-1]}] and a bias [{logits.shape[-1]}]"
    return "" if features.ndim == 2 else f"its head takes {list(features.shape)}, not features [batch, D]"
