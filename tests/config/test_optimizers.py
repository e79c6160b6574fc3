"""The table of optimizers against optax, and invalid names and options: one line that names the key."""

import inspect
import re

import optax
import optimizer_table
import pytest

from mpt_jax import config as configs
from mpt_jax.config import optimizers
from mpt_jax.errors import InputError

DIGITS = "digits"


@pytest.mark.parametrize("name", optimizers.OPTIMIZERS)
def test_every_default_is_an_accepted_option(name):
    given = {option: value for option, value in optimizers.options(name).items() if isinstance(value, bool | float)}
    assert given or name == "muon"
    settings = configs.OptimizerConfig(name=name, options=given)
    optimizers.check(settings)
    assert hash(settings) == hash(configs.OptimizerConfig(name=name)) and settings != configs.OptimizerConfig(name=name)


@pytest.mark.parametrize("name", optimizers.OPTIMIZERS)
def test_a_row_names_every_weight_decay_that_optax_multiplies_by_the_rate(name):
    row = optimizers.OPTIMIZERS[name]
    parameters = inspect.signature(row.constructor).parameters
    assert list(row.decay) == [parameter for parameter in parameters if parameter.endswith("weight_decay")]
    assert row.constructor is getattr(optax, name, None) or row.constructor is getattr(optax.contrib, name)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["name=adamw2"], ["optimizer.name='adamw2'", "did you mean 'adamw'", "lion"]),
        (["name=lbfgs"], ["optimizer.name=lbfgs", "the loss again", "adamw"]),
        (["name=polyak_sgd"], ["optimizer.name=polyak_sgd", "value of the loss", "adamw"]),
        (["name=adamw", "momentum=0.5"], ["optimizer.momentum=0.5", "sgd", "adamw", "optimizer.options.b1"]),
        (["name=lars", "momentum=0.5"], ["optimizer.momentum=0.5", "optimizer.options.momentum"]),
        (["options.b2=0.95"], ["optimizer.options.b2", "optimizer.name=sgd", "nesterov"]),
        (["name=adamw", "options.nestrov=true"], ["optimizer.options.nestrov", "did you mean 'nesterov'", "eps_root"]),
        (["name=adamw", "options.b2.x=0.95"], ["optimizer.options.b2.x", "adamw", "eps_root"]),
        (["name=adamw", "options=3"], ["optimizer.options", "b2=0.95"]),
        (["name=adamw", "options.learning_rate=1"], ["optimizer.options.learning_rate", "optimizer.learning_rate"]),
        (["name=adamw", "options.weight_decay=1"], ["optimizer.options.weight_decay", "optimizer.weight_decay"]),
        (["name=adamw", "options.mask=true"], ["optimizer.options.mask", "optimizer.decay_exclude"]),
        (["options.momentum=0.5"], ["optimizer.options.momentum", "optimizer.momentum"]),
        (["name=adamw", "options.b2=1"], ["optimizer.options.b2=1", "less than 1", "0.999"]),
        (["name=adamw", "options.b2=nan"], ["optimizer.options.b2='nan'", "a number", "0.999"]),
        (["name=adamw", "options.b2=1e999"], ["optimizer.options.b2", "finite"]),
        (["name=adamw", "options.b2=true"], ["optimizer.options.b2=True", "a number"]),
        (["name=adamw", "options.eps=-1e-8"], ["optimizer.options.eps", "0 or more"]),
        (["name=adamw", "options.nesterov=1"], ["optimizer.options.nesterov=1", "True or False"]),
        (["name=adamw", "options.mu_dtype=float13"], ["optimizer.options", "mu_dtype='float13'", "mu_dtype=None"]),
        (["name=muon", "options.preconditioning=none"], ["preconditioning='none'", "preconditioning='frobenius'"]),
        (["name=muon", "options.ns_steps=1000000000"], ["optimizer.options.ns_steps", "100"]),
        (["name=muon", "options.ns_steps=2.5"], ["optimizer.options", "ns_steps=2.5"]),
        (["name=muon", "options.ns_coeffs=(1,2)"], ["optimizer.options", "ns_coeffs"]),
        (["name=muon", "options.trust_ratio_mask=1"], ["optimizer.options.trust_ratio_mask", "ns_steps"]),
        (["warmup_epochs=-1"], ["optimizer.warmup_epochs", "0 or more"]),
        (["epochs=3", "warmup_epochs=3"], ["optimizer.warmup_epochs=3.0", "less than optimizer.epochs=3"]),
        (["clip_norm=-1"], ["optimizer.clip_norm", "0 (not clipped) or more"]),
        (["layer_decay=0"], ["optimizer.layer_decay", "above 0"]),
        (["layer_decay=1.5"], ["optimizer.layer_decay", "at most 1"]),
        (["head_learning_rate=-1"], ["optimizer.head_learning_rate", "0 (as optimizer.learning_rate) or more"]),
        (
            ["learning_rate=0", "head_learning_rate=1"],
            ["optimizer.head_learning_rate=1.0", "optimizer.freeze=backbone"],
        ),
        (["freeze=['']"], ["optimizer.freeze", "backbone"]),
        (["freeze=[3]"], ["optimizer.freeze", "text"]),
        (["decay_exclude=[None]"], ["optimizer.decay_exclude", "bias,scale"]),
        (["freeze_statistics=1"], ["optimizer.freeze_statistics", "True or False"]),
    ],
)
def test_an_invalid_setting_is_one_line_that_names_the_key(overrides, words):
    with pytest.raises(InputError) as caught:
        configs.load(DIGITS, [f"optimizer.{override}" for override in overrides])
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


