"""A trained classifier as one pytree, from raw inputs to logits: network, parameters and normalisation.

Inputs are uint8 images, or float arrays such as the features of a frozen network; the dtype tells which.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import struct
from jax import Array

from mpt_jax.models import parameters
from mpt_jax.models.convolution import native_convolutions
from mpt_jax.models.layers import at_least_float32, fold_batch_norms
from mpt_jax.models.nnx_network import NNXNetwork


class Classifier(struct.PyTreeNode):
    """A network with its weights and the normalisation of its inputs.

    It can be passed to jitted functions (as a teacher) and stacked along leading axes for ``vmap``.

    Attributes:
        module: the network, static under ``jit``.
        params: its parameters.
        batch_stats: its running statistics; empty for a network without BatchNorm.
        mean: ``[channels]``, float32, in units of pixel / 255 or of the features; None if inputs come normalised.
        std: ``[channels]``, float32, in the same units; None if inputs come normalised.
        ensemble: whether this is several networks of one architecture that predict their mean logits; leaves have an
            additional leading axis over the networks.
    """

    module: nn.Module = struct.field(pytree_node=False)
    params: Any
    batch_stats: Any
    mean: Array | np.ndarray | None
    std: Array | np.ndarray | None
    ensemble: bool = struct.field(pytree_node=False, default=False)


def normalize(inputs: Array, mean: Array | np.ndarray, std: Array | np.ndarray, dtype: Any = jnp.float32) -> Array:
    """Return ``(inputs / 255 - mean) / std`` of pixels, or ``(inputs - mean) / std`` of floats, in ``dtype``.

    Args:
        inputs: ``[batch, height, width, channels]``, uint8, or ``[batch, ..., channels]`` of a floating dtype.
        mean: ``[channels]``, in units of pixel / 255, or of the floats.
        std: ``[channels]``, in the same units.
        dtype: floating type of the result.

    Returns:
        An array of the shape of the inputs.

    Raises:
        TypeError: the inputs are neither uint8 nor floats.

    Examples:
        >>> pixels = jnp.array([0, 255], jnp.uint8).reshape(1, 1, 2, 1)
        >>> normalize(pixels, jnp.array([0.5]), jnp.array([0.25])).ravel().tolist()
        [-2.0, 2.0]
        >>> normalize(jnp.array([[3.0, 30.0]]), jnp.array([1.0, 10.0]), jnp.array([2.0, 5.0])).tolist()
        [[1.0, 4.0]]
    """
    pixels = inputs.dtype == jnp.uint8
    if not (pixels or jnp.issubdtype(inputs.dtype, jnp.floating)):
        raise TypeError(f"inputs of dtype {inputs.dtype}; expected uint8 pixels or floating features")
    lead = range(inputs.ndim - 1)
    mean, std = (jnp.expand_dims(jnp.asarray(v, dtype), lead) for v in (mean, std))
    x = inputs.astype(dtype)
    return ((x / 255 if pixels else x) - mean) / std


def init(module: nn.Module, key: Array, image_shape: tuple[int, ...]) -> tuple[Any, Any]:
    """Initialise a network: return random parameters and initial running statistics, ``(params, batch_stats)``.

    Args:
        module: a network of `mpt_jax.models.build`.
        key: a typed key of `jax.random.key`.
        image_shape: of one input: ``(height, width, channels)``, or ``(D,)`` for features.

    Examples:
        >>> from mpt_jax.models import build
        >>> params, batch_stats = init(build("convnet", 10), jax.random.key(0), (8, 8, 1))
        >>> params["conv1"]["kernel"].shape, params["head"]["kernel"].shape
        ((3, 3, 1, 16), (512, 10))
    """
    with native_convolutions():  # no convolution is run, and these are traced fastest
        variables = module.lazy_init(key, jax.ShapeDtypeStruct((1, *image_shape), jnp.float32), train=False)
    return variables["params"], variables.get("batch_stats", {})


@functools.lru_cache(maxsize=64)
def shapes(module: nn.Module, image_shape: tuple[int, ...]) -> tuple[Any, Any]:
    """Return the shapes of ``(params, batch_stats)``; to trace a deep network takes a second."""
    return jax.eval_shape(lambda: init(module, jax.random.key(0), image_shape))


def warm_start(fresh: Any, trained: Any) -> Any:
    """Replace a fresh network's weights by trained ones; the head's columns of new classes stay fresh.

    Args:
        fresh: ``(params, batch_stats)`` of `init`.
        trained: the same of a network of this architecture with at most as many classes.

    Raises:
        ValueError: the networks differ in more than the number of classes.

    Examples:
        >>> fresh, trained = ({"head": {"bias": jnp.zeros(3)}}, {}), ({"head": {"bias": jnp.ones(2)}}, {})
        >>> warm_start(fresh, trained)[0]["head"]["bias"].tolist()
        [1.0, 1.0, 0.0]
    """

    def grow(path: Any, fresh: Array, trained: Array) -> Array:
        known = trained.shape[-1] if trained.ndim else 0
        if fresh.shape == trained.shape:
            return jnp.asarray(trained)
        if path[1].key != "head" or fresh[..., :known].shape != trained.shape:
            name = jax.tree_util.keystr(path[1:])
            raise ValueError(
                f"{name} has shape {trained.shape} in the trained network and {fresh.shape} in the fresh one"
            )
        return jnp.concatenate([trained, fresh[..., known:]], axis=-1)

    return jax.tree_util.tree_map_with_path(grow, fresh, trained)


def layer_order(module: nn.Module, image_shape: Sequence[int]) -> tuple[str, ...]:
    """Return the names of the layers in the order of their calls: the submodules of the network that have parameters.

    Args:
        module: a network.
        image_shape: of one input.

    Examples:
        >>> from mpt_jax.models import build
        >>> layer_order(build("convnet", 10), (8, 8, 1))
        ('conv1', 'norm1', 'conv2', 'norm2', 'conv3', 'norm3', 'head')
    """
    called: list[str] = []

    def record(call: Any, args: tuple, kwargs: dict, context: nn.module.InterceptorContext) -> Any:
        called.extend(context.module.path[:1])
        return call(*args, **kwargs)

    with nn.intercept_methods(record):
        params = jax.eval_shape(lambda: init(module, jax.random.key(0), tuple(image_shape)))[0]
    return tuple(name for name in dict.fromkeys(called) if isinstance(params.get(name), Mapping))


def train_forward(
    module: nn.Module,
    params: Any,
    batch_stats: Any,
    inputs: Array,
    key: Array | None = None,
    *,
    fixed: Sequence[str] = (),
) -> tuple[Array, Any, Any]:
    """Run a network in training mode: return ``(logits, features, batch_stats)``.

    Args:
        module: a network of `mpt_jax.models.build`.
        params: its parameters.
        batch_stats: its running statistics.
        inputs: normalised, ``[batch, ...]``.
        key: of dropout and stochastic depth, a typed key; None serves networks without them.
        fixed: patterns of frozen parameters; a BatchNorm whose parameters they freeze uses its running statistics, as
            at inference, and does not change them.

    Returns:
        Logits ``[batch, num_classes]``, the inputs of the head ``[batch, features]``, both at least float32, and the
        updated running statistics. The inputs of the head are None for a network whose last layer is not ``head``.
    """
    head_inputs = []

    def record(call: Any, args: tuple, kwargs: dict, context: nn.module.InterceptorContext) -> Any:
        layer, is_call = context.module, context.method_name == "__call__"
        if layer.path == ("head",) and is_call:
            head_inputs.append(args[0])
        # An own network may set `use_running_average` in the constructor, which then accepts none in the call.
        if is_call and isinstance(layer, nn.BatchNorm) and layer.path and is_fixed("/".join(layer.path)):
            at_inference = layer.clone(parent=None, name=None, use_running_average=True)
            masks = {name: value for name, value in kwargs.items() if name == "mask"}
            return at_inference.apply(layer.variables, args[0], **masks)
        return call(*args, **kwargs)

    is_fixed = functools.partial(parameters.keeps_statistics, fixed)
    if isinstance(module, NNXNetwork):  # interceptors do not see its layers
        module = module.clone(fixed=tuple(fixed))
    with nn.intercept_methods(record):
        variables = {"params": params, "batch_stats": batch_stats}
        rngs = None if key is None else {"dropout": key}
        outputs, mutated = module.apply(variables, inputs, train=True, mutable=["batch_stats"], rngs=rngs)
    features = _at_least_float32(head_inputs[-1]) if head_inputs else None
    return _at_least_float32(outputs), features, mutated.get("batch_stats", {})


def _at_least_float32(x: Array) -> Array:
    return x.astype(at_least_float32(x.dtype))


def dtype_of(classifier: Classifier) -> np.dtype:
    """Return the dtype of a network's computation; that of its parameters if it has no attribute `dtype`."""
    return np.dtype(getattr(classifier.module, "dtype", None) or jax.tree.leaves(classifier.params)[0].dtype)


