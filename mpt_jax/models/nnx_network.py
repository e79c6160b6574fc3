"""A `flax.nnx` network as a linen module, so that all of this package works with it.

`flax.nnx.bridge.ToLinen` does the same for single layers. A network needs more: its layers in lists have names of text,
without which no checkpoint can be read, every call has random keys of its own, and initial weights are not computed
again in every program.
"""

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import nnx

from mpt_jax.errors import InputError
from mpt_jax.models import parameters

_COLLECTIONS = {"params": nnx.Param, "batch_stats": nnx.BatchStat}


class NNXNetwork(nn.Module):
    """An NNX network, called as ``module.apply(variables, x, train=..., mutable=..., rngs=...)``.

    Its ``nnx.Param`` are the collection ``params`` and its ``nnx.BatchStat`` are ``batch_stats``, by their paths.
    Arrays that are no variables are constants. Random streams, as those of ``nnx.Dropout``, have keys of their own in
    every call, from ``rngs={"dropout": key}``.

    Attributes:
        constructor: called as ``constructor(num_classes, dtype, rngs=rngs)``, without `rngs` if it has no such
            argument. It returns a module that is called as ``network(x, train=...)``, or if it takes no `train`, as
            ``network(x)`` after ``network.train()`` or ``network.eval()``.
        num_classes: number of logits.
        dtype: of the computation.
        fixed: patterns of frozen parameters; an ``nnx.BatchNorm`` whose parameters they freeze uses its running
            statistics in training, and does not change them.

    Examples:
        >>> class Net(nnx.Module):
        ...     def __init__(self, num_classes, dtype, rngs):
        ...         self.head = nnx.Linear(4, num_classes, dtype=dtype, rngs=rngs)
        ...     def __call__(self, x):
        ...         return self.head(x)
        >>> module = NNXNetwork(Net, num_classes=3)
        >>> variables = module.init(jax.random.key(0), jnp.zeros((1, 4)), train=False)
        >>> jax.tree.map(jnp.shape, variables)
        {'params': {'head': {'bias': (3,), 'kernel': (4, 3)}}}
        >>> module.apply(variables, jnp.zeros((2, 4)), train=False).shape
        (2, 3)
    """

    constructor: Callable[..., nnx.Module]
    num_classes: int
    dtype: Any = jnp.float32
    fixed: tuple[str, ...] = ()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Return the logits."""
        if self.is_initializing():
            network = construct(self.constructor, self.num_classes, self.dtype, self.make_rng("params"))
            for path, variable in nnx.to_flat_state(nnx.state(network, nnx.Any(*_COLLECTIONS.values()))):
                self._write(path, variable)
        else:
            network = self._restored(train=train)
        counts = _counts(network)
        for path, layer in nnx.iter_modules(network):
            if isinstance(layer, nnx.BatchNorm) and parameters.keeps_statistics(self.fixed, _name(path)):
                _use_running_statistics(layer)
        with _Shown(network, "head"):
            logits = _call(network, x, train=train)
        drawn = any(before is not after for before, after in zip(counts, _counts(network), strict=True))
        if drawn and not self.is_initializing() and not (train and self.has_rng("dropout")):
            raise InputError(
                "the network draws random numbers without a key"
                if train
                else "the network draws random numbers at inference; expected a __call__(x, train) that passes "
                "deterministic=not train to its nnx.Dropout, or a __call__(x) whose modes follow .train() and .eval()"
            )
        if self.is_mutable_collection("batch_stats"):
            for path, variable in nnx.to_flat_state(nnx.state(network, nnx.BatchStat)):
                self._write(path, variable)
        return logits

    def _restored(self, *, train: bool) -> nnx.Module:
        """Return the network with the variables and the random key of this call."""
        graphdef, state = _template(self.constructor, self.num_classes, jnp.dtype(self.dtype))
        key = self.make_rng("dropout") if train and self.has_rng("dropout") else jax.random.key(0)
        leaves = []
        for number, (path, leaf) in enumerate(nnx.to_flat_state(state)):
            if isinstance(leaf, nnx.RngKey):
                own = jax.random.fold_in(key, number)
                leaf = leaf.replace(jax.random.split(own, leaf.shape) if leaf.shape else own)
            elif isinstance(leaf, nnx.RngCount):
                leaf = leaf.replace(jnp.zeros(leaf.shape, leaf.dtype))
            elif (collection := _collection(leaf)) is not None:
                leaf = leaf.replace(_get(self.variables[collection], path))
            leaves.append((path, leaf))
        return nnx.merge(graphdef, nnx.from_flat_state(leaves))

    def _write(self, path: Sequence[Any], variable: nnx.Variable) -> None:
        collection, (first, *rest) = _collection(variable), map(str, path)
        assert collection is not None  # the caller has selected these
        value = variable.get_value()
        if rest:
            value = _with(self.get_variable(collection, first, {}), rest, value)
        self.put_variable(collection, first, value)


def construct(constructor: Callable[..., Any], num_classes: int, dtype: Any, key: jax.Array) -> Any:
    """Call the constructor of a network, with random streams if it takes them."""
    dtype = jnp.dtype(dtype)
    if takes_rngs(constructor):
        return constructor(num_classes, dtype, rngs=nnx.Rngs(key))
    return constructor(num_classes, dtype)


def takes_rngs(constructor: Callable[..., Any]) -> bool:
    """Return whether the constructor of a network has an argument `rngs`, so that initial weights depend on a key."""
    return "rngs" in signature(constructor).parameters


def signature(constructor: Callable[..., Any]) -> inspect.Signature:
    """Return the arguments of a function or a class; NNX hides those of its classes."""
    if not (isinstance(constructor, type) and issubclass(constructor, nnx.Module)):
        return inspect.signature(constructor)
    _, *arguments = inspect.signature(constructor.__init__).parameters.values()
    return inspect.Signature(arguments)


@functools.lru_cache(maxsize=64)
def _template(constructor: Callable[..., Any], num_classes: int, dtype: Any) -> tuple[Any, Any]:
    """Return the structure and state of a network; parameters and running statistics are shapes without values.

    Raises:
        InputError: it has variables of another kind.
    """
    with jax.ensure_compile_time_eval():  # constants, not a part of the program that is being compiled
        graphdef, state = nnx.split(construct(constructor, num_classes, dtype, jax.random.key(0)))
    leaves = []
    for path, leaf in nnx.to_flat_state(state):
        if _collection(leaf) is not None:
            leaf = leaf.replace(jax.ShapeDtypeStruct(leaf.shape, leaf.dtype))
        elif isinstance(leaf, nnx.Variable) and not isinstance(leaf, nnx.RngState):
            raise InputError(
                f"{_name(path)} is an nnx.{type(leaf).__name__}; expected nnx.Param for weights and nnx.BatchStat for "
                "running statistics"
            )
        leaves.append((path, leaf))
    return graphdef, nnx.from_flat_state(leaves)


def _collection(leaf: Any) -> str | None:
    return next((name for name, kind in _COLLECTIONS.items() if isinstance(leaf, kind)), None)


def _name(path: Sequence[Any]) -> str:
    return "/".join(map(str, path))


def _get(tree: Any, path: Sequence[Any]) -> Any:
    for part in path:
        tree = tree[str(part)]
    return tree


def _with(tree: Mapping[str, Any], path: Sequence[str], value: Any) -> dict[str, Any]:
    """Return a tree with another value at a path."""
    first, *rest = path
    return {**tree, first: _with(tree.get(first, {}), rest, value) if rest else value}


def _counts(network: nnx.Module) -> list[Any]:
    """Return how often each random stream was used; a traced number is another object once it has changed."""
    return [count.get_value() for _, count in nnx.to_flat_state(nnx.state(network, nnx.RngCount))]


def _call(network: Any, x: jax.Array, *, train: bool) -> jax.Array:
    if "train" in inspect.signature(network.__call__).parameters:
        return network(x, train=train)
    network.train() if train else network.eval()
    return network(x)


class _FixedBatchNorm(nnx.BatchNorm):
    """Uses its running statistics, also where the call asks for those of the batch."""

    def __call__(self, x: jax.Array, use_running_average: bool | None = None, **options: Any) -> jax.Array:
        return super().__call__(x, use_running_average=True, **options)


def _use_running_statistics(layer: nnx.BatchNorm) -> None:
    if type(layer) is nnx.BatchNorm:
        object.__setattr__(layer, "__class__", _FixedBatchNorm)
    layer.use_running_average = True


class _Layer(nn.Module):
    """Calls a layer of an NNX network where linen's interceptors see it."""

    layer: Callable[..., Any]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.layer(*args, **kwargs)


class _Shown:
    """While it is open, linen's interceptors see a layer of an NNX network as a module of the current linen module."""

    def __init__(self, network: nnx.Module, name: str):
        self.attributes, self.name, self.layer = vars(network), name, vars(network).get(name)

    def __enter__(self) -> None:
        if isinstance(self.layer, nnx.Module) and callable(self.layer):
            self.attributes[self.name] = _Layer(self.layer, name=self.name)

    def __exit__(self, *_: object) -> None:
        if self.layer is not None:
            self.attributes[self.name] = self.layer
