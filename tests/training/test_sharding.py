"""Members, batches and parameters over eight devices give the same result, with micro-batches and rematerialisation."""

import fractions
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import random_weights
from flax import linen as nn
from hypothesis import given
from hypothesis import strategies as st
from jax.sharding import PartitionSpec as P
from populations import ALL, IMAGES, LABELS, OLD, SHAPE, N, recipe_of

from mpt_jax import data, models, objectives, training
from mpt_jax.benchmark import collectives
from mpt_jax.errors import InputError
from mpt_jax.files import checkpoint
from mpt_jax.models import Classifier, efficientnet_lite
from mpt_jax.objectives import METHODS
from mpt_jax.training import loop, sharding

BATCH = 16
ROWS = ("no_treatment", "pct_lm")
THREE = (*ROWS, "mpt_lm")
FIVE = (*THREE, "mpt_kl", "pct_naive")
F64 = {"dtype": jnp.float64, "param_dtype": jnp.float64}


class Network(nn.Module):
    """A small network with a matrix to split, a block to rematerialise, and optionally BatchNorm."""

    num_classes: int
    norm: bool
    remat: bool = False
    dtype: type = jnp.float64

    @nn.compact
    def __call__(self, images, train):
        block = nn.remat(Block, static_argnums=(2,)) if self.remat and train else Block
        x = block(self.norm, name="block1")(images.reshape(len(images), -1), train)
        return nn.Dense(self.num_classes, **F64, name="head")(block(self.norm, name="block2")(x, train))


class Block(nn.Module):
    norm: bool

    @nn.compact
    def __call__(self, x, train):
        x = nn.tanh(nn.Dense(16, **F64, name="dense")(x))
        return models.layers.batch_norm(x, train=train, dtype=jnp.float64, name="norm1") if self.norm else x


def plain(num_classes=ALL):
    return Network(num_classes, norm=False)


def normed(num_classes=ALL):
    return Network(num_classes, norm=True)


def make_recipe(module, **changes):
    settings = dict(learning_rate=0.1, momentum=0.9, weight_decay=5e-4)
    return recipe_of(module=module, num_old_classes=OLD, batch_size=BATCH, epochs=4, **{**settings, **changes})


def make_inputs(build, seeds=(0, 1), rows=ROWS):
    keys = jax.vmap(jax.random.key)(jnp.array(seeds, jnp.uint32))
    weights = random_weights.drawn(build(OLD), SHAPE, count=len(seeds))
    mean, std = np.full(1, 0.4), np.full(1, 0.3)
    chosen = [METHODS[row] for row in rows]
    named = {source for row in chosen for source in objectives.sources(row)}
    teacher = Classifier(build(OLD), *weights, *(np.broadcast_to(each, (len(seeds), 1)) for each in (mean, std)))
    return training.Inputs(
        labels=LABELS,
        mean=mean,
        std=std,
        keys=keys,
        objectives=objectives.stack(chosen),
        teachers=dict.fromkeys(named, teacher),
    )


@functools.cache
def beginning(build, rows, optimizer=()):
    """Return the first state of a population, on the host, in float64 whichever test asks first."""
    with jax.enable_x64(True):
        initialize = jax.jit(training.init_state, static_argnums=(0, 2, 3, 4))
        recipe = make_recipe(build(), **dict(optimizer))
        return jax.device_get(initialize(recipe, make_inputs(build).keys, len(rows), SHAPE, N))


@functools.cache
def compiled(build, devices=1, members=1, fsdp=1, rows=ROWS, optimizer=(), **changes):
    """Return the program of a population, and functions that place a state for it and take steps."""
    with jax.enable_x64(True), pytest.MonkeyPatch.context() as patch:
        patch.setattr(sharding, "SMALLEST", 100)
        recipe, inputs = make_recipe(build(), **dict(optimizer), **changes), make_inputs(build, rows=rows)
        mesh = sharding.make_mesh(jax.devices()[:devices], members=members, fsdp=fsdp)
        mesh = sharding.population_mesh(mesh, 2, len(rows))
        inputs = training.place(mesh, inputs)
        window = data.Window(jax.device_put(IMAGES, jax.sharding.NamedSharding(mesh, P())))
        state = beginning(build, rows, optimizer)
        shardings = sharding.state_shardings(mesh, state)
        first, bounds = jax.device_put(state, shardings), (jnp.int32(0), jnp.int32(0))
        program = training.train_steps.lower(recipe, mesh, first, inputs, window, *bounds).compile()

    def steps(state, start, stop):
        """Return the state and the sums after these steps."""
        state, sums = program(state, inputs, window, jnp.int32(start), jnp.int32(stop))
        assert jax.tree.map(lambda leaf: leaf.sharding, state) == shardings  # or the next call would compile again
        return state, sums

    return program, lambda state: jax.device_put(state, shardings), steps


