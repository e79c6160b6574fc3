"""Patterns of parameters that do not fit the networks are errors, and frozen parameters stay as they were given."""

import numpy as np
import pytest
from releases import release

from mpt_jax import models, update
from mpt_jax.errors import InputError
from mpt_jax.files import released_model


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """Folders of released networks of seven classes by name, on images or on features."""
    folder = tmp_path_factory.mktemp("given")
    for name, shape in (("convnet", (8, 8, 1)), ("mlp", (64,))):
        release(folder / name, name, shape, classes=tuple("01234"))
    return folder


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["freeze=conv4"], "^optimizer.freeze=conv4 matches no parameter of model.name=convnet; nearest: conv"),
        (["freeze=backbone,cnv1/*"], "^optimizer.freeze=cnv1/.* matches no parameter .*; nearest: conv1"),
        (["freeze=kernel"], "^optimizer.freeze=kernel matches no .*; nearest: .*kernel"),
        (["freeze=xyz*"], r"matches no parameter of model.name=convnet; its layers: conv1, conv2, .*, head"),
        (["freeze=*"], r"^optimizer.freeze=\* leaves nothing to train in model.name=convnet; expected .* backbone"),
        (["freeze=backbone,head"], "^optimizer.freeze=backbone,head leaves nothing to train"),
        (["freeze=*/kernel"], "^optimizer.freeze=.* freezes the head of model.name=convnet, whose columns"),
        (["decay_exclude=bais"], "^optimizer.decay_exclude=bais matches no parameter .*nearest: .*bias"),
    ],
)
def test_a_pattern_that_does_not_fit_is_one_line(overrides, message, prepared, given, tmp_path):
    with pytest.raises(InputError, match=message) as caught:
        prepared(f"model.pretrained={given}/convnet", *(f"optimizer.{override}" for override in overrides))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_pattern_may_match_one_of_the_two_networks_that_are_trained(prepared, given):
    networks = ("model.name=vit_tiny", f"old_model.pretrained={given}/convnet", "old_model.name=convnet")
    vit = given / "vit_tiny"
    if not vit.exists():
        release(vit, "vit_tiny", classes=tuple("abc"))
    patterns = ("optimizer.freeze=conv1,block*", "optimizer.decay_exclude=bias,scale,position*")
    prepared(*networks, f"model.pretrained={vit}", *patterns)
    adopted = ("model.name=vit_tiny", f"update.old={given}/convnet", f"model.pretrained={vit}")
    with pytest.raises(InputError, match=r"freeze=conv1 matches no parameter of model.name=vit_tiny; "):
        prepared(*adopted, *patterns)


def test_rates_per_layer_need_a_known_order(prepared, monkeypatch):
    prepared("optimizer.layer_decay=0.9")
    monkeypatch.setattr(models, "layer_order", lambda module, shape: ("conv1", "norm1", "head"))
    message = (
        r"layer_decay=0.9 needs the order .* not known of conv2, conv3, norm2, norm3 in model.name=convnet; expected 1"
    )
    with pytest.raises(InputError, match=message):
        prepared("optimizer.layer_decay=0.9")


SETTINGS = (
    *("optimizer.name=adamw", "optimizer.learning_rate=0.01", "optimizer.options.b2=0.95"),
    *("optimizer.freeze=hidden/kernel", "optimizer.decay_exclude=bias", "optimizer.clip_norm=1"),
    *("optimizer.layer_decay=0.5", "optimizer.warmup_epochs=0.5", "update.methods=no_treatment,mpt_kl,bcwi"),
)


def kernels(run, *which):
    """Return the weights of the hidden layer, which are frozen, and its biases, which are not."""
    found = [released_model.read(run.folder(*which, seed))[0].params["hidden"] for seed in run.config.seeds]
    return [each["kernel"] for each in found], [each["bias"] for each in found]


@pytest.mark.slow
def test_every_release_has_the_frozen_weights_and_an_update_can_start_from_the_old_model(executed, given):
    run = executed(f"model.pretrained={given}/mlp", "update.start=old", *SETTINGS)
    expected = released_model.read(given / "mlp")[0].params["hidden"]
    for which in ((0, "old"), (1, "independent"), (1, "no_treatment"), (1, "mpt_kl"), (1, "bcwi")):
        frozen, trained = kernels(run, *which)
        for kernel, bias in zip(frozen, trained, strict=True):
            np.testing.assert_array_equal(kernel, expected["kernel"])
            assert not np.array_equal(bias, expected["bias"])
    said = " ".join(run.progress.console.file.getvalue().split())
    for trained, of_all in (("3,077", "35,845"), ("5,642", "38,410")):  # with 5 and with 10 classes
        assert said.count(f"freeze=hidden/kernel: {trained} of {of_all} parameters of model.name=mlp are trained") == 1
    for changed in ("optimizer.name=lion", "optimizer.options.b2=0.9", "optimizer.freeze=hidden/bias"):
        key = changed.split("=")[0]
        options = ("optimizer.options={}",) if "name" in key else ()
        with pytest.raises(InputError, match=rf"holds a run with .*{key}="):
            executed(f"model.pretrained={given}/mlp", "update.start=old", *SETTINGS, *options, changed)
    assert not update.execute(run, "command")  # nothing is missing
