import pytest

from mpt_jax import config
from mpt_jax.data import DatasetConfig


def test_the_section_dataset_of_a_config_has_these_keys():
    assert config.Config().dataset == DatasetConfig()
    assert set(config.default_config().dataset) == set(DatasetConfig.__dataclass_fields__)


@pytest.mark.parametrize(("image_size", "size"), [((), None), ((8,), (8, 8)), ((8, 6), (8, 6))])
def test_size(image_size, size):
    assert DatasetConfig(image_size=image_size).size == size
