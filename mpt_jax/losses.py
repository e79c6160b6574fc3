"""Losses for model updates: pure functions on logits, with the conventions of `optax.losses`.

- Logits are ``[..., K]`` and labels are integers ``[...]``. Each function returns one value per example.
- A class is its position in the class order of the run. A teacher that knows fewer classes knows the first ones.
- Everything is computed in float32, or in float64 if the logits are float64.
- `where` is a boolean mask over classes that broadcasts to the student's logits. A masked class has no part in softmax,
  argmax or mean, exactly as if it were sliced away.
- The cross-entropy of a label outside 0 to K - 1 is NaN. In distillation, it is a class that the teacher does not know.
  `check_labels` raises an error instead.
- The cross-entropy of a label whose class is masked or has count 0 is infinite.
"""

import numbers
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.experimental import checkify

DISTANCES = ("kl", "lm")
MATCHINGS = ("half_mean", "mean", "half_sum", "centred")
UNKNOWN_CLASSES = ("keep", "drop")


def check_labels(labels: jax.typing.ArrayLike, num_classes: int) -> jax.Array:
    """Return the labels if all are integers from 0 to ``num_classes - 1``; the losses do not check their values.

    Outside of ``jit`` it raises at once. Inside, wrap the outermost function by `jax.experimental.checkify.checkify`,
    which returns the error beside the result.

    Args:
      labels: integers, of any shape.
      num_classes: K.

    Raises:
      TypeError: the labels are not integers.
      ValueError: a label is out of range; or it is traced, and no function was wrapped by checkify.

    Examples:
      >>> check_labels([0, 5, 2], num_classes=5)
      Traceback (most recent call last):
      ...
      ValueError: label 5 at position 1; expected 0 to 4, the 5 classes of the logits
    """
    labels = jnp.asarray(labels)
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise TypeError(f"labels have dtype {labels.dtype}; expected integers")
    expected = f"expected 0 to {num_classes - 1}, the {num_classes} classes of the logits"
    flat = labels.reshape(-1)
    # Compared as int64 on the host: a uint8 label is never below 0, and K may be beyond the range of a narrow type.
    if not isinstance(labels, jax.core.Tracer):
        values = np.asarray(flat).astype(np.int64)
        if (wrong := np.flatnonzero((values < 0) | (values >= num_classes))).size:
            place = np.unravel_index(wrong[0], labels.shape)
            position = ", ".join(map(str, place)) if labels.ndim else "()"
            raise ValueError(f"label {values[wrong[0]]} at position {position}; {expected}")
        return labels
    most = min(num_classes - 1, int(jnp.iinfo(labels.dtype).max))
    outside = (flat < 0) | (flat > most)
    first = jnp.argmax(outside)
    checkify.check(
        ~jnp.any(outside), f"label {{label}} at position {{place}}; {expected}", label=flat[first], place=first
    )
    return labels


def cross_entropy(
    logits: jax.typing.ArrayLike,
    labels: jax.typing.ArrayLike,
    *,
    offset: jax.typing.ArrayLike | None = None,
    label_smoothing: jax.typing.ArrayLike = 0.0,
    where: jax.typing.ArrayLike | None = None,
) -> jax.Array:
    """Return the cross-entropy of the softmax, with an optional offset per class that is used in training only.

    ``-sum_k ((1 - eps) 1[k = y] + eps / K) log softmax(z + offset)_k``, which is ``-log softmax(z + offset)_y`` for
    eps = 0.

    Args:
      logits: floating point, ``[..., K]``.
      labels: integers, ``[...]``.
      offset: added to the logits, ``[K]``; minus infinity for a class that cannot occur.
      label_smoothing: eps, a scalar from 0 to 1 (may be traced). It is spread over all K classes, including the
        label's, except those that are masked or cannot occur.
      where: boolean mask over classes.

    Returns:
      Nats, ``[...]``.

    Raises:
      TypeError: logits are not floating point, labels not integers, or the mask not boolean.
      ValueError: shapes do not fit.

    Examples:
      >>> import jax.numpy as jnp
      >>> print(jnp.array_str(cross_entropy(jnp.array([[2.0, 0.0, 1.0]]), jnp.array([0])), precision=4))
      [0.4076]
    """
    logits = _logits("logits", logits)
    labels = _labels(labels, logits)
    if offset is not None:
        logits = logits + jnp.broadcast_to(_per_class("the offsets", offset, logits), logits.shape)
    where = _mask(where, logits.shape)
    if where is not None:
        # optax removes masked classes from the normaliser only; a masked label must cost infinity
        logits = jnp.where(where, logits, -jnp.inf)
    loss = optax.losses.softmax_cross_entropy_with_integer_labels(logits, labels, where=where)
    # smoothing replaces eps * z_y by eps * mean(z) and does not change the normaliser
    label_logits = jnp.take_along_axis(logits, labels[..., None], axis=-1)[..., 0]
    label_logits, possible = jnp.where(jnp.isneginf(label_logits), 0.0, label_logits), ~jnp.isneginf(logits)
    total = jnp.where(possible, logits, 0.0).sum(-1)
    mean = total / jnp.maximum(possible.sum(-1), 1).astype(total.dtype)
    return loss + _scalar("label_smoothing", label_smoothing, loss.dtype) * (label_logits - mean)