GIVEN_OLD = ("update.old=DIR", "update.start=old")


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ([], ["random weights of the old model", "expected model.pretrained or update.old"]),
        (["old_model.name=vit_tiny", "model.pretrained=F"], ["of the old model", "old_model.pretrained or update.old"]),
        (["update.old=DIR"], ["of the independent model", "model.pretrained or update.independent"]),
        ([*GIVEN_OLD], ["of the independent model", "model.pretrained or update.independent"]),
        (["update.old=DIR", "update.independent=DIR"], ["of the students", "model.pretrained or update.start=old"]),
    ],
)
def test_random_weights_are_not_frozen(overrides, words):
    with pytest.raises(InputError) as caught:
        configs.load(DIGITS, ["optimizer.freeze=conv1,norm1", *overrides])
    for word in ("optimizer.freeze=conv1,norm1 would freeze", *words):
        assert word in str(caught.value)


@pytest.mark.parametrize("overrides", [["model.pretrained=FILE"], [*GIVEN_OLD, "update.independent=DIR"]])
def test_given_weights_may_be_frozen(overrides):
    assert configs.load(DIGITS, ["optimizer.freeze=backbone", *overrides]).optimizer.freeze == ("backbone",)


def test_options_are_part_of_the_config_that_a_run_records():
    config = configs.load(DIGITS, ["optimizer.name=adamw", "optimizer.options={'b2': 0.95, 'mu_dtype': 'bfloat16'}"])
    assert configs.to_dict(config)["optimizer"]["options"] == {"b2": 0.95, "mu_dtype": "bfloat16"}
    assert configs.load(configs.to_dict(config)) == config


def test_the_page_has_the_options_of_optax():
    assert optimizer_table.PAGE.read_text("utf-8") == optimizer_table.page(), "run python docs/optimizer_table.py"


def test_the_example_of_the_page_is_a_valid_config_file(tmp_path):
    (example,) = re.findall(r"```python\n(.*?)```", optimizer_table.PAGE.read_text("utf-8"), re.DOTALL)
    lines = ["from mpt_jax import config as configs", "config = configs.default_config()", *example.splitlines()]
    path = tmp_path / "tuned.py"
    path.write_text("def get_config():\n" + "\n".join(f"    {line}" for line in [*lines, "return config"]))
    config = configs.load(path)
    assert config.optimizer.name == "adamw" and config.optimizer.options == {"b2": 0.99}
    assert config.optimizer.freeze == ("stem*",)
