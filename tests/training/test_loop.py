"""The training loop: interruption, slow steps, checkpoints, and calls dispatched ahead."""

import signal

import jax
import numpy as np
import pytest
from populations import ALL, IMAGES, LINEAR, ROWS, assert_same, long_tailed, make_inputs, make_recipe

from mpt_jax import models, training
from mpt_jax.errors import InputError
from mpt_jax.files import checkpoint
from mpt_jax.runtime import interruption
from mpt_jax.training import loop, population, sharding


class Interrupted(Exception):
    pass


def fit(recipe, inputs, folder, interrupt_at=None, teachers=("digest",), on_step=lambda step: None, **options):
    seen = []

    def on_values(step, values):
        on_step(step)
        seen.append((step, values))
        if interrupt_at is not None and step >= interrupt_at:
            raise Interrupted

    starts = []
    state, seconds = loop.fit(
        recipe,
        sharding.make_mesh(jax.devices()[:1]),
        inputs,
        IMAGES,
        folder=folder,
        checkpoint_every=5,
        teacher_digests=teachers,
        on_start=starts.append,
        on_values=on_values,
        **options,
    )
    return jax.device_get(state), seconds, starts, seen


def test_a_resumed_stage_is_bit_identical_and_repeats_only_unsaved_steps(tmp_path):
    recipe, inputs = make_recipe(steps_per_call=2), make_inputs(seeds=(0, 1), rows=ROWS)
    whole, _, starts, seen = fit(recipe, inputs, tmp_path / "whole")
    assert starts == [0] and [step for step, _ in seen] == [2, 4, 5, 6, 8, 10, 12]
    with pytest.raises(Interrupted):
        fit(recipe, inputs, tmp_path / "broken", interrupt_at=8)
    resumed, seconds, starts, seen_after = fit(recipe, inputs, tmp_path / "broken")
    assert starts == [10] or starts == [5]
    assert_same(resumed, whole)
    assert seconds > 0
    assert_same(seen_after[-1], seen[-1])
    again, _, starts, seen = fit(recipe, inputs, tmp_path / "broken")  # complete: nothing is trained again
    assert (starts, seen) == ([12], [])
    assert_same(again, whole)
    with pytest.raises(InputError, match="other teachers"):
        fit(recipe, inputs, tmp_path / "broken", teachers=("another",))


def test_a_resumed_stage_keeps_the_state_of_its_optimizer_and_its_frozen_parameters(tmp_path):
    settings = {"name": "adamw", "learning_rate": 0.01, "freeze": ("hidden",), "decay_exclude": ("bias",)}
    recipe, inputs = make_recipe(module=models.build("mlp", ALL), **settings), make_inputs(rows=ROWS)
    whole, *_ = fit(recipe, inputs, tmp_path / "whole")
    with pytest.raises(Interrupted):
        fit(recipe, inputs, tmp_path / "broken", interrupt_at=8)
    resumed, _, starts, _ = fit(recipe, inputs, tmp_path / "broken")
    assert starts == [5]
    assert_same(resumed, whole)
    assert not any(leaf.shape[2:] == (64, 512) for leaf in jax.tree.leaves(whole.opt_state))


def test_images_inputs_and_a_folder_are_enough(tmp_path):
    recipe, inputs = make_recipe(module=LINEAR, steps_per_call=4), make_inputs(rows=ROWS)
    expected, *_ = fit(recipe, inputs, tmp_path / "expected")
    mesh = sharding.make_mesh(jax.devices()[:1])
    state, _ = training.fit(recipe, mesh, inputs, IMAGES, folder=tmp_path / "defaults")
    assert_same(jax.device_get(state), expected)


def test_slow_steps_shorten_the_calls_and_a_signal_between_calls_saves_and_stops(tmp_path, monkeypatch):
    recipe, inputs = make_recipe(module=LINEAR, steps_per_call=4), make_inputs(rows=ROWS)
    whole, _, _, seen = fit(recipe, inputs, tmp_path / "whole")
    monkeypatch.setattr(loop, "SECONDS_PER_CALL", 0.0)  # one step per call
    calls, steps = [], training.train_steps

    def interrupted(*args):
        calls.append(int(args[6]))
        if len(calls) == 8:
            signal.raise_signal(signal.SIGTERM)
        return steps(*args)

    monkeypatch.setattr(population, "train_steps", interrupted)
    with pytest.raises(interruption.Interrupted) as ended, interruption.handle_signals(""):
        fit(recipe, inputs, tmp_path / "broken")
    assert calls == [0, 1, 2, 3, 4, 5, 6, 7] and ended.value.status == 143
    resumed, _, starts, seen_after = fit(recipe, inputs, tmp_path / "broken")
    assert starts == [7] and calls[8:] == [7, 8, 9, 10, 11, 12]
    assert_same(resumed, whole)
    assert [step for step, _ in seen_after] == [8, 10, 12]
    assert_same(seen_after, seen[-3:])  # the interrupted mean too
    assert not interruption.requested()