def margin_calibrated_cross_entropy(
    logits: jax.typing.ArrayLike,
    labels: jax.typing.ArrayLike,
    *,
    num_old_classes: int,
    bias: jax.typing.ArrayLike,
    offset: jax.typing.ArrayLike | None = None,
    label_smoothing: jax.typing.ArrayLike = 0.0,
    where: jax.typing.ArrayLike | None = None,
) -> jax.Array:
    """Return the cross-entropy with a bias on the new classes, so that old classes must win by that margin.

    ``-log softmax(z + b * 1[k >= num_old_classes])_y``; predictions use z without the bias.

    Args:
      logits: floating point, ``[..., K]``.
      labels: integers, ``[...]``.
      num_old_classes: classes from this position on are new; K if there are none.
      bias: b in logits, a scalar or one per example, ``[...]`` (may be traced); 0 is plain cross-entropy.
      offset: another offset per class, such as `log_prior`, ``[K]``.
      label_smoothing: see `cross_entropy`.
      where: boolean mask over classes.

    Returns:
      Nats, ``[...]``.

    Raises:
      TypeError, ValueError: as `cross_entropy`; ValueError also for more old classes than classes.

    Examples:
      >>> import jax.numpy as jnp
      >>> logits, labels = jnp.array([[2.0, 0.0, 1.0], [2.0, 0.0, 1.0]]), jnp.array([0, 2])
      >>> loss = margin_calibrated_cross_entropy(logits, labels, num_old_classes=2, bias=4.0)
      >>> print(jnp.array_str(loss, precision=4))
      [3.055 0.055]

    Source: Ricci, Biondi, Pernici, Del Bimbo, Mitigating Negative Flips via Margin Preserving Training, 2026.
    """
    logits = _logits("logits", logits)
    num_classes = logits.shape[-1]
    if isinstance(num_old_classes, numbers.Integral) and not 0 <= num_old_classes <= num_classes:
        raise ValueError(f"num_old_classes={num_old_classes}; expected 0 to {num_classes}, the number of classes")
    bias, is_new = jnp.asarray(bias, logits.dtype), jnp.arange(num_classes) >= num_old_classes
    if bias.ndim:
        if bias.shape != logits.shape[:-1]:
            raise ValueError(
                f"bias has shape {bias.shape}; expected one number, or one per example {logits.shape[:-1]}"
            )
        logits = logits + bias[..., None] * jnp.broadcast_to(is_new.astype(logits.dtype), logits.shape)
    else:
        offset = jnp.zeros(num_classes, logits.dtype) if offset is None else _per_class("the offsets", offset, logits)
        offset = offset + jnp.where(is_new, bias, 0.0)
    return cross_entropy(logits, labels, offset=offset, label_smoothing=label_smoothing, where=where)


def balanced_softmax_cross_entropy(
    logits: jax.typing.ArrayLike,
    labels: jax.typing.ArrayLike,
    class_counts: jax.typing.ArrayLike,
    *,
    where: jax.typing.ArrayLike | None = None,
) -> jax.Array:
    """Return the cross-entropy of a softmax whose prior is the number of training images of each class.

    ``-log( n_y e^{z_y} / sum_k n_k e^{z_k} )``, the cross-entropy of ``z + log n``; predictions use z alone.

    Args:
      logits: floating point, ``[..., K]``.
      labels: integers, ``[...]``; the class of each label needs a count above 0.
      class_counts: n, numbers of images or any multiple of them, ``[K]``; a class of count 0 cannot occur.
      where: boolean mask over classes.

    Returns:
      Nats, ``[...]``.

    Raises:
      TypeError, ValueError: as `cross_entropy`.

    Examples:
      >>> import jax.numpy as jnp
      >>> logits, labels = jnp.array([[2.0, 0.0, 1.0]]), jnp.array([0])
      >>> loss = balanced_softmax_cross_entropy(logits, labels, jnp.array([500, 500, 20]))
      >>> print(jnp.array_str(loss, precision=4))
      [0.1398]

    Source: Ren et al., Balanced Meta-Softmax for Long-Tailed Visual Recognition, 2020; Jodelet, Liu, Murata, Balanced
    Softmax Cross-Entropy for Incremental Learning, 2021.
    """
    logits = _logits("logits", logits)
    counts = _per_class("the class counts", class_counts, logits)
    return cross_entropy(logits, labels, offset=log_prior(counts), where=where)


