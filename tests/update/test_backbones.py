"""Heads on the features of backbones predict what the whole networks predict from the images."""

import pathlib

import jax
import numpy as np
import pytest
from releases import release

from mpt_jax import models
from mpt_jax.errors import InputError
from mpt_jax.files import released_model
from mpt_jax.update import backbones
from mpt_jax.update.backbones import Backbone, Backbones

NETWORK = {"name": "convnet", "options": {}}


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    """Two whole networks of one architecture and other weights."""
    folder = tmp_path_factory.mktemp("releases")
    return [release(folder / str(seed), classes=tuple("abc"), seed=seed) for seed in range(2)]


@pytest.fixture(scope="module")
def found(networks, tmp_path_factory):
    """The backbones of both; `old` has the second columns."""
    folder, each = tmp_path_factory.mktemp("backbone"), []
    for number, network in enumerate(networks):
        frozen = backbones.without_head(network)
        own = released_model.write_backbone(folder, frozen.params, frozen.batch_stats)
        each.append(Backbone(backbones.facts_of(NETWORK, network), frozen, (512 * number, 512 * number + 512), own))
    return Backbones(each[1], each[0], pathlib.Path("unused"), np.zeros((1, 8, 8, 1), np.uint8))


def test_a_head_on_its_columns_and_the_whole_network_have_the_same_logits(networks, found):
    images = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 1), np.uint8)
    features = np.concatenate([models.features(backbone.classifier, images) for backbone in found.each], axis=1)
    assert features.shape == (5, found.width) == (5, 1024)
    for network in networks:
        head = found.head(network, NETWORK)
        np.testing.assert_allclose(models.logits(head, features), models.logits(network, images), rtol=1e-4, atol=1e-4)
        whole, folder = found.whole(head)
        assert jax.tree.structure(whole) == jax.tree.structure(network) and folder.is_dir()
        jax.tree.map(np.testing.assert_array_equal, whole, network)


def test_which_release_has_which_backbone(found):
    assert [found.of_release(release) for release in range(3)] == [found.old, found.new, found.new]
    alone = Backbones(None, found.new, found.cache, found.test_images)
    same = Backbones(found.new, found.new, found.cache, found.test_images)
    for one in (alone, same):
        assert one.each == [found.new] and one.width == 512 and one.of_release(0) is found.new


def test_another_network_weight_statistic_or_normalization_is_another_backbone(networks, found):
    network = networks[0]
    assert found.head(network.replace(params={**network.params, "head": networks[1].params["head"]}), NETWORK)
    other_weight = {**network.params, "conv1": networks[1].params["conv1"]}
    others = [
        (network.replace(params=other_weight), NETWORK),
        (network.replace(batch_stats=networks[1].batch_stats), NETWORK),
        (network.replace(mean=network.mean + 0.1), NETWORK),
        (network, {**NETWORK, "name": "another"}),
        (network, {**NETWORK, "options": {"dtype": "bfloat16"}}),
    ]
    assert [found.head(*other) for other in others] == [None] * len(others)


def test_releases_are_read_as_heads_however_they_were_written(networks, found, tmp_path):
    card = {
        **{"name": "one", "method": "old", "release": 0, "seed": 0, "dataset": "made up", "image_shape": [8, 8, 1]},
        **{"architecture": NETWORK, "classes": ["a", "b", "c"], "objective": {}, "parents": {}, "metrics": {}},
        **{"steps": 1, "seconds": 1.0, "examples_per_second": 1.0},
    }
    expected = found.head(networks[1], NETWORK)
    for name, folder in (("whole", None), ("parts", found.old.folder)):
        released_model.write(tmp_path / name, networks[1], card, folder)
        head = found.read(tmp_path / name, released_model.read_card(tmp_path / name))
        assert head.module == expected.module
        jax.tree.map(np.testing.assert_array_equal, head, expected)
    alone = Backbones(None, found.new, found.cache, found.test_images)
    for name in ("whole", "parts"):
        with pytest.raises(InputError, match=r"another backbone than the models of this run; restore it"):
            alone.read(tmp_path / name, released_model.read_card(tmp_path / name))
