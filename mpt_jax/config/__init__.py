"""Configs: a file `get_config() -> ConfigDict` and `--config.key=value` overrides become a frozen, checked `Config`.

The dataclasses of `mpt_jax.config.schema` define every key with its type and default. A config file starts from
`default_config()` and sets what differs. Only `load` reads files, and there is no global config.
"""

from mpt_jax.config.checks import check, uses_of_validation
from mpt_jax.config.reading import Source, load, read_file, run_name, shipped_names
from mpt_jax.config.schema import (
    AUTO_BIAS,
    TEACHERS,
    Config,
    DatasetConfig,
    MeshConfig,
    ModelConfig,
    OldConfig,
    OptimizerConfig,
    TrainingConfig,
    UpdateConfig,
    default_config,
    gives_old_model,
    network_options,
    old_classes,
    old_model_of,
    sources,
    sources_of,
    to_dict,
    tuned,
)

__all__ = [
    "AUTO_BIAS",
    "TEACHERS",
    "Config",
    "DatasetConfig",
    "MeshConfig",
    "ModelConfig",
    "OldConfig",
    "OptimizerConfig",
    "Source",
    "TrainingConfig",
    "UpdateConfig",
    "check",
    "default_config",
    "gives_old_model",
    "load",
    "network_options",
    "old_classes",
    "old_model_of",
    "read_file",
    "run_name",
    "shipped_names",
    "sources",
    "sources_of",
    "to_dict",
    "tuned",
    "uses_of_validation",
]