def log_prior(class_counts: jax.typing.ArrayLike, *, exponent: jax.typing.ArrayLike = 1.0) -> jax.Array:
    """Return the offset of the logits that makes the number of training images of each class the softmax's prior.

    ``tau * log n``, and minus infinity where n = 0, unless tau = 0: then 0 for all.

    Args:
      class_counts: n, numbers of images or any multiple of them (may be traced), ``[K]``.
      exponent: tau, a scalar of 0 or more (may be traced); 1 is Balanced Softmax.

    Returns:
      Logits, ``[K]``.

    Raises:
      ValueError: the exponent is not a scalar.

    Examples:
      >>> import jax.numpy as jnp
      >>> print(jnp.array_str(log_prior(jnp.array([500, 20, 0])), precision=4))
      [6.2146 2.9957   -inf]

    Source: Ren et al., Balanced Meta-Softmax for Long-Tailed Visual Recognition, 2020.
    """
    counts = jnp.asarray(class_counts).astype(float)
    exponent = _scalar("exponent", exponent, counts.dtype)
    # the inner select keeps the gradient with respect to (learned) counts finite at 0
    logs = jnp.log(jnp.where(counts > 0, counts, 1.0))
    return jnp.where((counts > 0) | (exponent == 0), exponent * logs, -jnp.inf)


def kl_distance(
    student_logits: jax.typing.ArrayLike,
    teacher_logits: jax.typing.ArrayLike,
    *,
    temperature: jax.typing.ArrayLike = 5.0,
    scale_by_temperature_squared: bool = False,
    where: jax.typing.ArrayLike | None = None,
) -> jax.Array:
    """Return the Kullback-Leibler divergence from teacher to student over the teacher's classes, at a temperature.

    ``sum_k p_s,k (log p_s,k - log p_k)`` with ``p_s = softmax(z_s / tau)`` and ``p = softmax(z[:K_s] / tau)``.

    At a large tau, the value is a difference of nearly equal logarithms: in float32 its absolute error is about 1e-7,
    before any tau^2. The gradient is not affected.

    Args:
      student_logits: z, floating point, ``[..., K]``.
      teacher_logits: z_s, floating point, ``[..., K_s]`` with K_s <= K; no gradient flows into them.
      temperature: tau, a scalar above 0 (may be traced).
      scale_by_temperature_squared: multiply by tau^2, so that the gradient does not shrink with tau.
      where: boolean mask over classes.

    Returns:
      Nats, ``[...]``.

    Raises:
      TypeError: logits are not floating point, or the mask is not boolean.
      ValueError: shapes do not fit, or the teacher has more classes than the student.

    Examples:
      >>> import jax.numpy as jnp
      >>> loss = kl_distance(jnp.array([[1.0, 1.0, 7.0]]), jnp.array([[4.0, 0.0]]), temperature=2.0)
      >>> print(jnp.array_str(loss, precision=4))
      [0.3278]

    Source: Hinton, Vinyals, Dean, Distilling the Knowledge in a Neural Network, 2015.
    """
    student_logits, teacher_logits, where = _pair(student_logits, teacher_logits, where)
    temperature = _scalar("temperature", temperature, student_logits.dtype)
    log_p = jax.nn.log_softmax(student_logits / temperature, where=where)
    log_target = jax.nn.log_softmax(teacher_logits / temperature, where=where)
    distance = optax.losses.kl_divergence_with_log_targets(*_without_impossible(log_p, log_target))
    return distance * temperature**2 if scale_by_temperature_squared else distance


def logit_matching(
    student_logits: jax.typing.ArrayLike,
    teacher_logits: jax.typing.ArrayLike,
    *,
    matching: str = "half_mean",
    top_k: int | None = None,
    where: jax.typing.ArrayLike | None = None,
) -> jax.Array:
    """Return the squared difference of logits over the teacher's classes.

    ``1/2 mean_k (z_k - z_s,k)^2`` over ``k < K_s``.

    Args:
      student_logits: z, floating point, ``[..., K]``.
      teacher_logits: z_s, floating point, ``[..., K_s]`` with K_s <= K; no gradient flows into them.
      matching: `"half_mean"` as above, `"mean"` without the half, `"half_sum"` with the sum over classes. `"centred"`
        first subtracts the mean difference of each example, ``1/2 mean_k (d_k - mean_j d_j)^2`` with
        ``d = z[:K_s] - z_s``, so that a constant added to the logits of either side has no effect.
      top_k: number of the teacher's largest logits of each example that count; the mean is still over all K_s classes,
        except the one that is subtracted. None for all classes.
      where: boolean mask over classes.

    Returns:
      Squared logits, ``[...]``.

    Raises:
      TypeError, ValueError: as `kl_distance`; ValueError also for an unknown matching, or a top_k below 1.

    Examples:
      >>> import jax.numpy as jnp
      >>> print(logit_matching(jnp.array([[1.0, 1.0, 7.0]]), jnp.array([[4.0, 0.0]])))
      [2.5]

    Source: Yan et al., Positive-Congruent Training: Towards Regression-Free Model Updates, 2021.
    """
    _choice("matching", matching, MATCHINGS)
    difference, count = _difference(student_logits, teacher_logits, top_k, where, centred=matching == "centred")
    total = jnp.sum(jnp.square(difference), axis=-1)
    if matching == "half_sum":
        return total / 2
    return total / count if matching == "mean" else total / count / 2


