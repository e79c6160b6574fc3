"""Meta Sampler: the rates of the classes in a batch, learned along with the network by an inner step.

The rates are ``p = softmax(log_rates)``. Each update:

1. draws a batch of classes by p, with a Gumbel-softmax whose forward pass is the drawn class itself;
2. takes one SGD step of Balanced Softmax on it, of the head alone, on the features of the current network: this costs
   forward passes, but no second network;
3. moves the log-rates down the gradient of the cross-entropy that a class-balanced batch has after that step. The
   gradient is as small as the inner step, so only its direction is used, with a step of fixed length.

Source: Ren et al., Balanced Meta-Softmax for Long-Tailed Visual Recognition, 2020.
"""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp

from mpt_jax import losses


def draw(key: jax.Array, log_rates: jax.Array, batch_size: int) -> jax.Array:
    """Draw the classes of a batch independently with probabilities ``softmax(log_rates)``: integers ``[batch]``.

    Args:
      key: typed; `weights` with the same key belong to this draw.
      log_rates: ``[K]``; minus infinity for a class that cannot be drawn.
    """
    return jnp.argmax(_perturbed(key, log_rates, batch_size), axis=-1)


def weights(key: jax.Array, log_rates: jax.Array, batch_size: int) -> jax.Array:
    """Return the weights of the drawn examples, ``[batch]``: 1, with the gradient of the Gumbel-softmax."""
    perturbed = _perturbed(key, log_rates, batch_size)
    chosen = jnp.argmax(perturbed, axis=-1)
    soft = jnp.take_along_axis(jax.nn.softmax(perturbed, axis=-1), chosen[:, None], axis=-1)[:, 0]
    return 1 + (soft - jax.lax.stop_gradient(soft))


def positions(key: jax.Array, classes: jax.Array, class_counts: jax.Array) -> jax.Array:
    """Draw an image of each of these classes, uniformly from the images of its class: positions ``[batch]``.

    Args:
      classes: integers ``[batch]``, each of a class with images.
      class_counts: ``[K]``; the images are sorted by class.
    """
    first = jnp.cumsum(class_counts) - class_counts
    within = jax.random.randint(key, classes.shape, 0, class_counts[classes], class_counts.dtype)
    return first[classes] + within


def improve(
    log_rates: jax.Array,
    key: jax.Array,
    features_of: Callable[[jax.Array], tuple[jax.Array, jax.Array]],
    balanced: tuple[jax.Array, jax.Array],
    head: Mapping[str, jax.Array],
    *,
    class_counts: jax.Array,
    batch_size: int,
    head_rate: jax.typing.ArrayLike,
    sampler_rate: jax.typing.ArrayLike,
) -> jax.Array:
    """Return the log-rates after one step down the gradient g of the balanced batch's cross-entropy, ``[K]``.

    They are ``log_rates - sampler_rate * g / rms(g)`` over the classes that can be drawn. They do not change if g is 0
    or not finite.

    Args:
      log_rates: ``[K]``; minus infinity does not change.
      key: of the draw.
      features_of: returns features ``[batch, D]`` and labels ``[batch]`` of a batch of the given classes.
      balanced: the same of a class-balanced batch.
      head: ``{"kernel": [D, K], "bias": [K]}``.
      class_counts: ``[K]``, the prior of Balanced Softmax.
      head_rate: learning rate of the inner step.
      sampler_rate: root mean square of the step of the log-rates.
    """
    features, labels = features_of(draw(key, log_rates, batch_size))
    prior = losses.log_prior(class_counts)

    def logits(head, features):
        return features @ head["kernel"] + head["bias"][None]

    def meta_loss(log_rates):
        weight = weights(key, log_rates, batch_size)

        def balanced_softmax(head):
            # A weighted mean: with a sum, frequent classes would gain from any step that helps the balanced batch.
            return (weight * losses.cross_entropy(logits(head, features), labels, offset=prior)).sum() / weight.sum()

        gradient = jax.grad(balanced_softmax)(dict(head))
        after = jax.tree.map(lambda w, g: w - jnp.asarray(head_rate, w.dtype) * g, dict(head), gradient)
        return losses.cross_entropy(logits(after, balanced[0]), balanced[1]).mean()

    known = jnp.isfinite(log_rates)
    # A class that cannot be drawn would make the gradient of the others NaN.
    gradient = jax.grad(lambda free: meta_loss(jnp.where(known, free, -jnp.inf)))(jnp.where(known, log_rates, 0.0))
    size = jnp.sqrt((gradient**2).sum() / known.sum(dtype=gradient.dtype))
    step = jnp.asarray(sampler_rate, log_rates.dtype) * gradient / size
    return jnp.where(known & (size > 0) & jnp.isfinite(size), log_rates - step, log_rates)


def _perturbed(key: jax.Array, log_rates: jax.Array, batch_size: int) -> jax.Array:
    return log_rates[None] + jax.random.gumbel(key, (batch_size, log_rates.shape[0]), log_rates.dtype)
