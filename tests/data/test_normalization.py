import numpy as np
import pytest
from load_dataset import load

from mpt_jax.data import statistics


@pytest.mark.parametrize("shape", [(1, 3, 5, 3), (2500, 4, 3, 1), (1001, 2, 2, 2)])
def test_statistics_match_float64_numpy(shape):
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    images[..., 0] //= 2
    mean, std = statistics(images)
    assert mean.dtype == std.dtype == np.float32 and mean.shape == std.shape == (shape[-1],)
    np.testing.assert_allclose(mean, (images / 255.0).mean((0, 1, 2)), rtol=1e-7)
    np.testing.assert_allclose(std, (images / 255.0).std((0, 1, 2)), rtol=1e-7)


def test_a_constant_channel_has_standard_deviation_one():
    mean, std = statistics(np.full((3, 2, 2, 2), [51, 0], np.uint8))
    np.testing.assert_array_equal(mean, np.float32([0.2, 0.0]))
    np.testing.assert_array_equal(std, np.float32([1.0, 1.0]))
    with pytest.raises(ValueError, match="no images"):
        statistics(np.zeros((0, 2, 2, 1), np.uint8))


def test_statistics_of_features_match_float64(features_file):
    features = load(features_file).train.images * 3 + 1000
    mean, std = statistics(features)
    assert mean.dtype == std.dtype == np.float32 and mean.shape == std.shape == (64,)
    exact = features.astype(np.float64)
    np.testing.assert_allclose(mean, exact.mean(0), rtol=1e-7)
    constant = exact.std(0) == 0
    assert 0 < constant.sum() < 10  # some pixels at the edge are always 0
    np.testing.assert_array_equal(std[constant], 1)
    np.testing.assert_allclose(std[~constant], exact.std(0)[~constant], rtol=1e-6)
    with pytest.raises(ValueError, match="no images"):
        statistics(features[:0])


def test_many_features_with_a_tiny_standard_deviation():
    random = np.random.default_rng(0)
    features = (1e4 + random.normal(size=(2345, 3))).astype(np.float32)
    features[:, 1] = np.float32(0.1)
    features[:, 2] = random.integers(0, 2, 2345) * np.float32(1e-42)
    mean, std = statistics(features)
    np.testing.assert_allclose(mean[:2], features.astype(np.float64).mean(0)[:2], rtol=1e-7)
    np.testing.assert_allclose(std[0], features[:, 0].astype(np.float64).std(), rtol=1e-6)
    assert std[1:].tolist() == [1, 1]