def logit_difference_inhibition(
    student_logits: jax.typing.ArrayLike,
    teacher_logits: jax.typing.ArrayLike,
    *,
    slack: jax.typing.ArrayLike,
    power: jax.typing.ArrayLike,
    top_k: int | None = None,
    where: jax.typing.ArrayLike | None = None,
) -> jax.Array:
    """Return the difference of logits beyond a slack, over the teacher's classes.

    ``mean_k max(|z_k - z_s,k| - xi, 0)^p`` over ``k < K_s``.

    Args:
      student_logits: z, floating point, ``[..., K]``.
      teacher_logits: z_s, floating point, ``[..., K_s]`` with K_s <= K; no gradient flows into them.
      slack: xi, the largest difference without cost, in logits, a scalar (may be traced).
      power: p, a scalar above 0 (may be traced).
      top_k: number of the teacher's largest logits of each example that count; the mean is still over all K_s classes.
        None for all classes.
      where: boolean mask over classes.

    Returns:
      Logits to the power p, ``[...]``. The gradient is finite everywhere, and 0 within the slack and on its edge.

    Raises:
      TypeError, ValueError: as `kl_distance`; ValueError also for a top_k below 1.

    Examples:
      >>> import jax.numpy as jnp
      >>> student, teacher = jnp.array([[1.0, 1.0, 7.0]]), jnp.array([[4.0, 0.5]])
      >>> print(logit_difference_inhibition(student, teacher, slack=0.5, power=2.0))
      [3.125]

    Source: Zhao et al., ELODI: Ensemble Logit Difference Inhibition for Positive-Congruent Training, 2022.
    """
    difference, count = _difference(student_logits, teacher_logits, top_k, where)
    slack, power = _scalar("slack", slack, difference.dtype), _scalar("power", power, difference.dtype)
    excess = jnp.abs(difference) - slack
    within = excess <= 0  # False for NaN, which must propagate
    # the inner select keeps the gradient of the power finite at 0
    return jnp.where(within, 0.0, jnp.where(within, 1.0, excess) ** power).sum(-1) / count


def soft_cross_entropy(
    student_logits: jax.typing.ArrayLike,
    teacher_logits: jax.typing.ArrayLike,
    *,
    where: jax.typing.ArrayLike | None = None,
) -> jax.Array:
    """Return the cross-entropy with the teacher's probabilities as the target, over all of the student's classes.

    ``-sum_k p_s,k log softmax(z)_k`` over ``k < K_s`` with ``p_s = softmax(z_s)`` and the softmax of z over all K.

    Args:
      student_logits: z, floating point, ``[..., K]``.
      teacher_logits: z_s, floating point, ``[..., K_s]`` with K_s <= K; no gradient flows into them.
      where: boolean mask over classes.

    Returns:
      Nats, ``[...]``.

    Raises:
      TypeError, ValueError: as `kl_distance`.

    Examples:
      >>> import jax.numpy as jnp
      >>> loss = soft_cross_entropy(jnp.array([[2.0, 0.0, 1.0]]), jnp.array([[3.0, 0.0]]))
      >>> print(jnp.array_str(loss, precision=4))
      [0.5025]

    Source: Jiang et al., Churn Reduction via Distillation, 2022.
    """
    known, teacher_logits, known_where = _pair(student_logits, teacher_logits, where)
    student_logits = _logits("student_logits", student_logits).astype(known.dtype)
    log_p = jax.nn.log_softmax(student_logits, where=_mask(where, student_logits.shape))[..., : known.shape[-1]]
    log_target = jax.nn.log_softmax(teacher_logits, where=known_where)
    log_p, log_target = _without_impossible(log_p, log_target)
    return -jnp.sum(jnp.exp(log_target) * log_p, axis=-1)


