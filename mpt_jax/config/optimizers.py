"""The optimizers of optax by name: their constructors, the options that they take, and what weight decay means."""

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import optax
import optax.contrib

from mpt_jax.config.schema import OptimizerConfig
from mpt_jax.errors import InputError, one_line, unknown


@dataclasses.dataclass(frozen=True)
class Optimizer:
    """A row of the table.

    Attributes:
      constructor: of optax; its argument `learning_rate` may be a schedule.
      decay: its arguments that take `optimizer.weight_decay`. Without one, the decay is added to the gradient before
        anything else.
    """

    constructor: Callable[..., optax.GradientTransformation]
    decay: tuple[str, ...] = ()


OPTIMIZERS: Mapping[str, Optimizer] = MappingProxyType(
    {
        "sgd": Optimizer(optax.sgd),
        "adamw": Optimizer(optax.adamw, ("weight_decay",)),
        "lamb": Optimizer(optax.lamb, ("weight_decay",)),
        "lion": Optimizer(optax.lion, ("weight_decay",)),
        "muon": Optimizer(optax.contrib.muon, ("weight_decay", "adam_weight_decay")),
        "adabelief": Optimizer(optax.adabelief),
        "adafactor": Optimizer(optax.adafactor),
        "adagrad": Optimizer(optax.adagrad),
        "adam": Optimizer(optax.adam),
        "adamax": Optimizer(optax.adamax),
        "adamaxw": Optimizer(optax.adamaxw, ("weight_decay",)),
        "adan": Optimizer(optax.adan, ("weight_decay",)),
        "ademamix": Optimizer(optax.contrib.ademamix, ("weight_decay",)),
        "amsgrad": Optimizer(optax.amsgrad),
        "lars": Optimizer(optax.lars, ("weight_decay",)),
        "nadam": Optimizer(optax.nadam),
        "nadamw": Optimizer(optax.nadamw, ("weight_decay",)),
        "novograd": Optimizer(optax.novograd, ("weight_decay",)),
        "radam": Optimizer(optax.radam),
        "rmsprop": Optimizer(optax.rmsprop),
        "signum": Optimizer(optax.signum),
        "yogi": Optimizer(optax.yogi),
    }
)
"""The values of `optimizer.name`."""

_REFUSED: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys(("momo", "momo_adam", "polyak_sgd"), "needs the value of the loss at every update"),
        **dict.fromkeys(("lbfgs", "sophia"), "calls the loss again in every update"),
        **dict.fromkeys(("dpsgd", "noisy_sgd"), "draws random numbers of its own"),
        **dict.fromkeys(
            ("schedule_free", "schedule_free_adamw", "schedule_free_sgd"), "predicts with other weights than it trains"
        ),
    }
)
_ELSEWHERE: Mapping[str, str] = MappingProxyType(
    {
        "learning_rate": "optimizer.learning_rate",
        "adam_learning_rate": "optimizer.learning_rate",
        "weight_decay": "optimizer.weight_decay",
        "adam_weight_decay": "optimizer.weight_decay",
        "weight_decay_rate": "optimizer.weight_decay",
        "mask": "optimizer.decay_exclude",
        "weight_decay_mask": "optimizer.decay_exclude",
    }
)
_INTERNAL = ("trust_ratio_mask", "muon_weight_dimension_numbers")  # trees: no value of a config
_RATES = ("b1", "b2", "b3", "beta", "decay", "momentum", "adam_b1", "adam_b2")  # of averages
_MOST_STEPS = 100  # of an iteration that is unrolled


def options(name: str) -> dict[str, Any]:
    """Return the options of an optimizer with their defaults.

    Examples:
      >>> options("sgd")
      {'nesterov': False, 'accumulator_dtype': None}
    """
    hidden = (*_ELSEWHERE, *_INTERNAL, *(("momentum",) if name == "sgd" else ()))
    parameters = inspect.signature(OPTIMIZERS[name].constructor).parameters
    return {option: parameter.default for option, parameter in parameters.items() if option not in hidden}


def check(settings: OptimizerConfig) -> None:
    """Check the name of an optimizer and its options.

    Raises:
      InputError: an unknown name or option, a value that the optimizer does not accept, or a key of another optimizer.
    """
    name = settings.name
    if name in _REFUSED:
        raise InputError(f"optimizer.name={name} {_REFUSED[name]}; expected one of {', '.join(OPTIMIZERS)}")
    if name not in OPTIMIZERS:
        raise InputError(unknown(f"optimizer.name={name!r}", name, tuple(OPTIMIZERS)))
    default = OptimizerConfig.momentum
    if name != "sgd" and settings.momentum != default:
        own = [option for option in options(name) if option in _RATES]
        instead = f", and optimizer.options.{own[0]} for {name}" if own else ""
        raise InputError(
            f"optimizer.momentum={settings.momentum} applies to optimizer.name=sgd, but optimizer.name is {name}; "
            f"expected {default}{instead}"
        )
    for option, value in settings.options.items():
        _check_option(name, option, value)
    if settings.options:
        _try(settings)


def _check_option(name: str, option: str, value: Any) -> None:
    valid, key = options(name), f"optimizer.options.{option}"
    elsewhere = "optimizer.momentum" if (name, option) == ("sgd", "momentum") else _ELSEWHERE.get(option)
    if elsewhere:
        raise InputError(f"{key}={value!r} is set by {elsewhere}; use that key")
    if option not in valid:
        raise InputError(unknown(f"{key}: {option!r} of optimizer.name={name}", option, tuple(valid)))
    number, default = isinstance(value, int | float) and not isinstance(value, bool), valid[option]
    if isinstance(default, bool) and not isinstance(value, bool):
        raise InputError(f"{key}={value!r}; expected True or False")
    if isinstance(default, int | float) and not isinstance(default, bool) and not number:
        raise InputError(f"{key}={value!r}; expected a number, such as {default}")
    if number and option in _RATES and not 0 <= value < 1:
        raise InputError(f"{key}={value!r}; expected at least 0 and less than 1, such as {default or 0.9}")
    if number and value < 0:
        raise InputError(f"{key}={value!r}; expected 0 or more, such as {default}")
    if number and option == "ns_steps" and value > _MOST_STEPS:
        raise InputError(f"{key}={value!r}; expected at most {_MOST_STEPS}, such as {default}")


def _try(settings: OptimizerConfig) -> None:
    """Trace an update: what an optimizer raises for a value, it raises there."""
    params = {"kernel": jnp.zeros((2, 3)), "bias": jnp.zeros(3)}

    def update() -> Any:
        optimizer = OPTIMIZERS[settings.name].constructor(learning_rate=0.1, **settings.options)
        return optimizer.update(params, optimizer.init(params), params)[0]

    try:
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            jax.eval_shape(update)
    except Exception as error:  # of optax or JAX, of any kind
        given = ", ".join(f"{option}={value!r}" for option, value in settings.options.items())
        names = ", ".join(f"{option}={default!r}" for option, default in options(settings.name).items())
        raise InputError(
            f"optimizer.options {given}: optax.{settings.name} fails with {one_line(error)}; its defaults: {names}"
        ) from error