def logits(classifier: Classifier, inputs: Array) -> Array:
    """Return the logits of raw inputs at inference: normalised, and with the network's running statistics.

    Args:
        classifier: a trained classifier.
        inputs: ``[batch, height, width, channels]``, uint8, or float features ``[batch, D]``; normalised already if the
            classifier has no mean.

    Returns:
        ``[batch, num_classes]``, at least float32.

    Raises:
        TypeError: the inputs are neither uint8 nor floats.

    Examples:
        >>> from mpt_jax.models import build
        >>> module = build("convnet", 10)
        >>> params, batch_stats = init(module, jax.random.key(0), (8, 8, 1))
        >>> classifier = Classifier(module, params, batch_stats, mean=jnp.array([0.3]), std=jnp.array([0.4]))
        >>> logits(classifier, jnp.zeros((2, 8, 8, 1), jnp.uint8)).shape
        (2, 10)
    """
    if classifier.ensemble:
        # On a CPU one member after another is faster than all in parallel: see `training.fastest_members_at_once`.
        parallel = None if jax.default_backend() == "cpu" else len(jax.tree.leaves(classifier.params)[0])
        logits_of = lambda member: logits(member, inputs)  # noqa: E731
        return jax.lax.map(logits_of, classifier.replace(ensemble=False), batch_size=parallel).mean(0)
    if classifier.mean is not None and classifier.std is not None:
        inputs = normalize(inputs, classifier.mean, classifier.std, at_least_float32(dtype_of(classifier)))
    variables = {"params": classifier.params, "batch_stats": classifier.batch_stats}
    outputs: Any = classifier.module.apply(variables, inputs, train=False)  # not mutable: no tuple
    return _at_least_float32(outputs)