def influence_loss(
    source_logits: jax.typing.ArrayLike,
    labels: jax.typing.ArrayLike,
    *,
    where: jax.typing.ArrayLike | None = None,
) -> jax.Array:
    """Return the cross-entropy of the frozen old head on the student's features, which keeps them compatible with it.

    ``-log softmax(z_s)_y``, and 0 for classes that the old head does not know.

    Args:
      source_logits: z_s, floating point, ``[..., K_s]``; the gradient flows through them into the features.
      labels: integers, ``[...]``.
      where: boolean mask over the K_s classes.

    Returns:
      Nats, ``[...]``.

    Raises:
      TypeError, ValueError: as `cross_entropy`.

    Examples:
      >>> import jax.numpy as jnp
      >>> loss = influence_loss(jnp.array([[2.0, 0.0], [2.0, 0.0]]), jnp.array([0, 2]))
      >>> print(jnp.array_str(loss, precision=4))
      [0.1269 0.    ]

    Source: Shen et al., Towards Backward-Compatible Representation Learning, 2020.
    """
    source_logits = _logits("source_logits", source_logits)
    known, loss = _known_cross_entropy(source_logits, _labels(labels, source_logits), where)
    return jnp.where(known, loss, 0.0)


def teacher_right(
    teacher_logits: jax.typing.ArrayLike,
    labels: jax.typing.ArrayLike,
    *,
    where: jax.typing.ArrayLike | None = None,
) -> jax.Array:
    """Return whether the teacher classifies the example correctly, ``argmax z_s == y``.

    False for a class that it does not know.

    Args:
      teacher_logits: z_s, floating point, ``[..., K_s]``.
      labels: integers, ``[...]``.
      where: boolean mask over classes.

    Returns:
      Booleans, ``[...]``.

    Raises:
      TypeError, ValueError: as `cross_entropy`.

    Examples:
      >>> import jax.numpy as jnp
      >>> print(teacher_right(jnp.array([[4.0, 0.0], [4.0, 0.0], [4.0, 0.0]]), jnp.array([0, 1, 2])))
      [ True False False]
    """
    teacher_logits = _logits("teacher_logits", teacher_logits)
    labels = _labels(labels, teacher_logits)
    where = _mask(where, teacher_logits.shape)
    if where is not None:
        teacher_logits = jnp.where(where, teacher_logits, -jnp.inf)
    return jnp.argmax(teacher_logits, axis=-1) == labels


def better_teacher(
    student_logits: jax.typing.ArrayLike,
    teacher_logits: jax.typing.ArrayLike,
    labels: jax.typing.ArrayLike,
    *,
    where: jax.typing.ArrayLike | None = None,
) -> jax.Array:
    """Return whether the teacher's cross-entropy is lower than the student's.

    ``-log softmax(z_s)_y < -log softmax(z)_y``, each over its model's classes. False for a class that the teacher does
    not know.

    Args:
      student_logits: z, floating point, ``[..., K]``.
      teacher_logits: z_s, floating point, ``[..., K_s]`` with K_s <= K.
      labels: integers, ``[...]``.
      where: boolean mask over classes.

    Returns:
      Booleans, ``[...]``.

    Raises:
      TypeError, ValueError: as `focal_distillation`.

    Examples:
      >>> import jax.numpy as jnp
      >>> student, teacher = jnp.array([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0]]), jnp.array([[2.0, 0.0], [2.0, 0.0]])
      >>> print(better_teacher(student, teacher, jnp.array([0, 2])))
      [ True False]

    Source: Xie et al., Regression Bugs Are In Your Model!, 2021.
    """
    _, teacher_logits, known_where = _pair(student_logits, teacher_logits, where)
    labels = _labels(labels, teacher_logits)
    student_loss = cross_entropy(student_logits, labels, where=where)
    known, teacher_loss = _known_cross_entropy(teacher_logits, labels, known_where)
    return known & (teacher_loss < student_loss.astype(teacher_loss.dtype))


