"""Operations on trained models: a bias on the new classes, interpolated and averaged weights, averaged logits.

`posthoc_curve` and `choose_posthoc_bias` find a bias exactly, without a grid; `with_new_class_bias` moves it into the
weights. `interpolate`, `soup` and `ema` average weights, at the inference cost of one model. `logit_mean` averages the
logits of an ensemble, at the inference cost of all its models. The methods made from them are in `methods.DERIVED`.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from mpt_jax import losses, models
from mpt_jax.models import Classifier
from mpt_jax.models.layers import at_least_float32


def shift_new_classes(logits: jax.typing.ArrayLike, c: jax.typing.ArrayLike, num_old_classes: int) -> jax.Array:
    """Subtract a constant from the new classes' logits, ``z_k - c * 1[k >= num_old_classes]``.

    Args:
      logits: floating point, ``[..., K]``.
      c: in logits, a scalar (may be traced; use `jax.vmap` for several).
      num_old_classes: classes from this position on are new.

    Returns:
      The logits' shape and dtype.

    Examples:
      >>> print(shift_new_classes(jnp.array([1.0, 0.0, 3.0]), 2.5, num_old_classes=2))
      [1.  0.  0.5]
    """
    logits = jnp.asarray(logits)
    c = jnp.where(np.arange(logits.shape[-1]) >= num_old_classes, jnp.asarray(c, logits.dtype), 0)
    return logits - jnp.broadcast_to(c, logits.shape)


def with_new_class_bias(classifier: Classifier, c: jax.typing.ArrayLike, num_old_classes: int) -> Classifier:
    """Subtract a constant from the new classes' logits of a classifier, in the bias of its head.

    Args:
      classifier: a classifier, or a stack with any leading axes.
      c: in logits, a scalar; use `jax.vmap` for one c per member of a stack.
      num_old_classes: classes from this position on are new.

    Examples:
      >>> params = {"head": {"kernel": jnp.zeros((4, 3)), "bias": jnp.array([1.0, 0.0, 3.0])}}
      >>> classifier = Classifier(None, params, batch_stats={}, mean=jnp.array([0.3]), std=jnp.array([0.4]))
      >>> with_new_class_bias(classifier, 2.5, num_old_classes=2).params["head"]["bias"].tolist()
      [1.0, 0.0, 0.5]
    """
    head = classifier.params["head"]
    head = {**head, "bias": shift_new_classes(head["bias"], c, num_old_classes)}
    return classifier.replace(params={**classifier.params, "head": head})


@dataclasses.dataclass(frozen=True)
class PosthocCurve:
    """Rates as functions of the constant c that is subtracted from the new classes' logits, exact for every ``c >= 0``.

    Each rate is a step function. Entry i applies to ``starts[i] <= c < starts[i + 1]``, the last entry to all larger c.

    Attributes:
      starts: c in logits, rising, ``[steps]``; the first is 0.
      accuracy: accuracy on all images, ``[steps]``.
      accuracy_old_classes: accuracy on images of old classes.
      accuracy_new_classes: accuracy on images of new classes; NaN without such images.
      nfr: share of the old classes' images that the old model classifies correctly and this one wrongly.
    """

    starts: np.ndarray
    accuracy: np.ndarray
    accuracy_old_classes: np.ndarray
    accuracy_new_classes: np.ndarray
    nfr: np.ndarray


_RATES = ("accuracy", "accuracy_old_classes", "accuracy_new_classes", "nfr")


def posthoc_curve(
    logits: ArrayLike, old_predictions: ArrayLike, labels: ArrayLike, *, num_old_classes: int
) -> PosthocCurve:
    """Compute accuracy and negative flips for every constant subtracted from the new classes' logits, without a grid.

    The predicted class of an image is its best new class while ``c < max_{k new} z_k - max_{k old} z_k``, and its best
    old class for larger or equal c (the lowest index wins a tie). So the rates change at these N thresholds only. The
    cost is a sort and cumulative sums of integers, O(N K + N log N). Differences are computed in float64.

    Args:
      logits: of the model to change, finite floats, ``[N, K]``, NumPy or JAX.
      old_predictions: predicted classes of the old model, integers below `num_old_classes`, ``[N]``.
      labels: integers, ``[N]``; those below `num_old_classes` are of old classes.
      num_old_classes: from 1 to K - 1.

    Returns:
      The curve, with at most N + 1 steps.

    Raises:
      ValueError: shapes do not fit, logits are not finite, there are no new classes or no image of an old class, or
        an old prediction is not an old class.

    Examples:
      >>> logits = np.array([[0.0, 1.0, 3.0], [2.0, 0.0, 2.5], [0.0, 0.0, 4.0]])
      >>> curve = posthoc_curve(logits, np.array([1, 1, 0]), np.array([1, 0, 2]), num_old_classes=2)
      >>> for step in zip(curve.starts, curve.accuracy, curve.nfr):
      ...     print("from c = %g: accuracy %.2f, negative flip rate %g" % step)
      from c = 0: accuracy 0.33, negative flip rate 0.5
      from c = 0.5: accuracy 0.67, negative flip rate 0.5
      from c = 2: accuracy 1.00, negative flip rate 0
      from c = 4: accuracy 0.67, negative flip rate 0
    """
    logits, old_predictions, labels = (np.asarray(array) for array in (logits, old_predictions, labels))
    if logits.ndim != 2 or not logits.shape[:1] == old_predictions.shape == labels.shape:
        raise ValueError(
            f"shapes do not fit: logits {logits.shape}, old_predictions {old_predictions.shape}, labels {labels.shape};"
            " expected [N, K], [N] and [N]"
        )
    if not 0 < num_old_classes < logits.shape[1]:
        raise ValueError(f"{num_old_classes} old of {logits.shape[1]} classes; expected at least one old and one new")
    if not np.isfinite(logits).all():
        raise ValueError("logits are not finite; expected finite numbers, without classes masked by -inf")
    is_old = labels < num_old_classes
    if not is_old.any():
        raise ValueError(f"no image of an old class (label below {num_old_classes}); expected at least one")
    if np.any(old_predictions >= num_old_classes):
        raise ValueError(
            f"old_predictions hold class {old_predictions.max()}; expected the old classes 0 to {num_old_classes - 1}"
        )
    old_logits, new_logits = logits[:, :num_old_classes], logits[:, num_old_classes:]
    threshold = new_logits.max(-1).astype(np.float64) - old_logits.max(-1).astype(np.float64)
    starts, step = np.unique(np.append(0.0, np.maximum(threshold, 0.0)), return_inverse=True)
    step = step[1:]  # the first step at which the image is predicted as its best old class
    right_before = num_old_classes + new_logits.argmax(-1) == labels
    right_after = old_logits.argmax(-1) == labels

    def right(among: np.ndarray) -> np.ndarray:
        gained = np.bincount(step, weights=among & right_after, minlength=len(starts))
        lost = np.bincount(step, weights=among & right_before, minlength=len(starts))
        return np.sum(among & right_before) + np.cumsum(gained - lost)  # integers, exact in float64

    was_right = old_predictions == labels
    num_old, num_new = is_old.sum(), (~is_old).sum()
    return PosthocCurve(
        starts=starts,
        accuracy=right(np.ones_like(is_old)) / labels.size,
        accuracy_old_classes=right(is_old) / num_old,
        accuracy_new_classes=right(~is_old) / num_new if num_new else np.full(len(starts), np.nan),
        nfr=(was_right.sum() - right(was_right)) / num_old,  # `metrics.is_negative_flip` at every c, in one pass
    )


def mean_curve(curves: Sequence[PosthocCurve]) -> PosthocCurve:
    """Return the mean of several curves, such as those of several seeds, at every c; it has the steps of all of them.

    Examples:
      >>> one = PosthocCurve(np.array([0.0, 2.0]), *np.array([[0.5, 1.0]] * 4))
      >>> two = PosthocCurve(np.array([0.0, 3.0]), *np.array([[1.0, 0.0]] * 4))
      >>> mean = mean_curve([one, two])
      >>> mean.starts.tolist(), mean.nfr.tolist()
      ([0.0, 2.0, 3.0], [0.75, 1.0, 0.5])
    """
    starts = np.unique(np.concatenate([curve.starts for curve in curves]))
    indices = [np.searchsorted(curve.starts, starts, side="right") - 1 for curve in curves]
    rates = {name: [getattr(c, name)[i] for c, i in zip(curves, indices, strict=True)] for name in _RATES}
    return PosthocCurve(starts, **{name: np.mean(values, axis=0) for name, values in rates.items()})


def rates_at(curve: PosthocCurve, c: float) -> dict[str, float]:
    """Return the four rates of a curve at one ``c >= 0``.

    Examples:
      >>> rates_at(PosthocCurve(np.array([0.0, 2.0]), *np.array([[0.5, 1.0]] * 4)), 1.9)["accuracy"]
      0.5
    """
    if not c >= 0:
        raise ValueError(f"c = {c}; expected 0 or more")
    step = np.searchsorted(curve.starts, c, side="right") - 1
    return {name: float(getattr(curve, name)[step]) for name in _RATES}


def choose_posthoc_bias(curve: PosthocCurve, *, required_accuracy: float) -> float:
    """Choose the constant with the fewest negative flips among those that reach an accuracy, else the most accurate.

    Ties go to the more accurate, then to the smaller c. All c of an interval have the same accuracy and negative flip
    rate; the middle is chosen, which is farthest from any change of a predicted class. An interval that
    starts at 0 gives 0, which does not change the model. The last interval is infinite; it is treated as if it were as
    long as the step before it.

    Args:
      curve: from validation images.
      required_accuracy: on all images, a fraction.

    Returns:
      c in logits, 0 or more.

    Examples:
      >>> logits = np.array([[0.0, 1.0, 3.0], [2.0, 0.0, 2.5], [0.0, 0.0, 4.0]])
      >>> curve = posthoc_curve(logits, np.array([1, 1, 0]), np.array([1, 0, 2]), num_old_classes=2)
      >>> choose_posthoc_bias(curve, required_accuracy=0.5)
      3.0
    """
    starts = curve.starts
    # rounded, because equal means may differ in the last bit
    accuracy, nfr = (np.round(rate, 12) for rate in (curve.accuracy, curve.nfr))
    steps = np.arange(len(starts))
    reaching = np.flatnonzero(accuracy >= required_accuracy - 1e-12)
    if len(reaching):
        best = reaching[np.lexsort((reaching, -accuracy[reaching], nfr[reaching]))[0]]
    else:
        best = steps[np.lexsort((steps, -accuracy))[0]]
    if not starts[best]:
        return 0.0
    different = np.flatnonzero((steps > best) & ((accuracy != accuracy[best]) | (nfr != nfr[best])))
    end = starts[different[0]] if len(different) else 2 * starts[-1] - starts[-2]
    return float((starts[best] + end) / 2)


@jax.jit
def interpolate(old: Classifier, new: Classifier, a: jax.typing.ArrayLike, *, importance: Any = None) -> Classifier:
    """Interpolate between the weights of the old model and of one that was fine-tuned from it (BCWI).

    ``theta = a theta_old + (1 - a) theta_new``, or elementwise with the importance F of the old weights
    ``theta = (a F theta_old + (1 - a) theta_new) / (a F + 1 - a)``. The columns of the head for new classes are the new
    model's. a = 0 gives exactly the new model, a = 1 exactly the old one with the new model's additional columns.
    Weights that are equal in both, such as frozen ones, stay exactly as they are.

    Running means and variances are interpolated too, by a without F. They do not match the activations of the
    interpolated model; measure them again with `refresh_batch_stats`.

    Args:
      old: leaves without leading axes.
      new: fine-tuned from `old`, with the same architecture and as many classes or more. Its input normalisation is
        kept.
      a: from 0 to 1, a scalar (may be traced).
      importance: F, 0 or more, with the structure and shapes of the old params, such as
        `relative_importance(fisher(...))`.

    Returns:
      A classifier with the classes of `new`. `jax.vmap` over `a` gives a grid as a stack.

    Raises:
      ValueError: the networks differ in more than the number of classes.

    Examples:
      >>> make = lambda *bias: Classifier(None, {"head": {"bias": jnp.array(bias)}}, {}, jnp.zeros(1), jnp.ones(1))
      >>> old, new = make(1.0, 0.0), make(3.0, 2.0, 5.0)
      >>> grid = jax.vmap(interpolate, in_axes=(None, None, 0))(old, new, jnp.array([0.0, 0.5, 1.0]))
      >>> grid.params["head"]["bias"].tolist()
      [[3.0, 2.0, 5.0], [2.0, 1.0, 5.0], [1.0, 0.0, 5.0]]

    Source: Schumann et al., Backward Compatibility During Data Updates by Weight Interpolation, 2024.
    """

    def share_of(importance, dtype):
        share = jnp.asarray(a, dtype)
        if importance is None:
            return share
        weight, rest = share * importance, 1 - share
        return jnp.where(weight + rest > 0, weight / (weight + rest), 1.0)  # 0/0: a = 1 where F is 0

    def mix(path, old, new, importance=None):
        known = old.shape[-1]
        if old.shape != new.shape and (path[0].key != "head" or new[..., :known].shape != old.shape):
            name = jax.tree_util.keystr(path)
            raise ValueError(
                f"{name} has shape {old.shape} in the old model and {new.shape} in the new one; "
                "expected equal shapes, except for more classes in the head"
            )
        share = share_of(importance, new.dtype)
        both = new[..., :known]
        mixed = jnp.where(old == both, both, share * old + (1 - share) * both)
        return jnp.concatenate([mixed, new[..., known:]], axis=-1)

    over = jax.tree_util.tree_map_with_path
    return new.replace(
        params=over(mix, old.params, new.params, *([] if importance is None else [importance])),
        batch_stats=over(mix, old.batch_stats, new.batch_stats),
    )


def soup(classifiers: Classifier) -> Classifier:
    """Average the weights and running statistics of several models, fine-tuned from one model with different seeds.

    Args:
      classifiers: a stack, leaves ``[members, ...]``.

    Examples:
      >>> stack = Classifier(None, {"w": jnp.array([[1.0, 0.0], [3.0, 2.0]])}, {}, jnp.zeros((2, 1)), jnp.ones((2, 1)))
      >>> soup(stack).params["w"].tolist()
      [2.0, 1.0]

    Source: Wortsman et al., Model Soups: Averaging Weights of Multiple Fine-Tuned Models Improves Accuracy Without
    Increasing Inference Time, 2022. For its interpolation with the old model: Schumann et al., see `interpolate`.
    """

    def average(leaf):  # exact where all are equal, as frozen weights are
        return jnp.where((leaf == leaf[:1]).all(axis=0), leaf[0], jnp.mean(leaf, axis=0))

    averages = functools.partial(jax.tree.map, average)
    params, batch_stats = averages(classifiers.params), averages(classifiers.batch_stats)
    mean, std = jax.tree.map(lambda leaf: leaf[0], (classifiers.mean, classifiers.std))
    return classifiers.replace(params=params, batch_stats=batch_stats, mean=mean, std=std)


def fisher(classifier: Classifier, images: ArrayLike, labels: ArrayLike, *, chunk: int = 16) -> Any:
    """Compute the diagonal of the empirical Fisher information: how much the predictions depend on each weight.

    ``F = 1/N sum_n (d log p(y_n | x_n) / d theta)^2``, with fixed running statistics.

    Args:
      classifier: without leading axes.
      images: ``[N, height, width, channels]``, uint8.
      labels: integers below the number of classes, ``[N]``.
      chunk: number of images at a time; each needs the memory of one gradient.

    Returns:
      The structure and shapes of the params.

    Raises:
      TypeError: labels are not integers, or images not uint8.
      ValueError: shapes do not fit, or no images.

    Examples:
      >>> module = models.build("linear", 2)
      >>> params, batch_stats = models.init(module, jax.random.key(0), (8, 8, 1))
      >>> classifier = Classifier(module, params, batch_stats, mean=jnp.array([0.3]), std=jnp.array([0.4]))
      >>> F = fisher(classifier, np.zeros((3, 8, 8, 1), np.uint8), np.array([0, 1, 1]))
      >>> bool((F["head"]["bias"][0] > 0) & jnp.allclose(*F["head"]["bias"]))  # two classes: opposite gradients
      True

    Source: Kirkpatrick et al., Overcoming Catastrophic Forgetting in Neural Networks, 2017; Schumann et al., see
    `interpolate`.
    """
    images, labels = np.asarray(images), np.asarray(labels)
    count = len(labels)
    if not count:
        raise ValueError("no images; expected at least one")
    chunk = min(chunk, count)
    rows = np.arange(-(-count // chunk) * chunk).reshape(-1, chunk)
    return _fisher(classifier, images[rows % count], labels[rows % count], (rows < count) / np.float32(count))


@jax.jit
def _fisher(classifier, images, labels, weights):
    def log_likelihood(params, image, label):
        return -losses.cross_entropy(models.logits(classifier.replace(params=params), image[None])[0], label)

    def add(total, chunk):
        images, labels, weights = chunk
        gradients = jax.vmap(jax.grad(log_likelihood), in_axes=(None, 0, 0))(classifier.params, images, labels)
        squares = jax.tree.map(lambda g: jnp.tensordot(weights.astype(g.dtype), g * g, axes=1), gradients)
        return jax.tree.map(jnp.add, total, squares), None

    zeros = jax.tree.map(jnp.zeros_like, classifier.params)
    return jax.lax.scan(add, zeros, (images, labels, weights))[0]


def relative_importance(fisher: Any) -> Any:
    """Divide a Fisher diagonal by its mean over all weights, so that its scale is that of importance 1.

    Raw values are 1e-4 and less: with them, `interpolate` stays at the new model until a is close to 1.

    Examples:
      >>> relative_importance({"bias": jnp.array([1e-6, 3e-6])})["bias"].tolist()
      [0.5, 1.5]
    """
    leaves = jax.tree.leaves(fisher)
    mean = sum(jnp.sum(leaf) for leaf in leaves) / sum(leaf.size for leaf in leaves)
    return jax.tree.map(lambda leaf: leaf / mean, fisher)


@functools.partial(jax.jit, static_argnames=("batch_size", "fixed"))
def refresh_batch_stats(
    classifier: Classifier, images: jax.Array, *, batch_size: int = 128, fixed: tuple[str, ...] = ()
) -> Classifier:
    """Measure the running statistics of averaged weights again, by forward passes as in training.

    Args:
      classifier: without leading axes (use `jax.vmap` or `jax.lax.map` for a stack).
      images: training images in random order, ``[N, height, width, channels]``, uint8. An incomplete last batch is
        ignored. After n batches the previous statistics still weigh 0.9 ** n.
      batch_size: images per batch, at most N.
      fixed: patterns of parameters whose statistics do not change, see `models.train_forward`.

    Source: Izmailov et al., Averaging Weights Leads to Wider Optima and Better Generalization, 2018.
    """
    count = images.shape[0] // batch_size
    keys = jax.random.split(jax.random.key(0), count)  # of dropout
    batches = images[: count * batch_size].reshape(count, batch_size, *images.shape[1:])

    def step(batch_stats, batch_and_key):
        batch, key = batch_and_key
        x = models.normalize(batch, classifier.mean, classifier.std, classifier.mean.dtype)
        return models.train_forward(classifier.module, classifier.params, batch_stats, x, key, fixed=fixed)[2], None

    return classifier.replace(batch_stats=jax.lax.scan(step, classifier.batch_stats, (batches, keys))[0])


def ema(average: Any, params: Any, decay: jax.typing.ArrayLike, step: jax.typing.ArrayLike) -> Any:
    """Update an exponential moving average that is not biased to its start: params of step i weigh d^(t - i) at step t.

    ``average_t = (1 - r_t) average_(t-1) + r_t params_t`` with ``r_t = (1 - d) / (1 - d^(t+1))``, hence
    ``average_t = sum_{i<=t} d^(t-i) params_i / sum_{i<=t} d^(t-i)``. At t = 0 this is the params themselves, for any
    finite `average`. It is close to their plain mean at first, and r approaches 1 - d once t is well above 1 / (1 - d).

    Args:
      average: of the previous step, a pytree of floats; params, or params and running statistics together.
      params: of this step, with the same structure.
      decay: d, from 0 to below 1, a scalar (may be traced).
      step: t, the number of params averaged so far, an integer of 0 or more (may be traced).

    Examples:
      >>> average = jnp.zeros(())
      >>> for step, params in enumerate(jnp.array([1.0, 2.0, 3.0])):
      ...     average = ema(average, params, 0.5, step)
      >>> round(float(average), 4)  # (1 * 0.25 + 2 * 0.5 + 3) / 1.75
      2.4286

    Source: Polyak and Juditsky, Acceleration of Stochastic Approximation by Averaging, 1992; the start is corrected as
    in Kingma and Ba, Adam: A Method for Stochastic Optimization, 2015.
    """
    rate = 1 - decay  # exact for a Python float; 1 - float32(0.9999) would lose four digits
    step = jnp.asarray(step)

    def mix(average, params):
        dtype = params.dtype
        r = jnp.asarray(rate, dtype)
        r = r / -jnp.expm1((step.astype(dtype) + 1) * jnp.log1p(-r))
        r = jnp.where(step == 0, 1, r)
        return jnp.where(average == params, params, (1 - r) * average + r * params)  # exact for frozen ones

    return jax.tree.map(mix, average, params)


def logit_mean(logits: jax.typing.ArrayLike) -> jax.Array:
    """Return the mean logits of an ensemble, ``1/m sum_j z_j``.

    Args:
      logits: the members', floating point, ``[m, ..., K]``.

    Returns:
      ``[..., K]``, at least float32.

    Examples:
      >>> print(logit_mean(jnp.array([[1.0, 0.0], [0.0, 4.0]])))
      [0.5 2. ]

    Source: Yan et al., Positive-Congruent Training: Towards Regression-Free Model Updates, 2021 (ensembles); Zhao et
    al., ELODI: Ensemble Logit Difference Inhibition for Positive-Congruent Training, 2022 (their mean logits).
    """
    logits = jnp.asarray(logits)
    return jnp.mean(logits.astype(at_least_float32(logits.dtype)), axis=0)