def trained(build, *, steps=4, rows=ROWS, optimizer=(), **layout):
    _, place, go = compiled(build, rows=rows, optimizer=optimizer, **layout)
    with jax.enable_x64(True):
        return jax.device_get(go(place(beginning(build, rows, optimizer)), 0, steps))


def assert_close(a, b, tolerance=1e-10):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance), a, b)


DATA = {"devices": 8}
FSDP = {"devices": 8, "fsdp": 8, "accumulate": 2, "remat": True}
MEMBERS = {"devices": 8, "members": 4, "members_at_once": 1}


@pytest.mark.parametrize(
    ("rows", "at_once"),  # members in pieces, or whole members side by side
    [(THREE, 1), *(pytest.param(*given, marks=pytest.mark.slow) for given in ((THREE, 8), (FIVE, 1), (FIVE, 8)))],
)
def test_members_that_do_not_divide_by_the_devices_give_the_same_result(rows, at_once):
    expected = trained(plain, rows=rows, steps=5)
    found = trained(
        plain, rows=rows, steps=5, devices=4, members=4, members_at_once=at_once
    )  # two groups of devices per seed
    assert_close(found, expected)
    kernel = expected[0].params["head"]["kernel"]
    assert kernel.shape[:2] == (2, len(rows)) and not np.allclose(kernel[:, 1], kernel[:, 2])


