"""The main job."""

from mpt_jax.config import default_config


def get_config():
    """Digits 0-4 -> 0-9, eight seeds at once."""
    config = default_config()
    config.seeds = tuple(range(8))
    config.dataset.name = "digits"
    config.dataset.validation_per_class = 20
    config.model.name = "convnet"
    config.optimizer.learning_rate = 0.05
    config.optimizer.momentum = 0.9
    config.optimizer.weight_decay = 5e-4
    config.optimizer.epochs = 30
    config.optimizer.batch_size = 48
    config["update"].schedule = (5, 10)
    config["update"].methods = ("no_treatment", "pct_kl", "mpt_kl")
    config["update"].bias_grid = (0.0, 0.5, 1.0, 2.0, 4.0)
    return config