def focal_weighting(
    distances: jax.typing.ArrayLike,
    gate: jax.typing.ArrayLike,
    labels: jax.typing.ArrayLike,
    *,
    num_teacher_classes: int,
    alpha: jax.typing.ArrayLike = 1.0,
    beta: jax.typing.ArrayLike = 5.0,
    unknown_classes: str = "keep",
) -> jax.Array:
    """Return distances weighted by a gate, ``(alpha + beta * gate) * D``.

    Args:
      distances: D, floating point, ``[...]``.
      gate: booleans, or numbers from 0 to 1, ``[...]``.
      labels: integers, ``[...]``.
      num_teacher_classes: K_s; the teacher does not know the classes from this position on.
      alpha: weight of every example, a scalar (may be traced).
      beta: additional weight where the gate is open, a scalar (may be traced).
      unknown_classes: what to do with examples of classes that the teacher does not know: `"keep"` weights them like
        all others, `"drop"` gives 0.

    Returns:
      The unit of the distances, ``[...]``.

    Raises:
      ValueError: unknown option, or shapes differ.

    Examples:
      >>> import jax.numpy as jnp
      >>> gate, labels = jnp.array([True, False, False]), jnp.array([0, 1, 2])
      >>> print(focal_weighting(jnp.ones(3), gate, labels, num_teacher_classes=2, unknown_classes="drop"))
      [6. 1. 0.]

    Source: Yan et al., Positive-Congruent Training: Towards Regression-Free Model Updates, 2021.
    """
    _choice("unknown_classes", unknown_classes, UNKNOWN_CLASSES)
    distances = jnp.asarray(distances)
    gate, labels = jnp.asarray(gate).astype(distances.dtype), jnp.asarray(labels).astype(int)
    if not distances.shape == gate.shape == labels.shape:
        raise ValueError(
            f"distances {distances.shape}, gate {gate.shape} and labels {labels.shape}; expected one shape"
        )
    alpha, beta = _scalar("alpha", alpha, distances.dtype), _scalar("beta", beta, distances.dtype)
    weighted = (alpha + beta * gate) * distances
    if unknown_classes == "keep":
        return weighted
    return jnp.where((labels >= 0) & (labels < num_teacher_classes), weighted, 0.0)


def focal_distillation(
    student_logits: jax.typing.ArrayLike,
    teacher_logits: jax.typing.ArrayLike,
    labels: jax.typing.ArrayLike,
    *,
    distance: str = "kl",
    alpha: jax.typing.ArrayLike = 1.0,
    beta: jax.typing.ArrayLike = 5.0,
    temperature: jax.typing.ArrayLike = 5.0,
    scale_by_temperature_squared: bool = False,
    unknown_classes: str = "keep",
    matching: str = "half_mean",
    where: jax.typing.ArrayLike | None = None,
) -> jax.Array:
    """Return a distillation loss with a larger weight where the teacher is right: only there, negative flips can occur.

    ``(alpha + beta * 1[argmax z_s == y]) * D(z[:K_s], z_s)``, where D is `kl_distance` or `logit_matching`.

    Public implementations disagree on the last four options. The defaults are those of the code of Margin Preserving
    Training. The code of Positive-Congruent Training uses tau^2, "drop", "mean" and tau = 100.

    Args:
      student_logits: z, floating point, ``[..., K]``; only the teacher's classes are used.
      teacher_logits: z_s, floating point, ``[..., K_s]`` with K_s <= K; no gradient flows into them.
      labels: integers, ``[...]``.
      distance: `"kl"` or `"lm"`.
      alpha: weight of every example, a scalar (may be traced).
      beta: additional weight where the teacher is right, a scalar (may be traced).
      temperature: tau, used by `"kl"`, a scalar above 0 (may be traced).
      scale_by_temperature_squared: used by `"kl"`; see `kl_distance`.
      unknown_classes: `"keep"` or `"drop"`; see `focal_weighting`.
      matching: used by `"lm"`; see `logit_matching`.
      where: boolean mask over classes.

    Returns:
      Nats (`"kl"`) or squared logits (`"lm"`), ``[...]``.

    Raises:
      TypeError: logits are not floating point, labels not integers, or the mask not boolean.
      ValueError: unknown option, shapes do not fit, or the teacher has more classes than the student.

    Examples:
      >>> import jax.numpy as jnp
      >>> student, teacher = jnp.array([[1.0, 1.0, 7.0], [1.0, 1.0, 7.0]]), jnp.array([[4.0, 0.0], [4.0, 0.0]])
      >>> print(jnp.array_str(focal_distillation(student, teacher, jnp.array([0, 2])), precision=4))
      [0.4442 0.074 ]
      >>> print(focal_distillation(student, teacher, jnp.array([0, 2]), distance="lm", unknown_classes="drop"))
      [15.  0.]

    Source: Yan et al., Positive-Congruent Training: Towards Regression-Free Model Updates, 2021.
    """
    _choice("distance", distance, DISTANCES)
    _choice("matching", matching, MATCHINGS)
    student_logits, teacher_logits, where = _pair(student_logits, teacher_logits, where)
    labels = _labels(labels, teacher_logits)
    if distance == "kl":
        scale = scale_by_temperature_squared
        distances = kl_distance(
            student_logits, teacher_logits, temperature=temperature, scale_by_temperature_squared=scale, where=where
        )
    else:
        distances = logit_matching(student_logits, teacher_logits, matching=matching, where=where)
    return focal_weighting(
        distances,
        teacher_right(teacher_logits, labels, where=where),
        labels,
        num_teacher_classes=teacher_logits.shape[-1],
        alpha=alpha,
        beta=beta,
        unknown_classes=unknown_classes,
    )