@given(members=st.integers(1, 30), devices=st.integers(2, 8), in_pieces=st.booleans())
def test_assigned_members_take_every_step_once_and_in_order(members, devices, in_pieces):
    index, begin, end = sharding.assign_members(members, devices, in_pieces=in_pieces)
    done = [0] * members
    for row, starts, ends in zip(index, begin, end, strict=True):
        real = row[row < members].tolist()
        assert len(real) == len(set(real))  # two devices never write the same member
        for member, first, last in zip(row.ravel(), starts.ravel(), ends.ravel(), strict=True):
            if last > first:
                assert done[member] == first
                done[member] = last
    assert done == [devices] * members
    work = (end - begin).sum(axis=(0, 2))
    if in_pieces and members >= 2 * devices:
        assert (work == members).all() and ((end - begin)[0].sum(axis=1) == devices).all()  # no device waits
    else:
        assert work.max() == -(-members // devices) * devices


def duration(seeds, by_seed, objectives, by_objective):
    _, begin, end = sharding.assign_members(objectives, by_objective, in_pieces=True)
    return fractions.Fraction(int((end - begin).sum(axis=2).max(axis=1).sum()), by_objective) * seeds / by_seed


@given(seeds=st.integers(1, 9), objectives=st.integers(1, 12), cores=st.integers(1, 8))
def test_cores_get_whole_members_and_finish_as_early_as_possible(seeds, objectives, cores):
    mesh = sharding.core_mesh(jax.devices()[:cores], seeds, objectives)
    by_seed, by_objective, data, fsdp = mesh.shape.values()
    assert data == fsdp == 1 and mesh.size <= cores and seeds % by_seed == 0
    in_turn = duration(seeds, by_seed, objectives, by_objective)
    # No other split finishes sooner, or as soon on fewer cores.
    for a in (n for n in range(1, cores + 1) if seeds % n == 0):
        for b in range(1, min(cores // a, objectives) + 1):
            assert (in_turn, mesh.size) <= (duration(seeds, a, objectives, b), a * b)
    assert sharding.population_mesh(mesh, seeds, objectives) == mesh


def test_cores_are_for_small_networks_and_images_in_memory():
    mesh, cores = sharding.make_mesh(jax.devices()[:1]), jax.devices()
    small, large = models.build("convnet", ALL), models.build("resnet18", ALL)
    images = np.zeros((10, *SHAPE), np.uint8)

    def devices(module=small, images=images, cores=cores, members=(2, 3)):
        return training.choose_mesh(mesh, cores, module, images, *members).size

    assert devices() == 6 and devices(cores=cores[:5]) == 3  # five cores finish no sooner than three
    assert devices(members=(1, 1)) == 1
    assert devices(cores=()) == devices(module=large, images=np.zeros((10, 32, 32, 3), np.uint8)) == 1
    assert devices(images=np.broadcast_to(np.uint8(0), (2**23, *SHAPE))) == 2  # copies of half a GiB
    assert devices(images=np.broadcast_to(np.uint8(0), (2**25, *SHAPE))) == 1


@pytest.mark.parametrize("layout", [DATA, FSDP, MEMBERS], ids=["data", "fsdp", "members"])
def test_every_layout_of_eight_devices_gives_the_same_result_as_one(layout):
    expected = trained(plain)
    assert_close(trained(plain, **layout), expected)
    kernel = expected[0].params["block1"]["dense"]["kernel"]
    assert not np.allclose(kernel[0, 0], kernel[1, 0]) and not np.allclose(kernel[0, 0], kernel[0, 1])


def efficientnet(num_classes=ALL):
    return models.build("efficientnet_lite0", num_classes, dtype="float64")


@pytest.mark.slow  # compiles for two minutes
def test_a_deep_network_with_batch_norm_takes_the_same_step_on_eight_devices_as_on_one():
    # Its steps amplify rounding, in float32 by a factor of thirty and more: only float64 can tell a fault from that.
    rows = ("no_treatment",)
    start = beginning(efficientnet, rows)
    expected, found = (trained(efficientnet, rows=rows, steps=1, **layout)[0] for layout in ({}, DATA))
    assert_close(found.params, expected.params, tolerance=1e-9)
    stem = [np.asarray(state.params["stem_conv"]["kernel"]) for state in (start, expected)]
    assert np.abs(stem[0] - stem[1]).max() > 1e-3


FROZEN = (
    *(("name", "adamw"), ("learning_rate", 0.01), ("freeze", ("block1",)), ("decay_exclude", ("bias",))),
    *(("clip_norm", 0.5), ("warmup_epochs", 0.5), ("head_learning_rate", 0.02)),
)
LAMB = (("name", "lamb"), ("learning_rate", 0.01), ("weight_decay", 0.1))  # it uses the norm of each parameter


@pytest.mark.parametrize("optimizer", [FROZEN, pytest.param(LAMB, marks=pytest.mark.slow)], ids=["adamw", "lamb"])
@pytest.mark.parametrize("layout", [FSDP, pytest.param(MEMBERS, marks=pytest.mark.slow)], ids=["fsdp", "members"])
def test_other_optimizers_give_the_same_result_on_eight_devices_as_on_one(layout, optimizer):
    expected, start = trained(plain, optimizer=optimizer), beginning(plain, ROWS, optimizer)
    assert_close(trained(plain, optimizer=optimizer, **layout), expected)
    same = jax.tree.map(np.array_equal, expected[0].params, start.params)
    assert same["block1"]["dense"]["kernel"] == (optimizer == FROZEN) and not same["block2"]["dense"]["kernel"]


def test_each_micro_batch_has_its_own_statistics_and_gradients_are_averaged():
    parts, rows = 4, ("no_treatment",)
    state, _ = trained(normed, steps=1, rows=rows, devices=8, members=2, fsdp=2, accumulate=parts)
    with jax.enable_x64(True):
        inputs = make_inputs(normed, rows=rows)
        order = data.epoch_permutation(jax.random.fold_in(inputs.keys[0], 1), 0, N)
        batch = np.asarray(data.batch_indices(order, 0, BATCH))
        images, labels = (IMAGES[batch] / 255 - 0.4) / 0.3, inputs.labels[batch]
        start = jax.tree.map(lambda leaf: leaf[0, 0], beginning(normed, rows))

        @functools.partial(jax.grad, has_aux=True)
        def gradient(params, images, labels):
            variables = {"params": params, "batch_stats": start.batch_stats}
            logits, changed = normed().apply(variables, images, train=True, mutable=["batch_stats"])
            chosen = jnp.take_along_axis(nn.log_softmax(logits), labels[:, None], axis=1)
            return -chosen.mean(), changed["batch_stats"]

        gradient = jax.jit(gradient)
        results = [gradient(start.params, images[part::parts], labels[part::parts]) for part in range(parts)]
        whole = jax.device_get(gradient(start.params, images, labels))
    results = jax.device_get(results)
    mean, statistics = (jax.tree.map(lambda *x: sum(x) / parts, *each) for each in zip(*results, strict=True))
    params = jax.tree.map(lambda p, g: p - 0.1 * (g + 5e-4 * p), start.params, mean)
    assert_close(jax.tree.map(lambda leaf: leaf[0, 0], (state.params, state.batch_stats)), (params, statistics))
    assert np.abs(whole[1]["block1"]["norm1"]["var"] - statistics["block1"]["norm1"]["var"]).max() > 1e-6


def test_split_parameters_take_less_memory_and_members_communicate_nothing():
    whole, split, members = (compiled(plain, rows=ROWS, **layout)[0] for layout in (DATA, FSDP, MEMBERS))
    params = jax.tree.map(lambda leaf: leaf[0, 0], beginning(plain, ROWS).params)
    large = sum(leaf.size for leaf in jax.tree.leaves(params) if leaf.size >= 100)  # 64 x 16 and 16 x 16: all divide
    saved = whole.memory_analysis().argument_size_in_bytes - split.memory_analysis().argument_size_in_bytes
    assert saved == 4 * 2 * 8 * large * 7 // 8  # of 4 members, parameters and momentum, in float64
    sent = [{each.kind: each.bytes for each in collectives.of_step(p.as_text())} for p in (whole, split, members)]
    assert sent[0].keys() == {"all-reduce"}
    assert sent[1]["all-gather"] >= 4 * 8 * large
    # Each of the four groups of devices sums the gradients of one of four members.
    assert sent[2]["all-reduce"] == pytest.approx(sent[0]["all-reduce"] / 4, rel=0.01)


def test_a_checkpoint_of_one_layout_resumes_in_another(tmp_path):
    (_, place, steps), (_, place_elsewhere, steps_elsewhere) = (
        compiled(plain, rows=ROWS, **x) for x in (FSDP, MEMBERS)
    )
    with jax.enable_x64(True):
        state, _ = steps(place(beginning(plain, ROWS)), 0, 2)
        checkpoint.save(tmp_path, 2, state, {"seconds": 1.0, "since": 0, "teachers": [], "sums": {}})
        like = place_elsewhere(beginning(plain, ROWS))
        step, restored, _ = checkpoint.restore(tmp_path, like, print)
        jax.tree.map(np.testing.assert_array_equal, jax.device_get(restored), jax.device_get(state))
        resumed = jax.device_get(steps_elsewhere(restored, step, 4)[0])
    assert_close(resumed, trained(plain)[0])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vit_tiny", "resnet18"])
def test_rematerialised_networks_have_the_same_gradients(name):
    with jax.enable_x64(True):
        module = models.build(name, ALL, dtype="float64")
        weights = models.init(module, jax.random.key(0), (16, 16, 1))
        images = np.random.default_rng(0).normal(size=(4, 16, 16, 1))

        def gradient(module):
            loss = lambda p: (models.train_forward(module, p, weights[1], images)[0] ** 2).sum()  # noqa: E731
            return jax.jit(jax.grad(loss))(weights[0])

        assert_close(gradient(module.clone(remat=True)), gradient(module))


def fit(folder, devices, every=2, stop=None, **layout):
    class Stopped(Exception):
        pass

    def on_values(step, values):
        if stop is not None and step >= stop:
            raise Stopped

    steps = []
    with jax.enable_x64(True):
        recipe, inputs = make_recipe(normed(), steps_per_call=2), make_inputs(normed, rows=("no_treatment",))
        mesh = sharding.population_mesh(sharding.make_mesh(jax.devices()[:devices], **layout), 2, 1)
        tell = dict(
            on_start=steps.append, on_values=on_values, folder=folder, checkpoint_every=every, teacher_digests=("t",)
        )
        try:
            return jax.device_get(loop.fit(recipe, mesh, inputs, IMAGES, **tell)[0]), steps
        except Stopped:
            return None, steps


@pytest.mark.slow
def test_a_stage_of_eight_devices_resumes_on_two(tmp_path, monkeypatch):
    monkeypatch.setattr(sharding, "SMALLEST", 100)
    whole, _ = fit(tmp_path / "whole", 1)
    fit(tmp_path / "broken", 8, stop=6, members=2, fsdp=4)
    resumed, (begun,) = fit(tmp_path / "broken", 2, fsdp=2)
    assert 0 < begun < 12
    assert_close(resumed, whole)


@pytest.mark.parametrize("devices", [3, 5])
def test_a_batch_that_does_not_divide_gives_the_right_result(devices):
    # Devices that the members leave over join the batch, which need not divide by them.
    with jax.enable_x64(True):
        mesh = sharding.make_mesh(jax.devices()[:devices])
        x = np.random.default_rng(0).normal(size=(BATCH, 7))
        centred = jax.jit(
            lambda x: (lambda y: ((y - y.mean(0, keepdims=True)) ** 2).sum(0))(sharding.split_batch(mesh, x))
        )
        np.testing.assert_allclose(centred(x), ((x - x.mean(0)) ** 2).sum(0))


@pytest.mark.parametrize(
    ("shape", "devices", "spec"),
    [
        ((3, 3, 64, 128), 8, P(None, None, None, "fsdp")),
        ((128, 64), 8, P("fsdp")),
        ((512, 9), 512, P("fsdp")),
        ((100, 128), 8, P(None, "fsdp")),
        ((64, 64), 8, P(None, "fsdp")),  # the last of equal dimensions
        ((101, 103), 8, P()),
        ((64, 63), 8, P()),  # too small
        ((4096, 4096), 1, P()),
        ((), 8, P()),
    ],
)
def test_parameters_are_split_along_their_largest_dimension_that_divides(shape, devices, spec):
    assert sharding.parameter_spec(shape, devices) == spec


def test_layouts_that_do_not_divide_are_refused_with_their_keys():
    for options in ({"members": 3}, {"fsdp": 3}, {"members": 4, "fsdp": 4}):
        with pytest.raises(InputError, match=r"mesh\.members=.*mesh\.fsdp=.*8 devices"):
            sharding.make_mesh(**options)
    assert dict(sharding.make_mesh(members=2, fsdp=0).shape) == {"seeds": 2, "objectives": 1, "data": 1, "fsdp": 4}
    sharding.check_batch(sharding.make_mesh(), 48, 2)
    sharding.check_batch(sharding.make_mesh(members=4), 6, 3)
    with pytest.raises(InputError, match=r"optimizer\.batch_size=12.* multiple of the 8 devices$"):
        sharding.check_batch(sharding.make_mesh(), 12, 1)
    with pytest.raises(InputError, match=r"mesh\.members=2.*optimizer\.accumulate=3"):
        sharding.check_batch(sharding.make_mesh(members=2), 16, 3)


def depthwise(num_classes=ALL):
    """A network with depthwise convolutions of both strides and BatchNorm, whose gradients are written by hand."""
    stages = (efficientnet_lite.Stage(1, 3, 1, 1, 8), efficientnet_lite.Stage(2, 5, 2, 2, 8))
    return efficientnet_lite.EfficientNetLite(num_classes, stages, **F64)


ADAMW = (("name", "adamw"), ("learning_rate", 0.001), ("weight_decay", 0.01))


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", [(), ADAMW], ids=["sgd", "adamw"])
def test_depthwise_convolutions_give_the_same_result_on_eight_devices_as_on_one(optimizer):
    one, eight = (trained(depthwise, optimizer=optimizer, steps=3, **layout) for layout in ({}, DATA))
    assert_close(eight, one, tolerance=1e-7)  # Adam divides gradients that are 0 but for rounding by their own size