def test_checkpoint_seconds_add_checkpoints_between_those_of_checkpoint_every(tmp_path, monkeypatch):
    saved, save = [], checkpoint.save
    monkeypatch.setattr(checkpoint, "save", lambda f, step, *rest: saved.append(step) or save(f, step, *rest))
    recipe, inputs = make_recipe(module=LINEAR, steps_per_call=4), make_inputs(rows=ROWS)
    whole, _, _, seen = fit(recipe, inputs, tmp_path / "often", checkpoint_seconds=1e-9)
    # The time of a step is known from the first call, which is settled after the second one is dispatched.
    assert saved[-1] == 12 and {5, 10} < set(saved) and saved[0] < 5
    monkeypatch.setattr(loop, "SECONDS_PER_CALL", 0.0)
    del saved[:]
    again, _, _, seen_again = fit(recipe, inputs, tmp_path / "oftener", checkpoint_seconds=1e-9)
    assert saved == list(range(2, 13))
    assert_same((again, seen_again), (whole, seen))
    del saved[:]
    fit(recipe, inputs, tmp_path / "seldom", checkpoint_seconds=1e9)
    assert saved == [5, 10, 12]


def test_snapshots_have_the_state_of_their_step_and_change_no_result(tmp_path, monkeypatch):
    recipe, inputs = make_recipe(module=LINEAR, steps_per_call=4), make_inputs(rows=ROWS)
    whole, _, _, seen = fit(recipe, inputs, tmp_path / "whole")
    taken, events = {}, []

    def on_snapshot(step, state):
        taken[step] = jax.device_get(state)
        events.append(step)

    options = {"snapshot_every": 3, "on_snapshot": on_snapshot}
    again, _, _, seen_again = fit(recipe, inputs, tmp_path / "taken", **options)
    assert_same((again, seen_again), (whole, seen))
    assert events == [3, 6, 9]  # not at the end, whose state is returned
    saved, save = {}, checkpoint.save
    monkeypatch.setattr(checkpoint, "save", lambda f, step, state, *rest: saved.update({step: jax.device_get(state)}))
    fit(recipe, inputs, tmp_path / "five", snapshot_every=5, on_snapshot=on_snapshot)
    monkeypatch.setattr(checkpoint, "save", save)
    assert_same([taken[5], taken[10]], [saved[5], saved[10]])
    del events[:]
    with pytest.raises(Interrupted):
        fit(recipe, inputs, tmp_path / "broken", interrupt_at=8, **options)
    assert events == [3, 6]
    resumed, *_ = fit(recipe, inputs, tmp_path / "broken", **options)
    assert events == [3, 6, 6, 9]  # those since the checkpoint of step 5
    assert_same(resumed, whole)


def test_the_next_call_is_dispatched_before_the_loop_waits(tmp_path, monkeypatch, compiled):
    events, steps, save = [], training.train_steps, checkpoint.save

    def dispatch(*args):
        if args[5] < args[6]:  # (the first call compiles, and does no step)
            events.append(("call", int(args[6])))
        with jax.transfer_guard("disallow"):  # everything that a call needs is already on the device
            return steps(*args)

    def saved(folder, step, *args):
        events.append(("save", step))
        save(folder, step, *args)

    monkeypatch.setattr(loop, "SECONDS_PER_CALL", 1e9)
    monkeypatch.setattr(population, "train_steps", dispatch)
    monkeypatch.setattr(checkpoint, "save", saved)
    fetched = fit(
        make_recipe(module=LINEAR, batch_size=20, steps_per_call=2),
        make_inputs(),
        tmp_path,
        on_step=lambda s: events.append(("values", s)),
    )[3]
    assert compiled["train_steps"] == 1  # for calls of any number of steps
    assert [step for step, _ in fetched] == [2, 4, 5, 6, 8]
    assert [step for kind, step in events if kind == "call"] == [1, 2, 4, 5, 6, 8]  # the first call measures a step
    for position, (kind, step) in enumerate(events):
        if kind == "values":  # the next call was dispatched, or a checkpoint follows
            assert ("call", step) in events[: position - 1] or events[position + 1] == ("save", step)


def test_learned_class_rates_are_finite_and_resume_bit_identical(tmp_path):
    recipe, inputs = make_recipe(module=LINEAR, sampled=True, steps_per_call=2), long_tailed((0, 1))
    whole, _, _, seen = fit(recipe, inputs, tmp_path / "whole")
    assert all(np.isfinite(value).all() for _, values in seen for value in values.values())
    assert np.isneginf(whole.log_rates[..., 3]).all()
    known = np.delete(whole.log_rates, 3, axis=-1)
    assert np.isfinite(known).all() and np.isfinite(whole.params["head"]["kernel"]).all()
    steps = 12  # each of root mean square 0.01 over the classes that have images
    assert (known != 0).all() and (np.sqrt((known**2).mean(-1)) <= 0.01 * steps * (1 + 1e-5)).all()
    assert not np.allclose(known[0], known[1])
    with pytest.raises(Interrupted):
        fit(recipe, inputs, tmp_path / "broken", interrupt_at=8)
    resumed, *_ = fit(recipe, inputs, tmp_path / "broken")
    assert_same(resumed, whole)