def double_source_focal_distillation(
    logits: jax.typing.ArrayLike,
    old_logits: jax.typing.ArrayLike,
    new_logits: jax.typing.ArrayLike,
    labels: jax.typing.ArrayLike,
    *,
    old_weight: jax.typing.ArrayLike = 1.0,
    new_weight: jax.typing.ArrayLike = 1.0,
    **options,
) -> jax.Array:
    """Return the focal distillation from the old model and from an independently trained new one.

    ``old_weight * FD(z, z_old, y) + new_weight * FD(z, z_new, y)``

    Args:
      logits: z, floating point, ``[..., K]``.
      old_logits: the old model's, floating point, ``[..., K_old]`` with K_old <= K; no gradient flows into them.
      new_logits: the independent new model's, floating point, ``[..., K]``; no gradient flows into them.
      labels: integers, ``[...]``.
      old_weight: a scalar (may be traced).
      new_weight: a scalar (may be traced).
      **options: options of `focal_distillation`, the same for both sources.

    Returns:
      Nats (`"kl"`) or squared logits (`"lm"`), ``[...]``.

    Raises:
      TypeError, ValueError: as `focal_distillation`.

    Examples:
      >>> import jax.numpy as jnp
      >>> logits, labels = jnp.array([[1.0, 1.0, 7.0]]), jnp.array([0])
      >>> old, new = jnp.array([[4.0, 0.0]]), jnp.array([[1.0, 1.0, 4.0]])
      >>> print(double_source_focal_distillation(logits, old, new, labels, distance="lm"))
      [16.5]

    Source: Ricci, Biondi, Pernici, Del Bimbo, Mitigating Negative Flips via Margin Preserving Training, 2026.
    """
    old = focal_distillation(logits, old_logits, labels, **options)
    new = focal_distillation(logits, new_logits, labels, **options)
    dtype = np.promote_types(old.dtype, new.dtype)
    old_weight, new_weight = _scalar("old_weight", old_weight, dtype), _scalar("new_weight", new_weight, dtype)
    return old_weight * old.astype(dtype) + new_weight * new.astype(dtype)


def carry_over(logits: jax.typing.ArrayLike, groups: Sequence[Sequence[int]]) -> jax.Array:
    """Return one logit for each group of classes, ``u_g = log sum_{k in G_g} exp z_k``.

    So ``softmax(u)_g`` is the probability of all classes of the group, among those that are in any. A class that is a
    group of its own is moved unchanged; one that is in no group is dropped.

    Args:
      logits: z, floating point, ``[..., K]``.
      groups: G, for each of the G groups the positions of its classes, at least one.

    Returns:
      ``[..., G]``.

    Raises:
      TypeError: logits are not floating point.
      ValueError: logits are a scalar, or a group is empty.

    Examples:
      >>> import jax.numpy as jnp
      >>> print(jnp.array_str(carry_over(jnp.array([[1.0, 5.0, 1.0, 2.0]]), [[3], [0, 2]]), precision=4))
      [[2.     1.6931]]
    """
    logits = _logits("logits", logits)
    if not all(len(group) for group in groups):
        raise ValueError(f"groups={list(map(list, groups))} has an empty group; expected a class in each")
    moved = logits[..., np.array([group[0] for group in groups], int)]
    several = [g for g, group in enumerate(groups) if len(group) > 1]
    if not several:
        return moved
    sizes = np.array([len(groups[g]) for g in several])
    members = np.zeros((len(several), sizes.max()), int)
    is_member = np.arange(sizes.max()) < sizes[:, None]
    members[is_member] = [k for g in several for k in groups[g]]
    together = jax.nn.logsumexp(
        logits[..., members], axis=-1, where=jnp.broadcast_to(is_member, (*logits.shape[:-1], *members.shape))
    )
    return moved.at[..., np.array(several)].set(together)


def _logits(name: str, values: jax.typing.ArrayLike) -> jax.Array:
    values = jnp.asarray(values)
    if not jnp.issubdtype(values.dtype, jnp.floating):
        raise TypeError(f"{name} have dtype {values.dtype}; expected floating point, such as float32")
    if values.ndim == 0:
        raise ValueError(f"{name} are a scalar; expected an array whose last axis is the classes")
    return values if values.dtype == jnp.float64 else values.astype(jnp.float32)


def _labels(labels: jax.typing.ArrayLike, logits: jax.Array) -> jax.Array:
    labels = jnp.asarray(labels)
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise TypeError(f"the labels have dtype {labels.dtype}; expected integers, the position of each class")
    if labels.shape != logits.shape[:-1]:
        raise ValueError(f"the labels have shape {labels.shape}; expected {logits.shape[:-1]}, the logits' without K")
    # A negative index would count from the end; beyond all classes it is found to be invalid.
    return jnp.where(labels < 0, jnp.iinfo(jnp.int32).max, labels.astype(int))