def fold(classifier: Classifier) -> Classifier:
    """Fold the batch normalisations into the convolutions before them, for faster inference.

    A network without the attribute ``folded`` is returned as it is.

    Logits are equal to rounding. Leaves may have leading axes, and numpy arrays stay on the host.

    Examples:
        >>> from mpt_jax.models import build
        >>> module = build("convnet", 10)
        >>> params, batch_stats = init(module, jax.random.key(0), (8, 8, 1))
        >>> folded = fold(Classifier(module, params, batch_stats, mean=jnp.array([0.3]), std=jnp.array([0.4])))
        >>> sorted(folded.params["norm1"]), folded.batch_stats
        (['bias'], {})
    """
    if not (classifier.batch_stats and hasattr(classifier.module, "folded")):
        return classifier
    epsilon = {"epsilon": classifier.module.norm_epsilon} if hasattr(classifier.module, "norm_epsilon") else {}
    return classifier.replace(
        module=classifier.module.clone(folded=True),
        params=fold_batch_norms(classifier.params, classifier.batch_stats, **epsilon),
        batch_stats={},
    )


def features(classifier: Classifier, inputs: Array) -> Array:
    """Return the penultimate features: the inputs of the network's last layer, its ``head``.

    Args:
        classifier: a trained classifier.
        inputs: as in `logits`.

    Returns:
        ``[batch, features]``, at least float32, such that ``features @ kernel + bias`` of the head are the logits.

    Raises:
        TypeError: the inputs are neither uint8 nor floats.
        ValueError: the classifier is an ensemble, which has no single features, or the network has no ``head``.

    Examples:
        >>> from mpt_jax.models import build
        >>> module = build("linear", 10)
        >>> params, _ = init(module, jax.random.key(0), (2,))
        >>> classifier = Classifier(module, params, {}, mean=jnp.array([0.0, 1.0]), std=jnp.array([1.0, 2.0]))
        >>> features(classifier, jnp.array([[3.0, 5.0]])).tolist()
        [[3.0, 2.0]]
    """

    if classifier.ensemble:
        raise ValueError("features of an ensemble; expected one network")

    seen = []

    def without_head(call: Any, args: tuple, kwargs: dict, context: nn.module.InterceptorContext) -> Any:
        if context.module.path != ("head",):
            return call(*args, **kwargs)
        seen.append(args[0])
        return args[0]

    with nn.intercept_methods(without_head):
        features = logits(classifier, inputs)
    if not seen:
        raise ValueError("the network has no layer called head; expected one, whose inputs are the features")
    return features
