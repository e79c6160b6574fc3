"""The prefix of a network's names in a checkpoint is found, or named by the user."""

import pytest

from mpt_jax.errors import InputError
from mpt_jax.models import build, pytorch_weights, weight_names

KNOWN = pytorch_weights.names(build("resnet18", 5), (32, 32, 3))
STATE = {name: i for i, name in enumerate(KNOWN)}


def under(prefix, names=KNOWN):
    return {prefix + name: i for i, name in enumerate(names)}


@pytest.mark.parametrize(
    "prefix", ["", "module.", "model.", "module.model.", "_orig_mod.module.", "state_dict.net.backbone.", "a.0."]
)
def test_a_shared_prefix_is_found(prefix):
    assert weight_names.select(under(prefix), KNOWN) == (STATE, prefix)


def test_what_is_beside_the_network_is_ignored():
    beside = {"criterion.weight": 0, "optimizer.step": 0, "state_dict.head.scale": 0}
    averages = under("model_ema.module.") | under("ema.")
    found, prefix = weight_names.select(under("state_dict.model.") | averages | beside, KNOWN)
    assert found == STATE and prefix == "state_dict.model."


def test_unknown_names_under_the_prefix_stay():
    found, _ = weight_names.select(under("net.") | {"net.head_dist.bias": 9}, KNOWN)
    assert found == STATE | {"head_dist.bias": 9}


def test_two_networks_need_a_prefix():
    both = under("student.") | under("teacher.", KNOWN[:-2])
    with pytest.raises(InputError, match=r"several networks: under 'student\.', 'teacher\.'; expected the prefix"):
        weight_names.select(both, KNOWN)
    for given in ("student", "student."):
        assert weight_names.select(both, KNOWN, given) == (STATE, "student.")
    with pytest.raises(InputError, match=r"no name begins with 'net\.'; the names are 'student\.|student"):
        weight_names.select(both, KNOWN, "net")


def test_a_moving_average_alone_is_used():
    assert weight_names.select(under("ema."), KNOWN) == (STATE, "ema.")


def test_names_of_another_network_keep_their_own_parts():
    other = {f"module.net.features.{i}.block.{kind}": i for i in range(30) for kind in ("a", "b")}
    found, prefix = weight_names.select(other, KNOWN)
    assert prefix == "module.net.features." and len(found) == 60