def _mask(where: jax.typing.ArrayLike | None, shape: tuple[int, ...]) -> jax.Array | None:
    if where is None:
        return None
    where = jnp.asarray(where)
    if where.dtype != jnp.bool_:
        raise TypeError(f"where has dtype {where.dtype}; expected booleans, False for the classes to exclude")
    return jnp.broadcast_to(where, shape)


def _pair(
    student_logits: jax.typing.ArrayLike, teacher_logits: jax.typing.ArrayLike, where: jax.typing.ArrayLike | None
) -> tuple[jax.Array, jax.Array, jax.Array | None]:
    """Return the student's logits, the teacher's logits without gradient, and the mask, for the teacher's classes."""
    student, teacher = _logits("student_logits", student_logits), _logits("teacher_logits", teacher_logits)
    if student.shape[:-1] != teacher.shape[:-1] or student.shape[-1] < teacher.shape[-1]:
        raise ValueError(
            f"the teacher's logits have shape {teacher.shape} and the student's {student.shape}; "
            "expected the same examples, and at most the student's number of classes"
        )
    where = _mask(where, student.shape)
    num_classes, dtype = teacher.shape[-1], np.promote_types(student.dtype, teacher.dtype)
    return (
        student[..., :num_classes].astype(dtype),
        jax.lax.stop_gradient(teacher).astype(dtype),
        None if where is None else where[..., :num_classes],
    )


def _difference(
    student_logits: jax.typing.ArrayLike,
    teacher_logits: jax.typing.ArrayLike,
    top_k: int | None,
    where: jax.typing.ArrayLike | None,
    *,
    centred: bool = False,
) -> tuple[jax.Array, int | jax.Array]:
    """Return ``z - z_s`` over the classes that count, ``[..., K_s or top_k]``, and the divisor of their mean.

    If it is centred, its own mean over the classes that count is subtracted.
    """
    student_logits, teacher_logits, where = _pair(student_logits, teacher_logits, where)
    num_classes = teacher_logits.shape[-1]
    count = num_classes if where is None else jnp.maximum(where.sum(-1), 1).astype(teacher_logits.dtype)
    if top_k is not None:
        if top_k < 1:
            raise ValueError(f"top_k={top_k}; expected 1 or more, or None for all classes")
        ranked = teacher_logits if where is None else jnp.where(where, teacher_logits, -jnp.inf)
        _, largest = jax.lax.top_k(ranked, min(top_k, num_classes))
        student_logits, teacher_logits = (
            jnp.take_along_axis(x, largest, axis=-1) for x in (student_logits, teacher_logits)
        )
        where = None if where is None else jnp.take_along_axis(where, largest, axis=-1)
    difference = student_logits - teacher_logits
    if where is not None:
        difference = jnp.where(where, difference, 0.0)
    if centred:
        counting = jnp.ones_like(difference) if where is None else where.astype(difference.dtype)
        mean = difference.sum(-1, keepdims=True) / jnp.maximum(counting.sum(-1, keepdims=True), 1)
        difference = difference - counting * mean
    return difference, count


def _without_impossible(log_p: jax.Array, log_target: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return both with 0 where the target is 0 (masked, or impossible to the teacher): its term is 0, not 0 * inf."""
    impossible = jnp.isneginf(log_target)
    return jnp.where(impossible, 0.0, log_p), jnp.where(impossible, 0.0, log_target)


def _known_cross_entropy(
    logits: jax.Array, labels: jax.Array, where: jax.typing.ArrayLike | None
) -> tuple[jax.Array, jax.Array]:
    """Return which labels are classes of the logits, and the cross-entropy, which is meaningless for the others."""
    known = labels < logits.shape[-1]
    return known, cross_entropy(logits, jnp.where(known, labels, 0), where=where)


def _per_class(name: str, values: jax.typing.ArrayLike, logits: jax.Array) -> jax.Array:
    values = jnp.asarray(values)
    if values.shape != logits.shape[-1:]:
        raise ValueError(f"{name} have shape {values.shape}; expected one number per class, {logits.shape[-1:]}")
    return values.astype(logits.dtype)


def _scalar(name: str, value: jax.typing.ArrayLike, dtype: np.dtype) -> jax.Array:
    value = jnp.asarray(value, dtype)
    if value.ndim:
        raise ValueError(f"{name} has shape {value.shape}; expected one number (use jax.vmap for several)")
    return value


def _choice(name: str, value: str, valid: Sequence[str]) -> None:
    if value not in valid:
        raise ValueError(f"unknown {name} {value!r}; valid: {', '.join(valid)}")
