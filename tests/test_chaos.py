"""Sequences of sessions and of what happens to a work directory between them end as documented, found by hypothesis.

After every sequence the same command gives the result of an undisturbed run, bit for bit, or one line and status 2 or
3. `results/survival.md` has the counts of `python -m pytest -m slow -s tests/test_chaos.py`.
"""

import collections
import os
import random

import chaos
import hypothesis
import jax
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from mpt_jax.training import sharding

pytestmark = pytest.mark.skipif(os.name != "posix", reason="links, pipes and signals of POSIX")

NUMBERS = st.integers(0, 2**32)
GROUP = 5  # sequences
happened: collections.Counter[str] = collections.Counter()


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A world with an undisturbed run."""
    with pytest.MonkeyPatch.context() as patch:
        make_mesh = sharding.make_mesh
        patch.setattr(sharding, "make_mesh", lambda devices=None, **layout: make_mesh(jax.devices()[:1], **layout))
        patch.setattr("mpt_jax.report.plots.draw", lambda report, thumbnails: {})
        made = chaos.World(tmp_path_factory.mktemp("world"))
        made.moments = made.reference()
        yield made


class WorkDirectory(RuleBasedStateMachine):
    """A work directory that starts at some moment of a run."""

    world: chaos.World
    group = 0

    def __init__(self):
        super().__init__()
        self.metrics, self.around, self.steps = True, {}, 0

    def chance(self, number):
        """Return random numbers that the group, the step and hypothesis decide: it begins each group with zeros."""
        self.steps += 1
        return random.Random(repr((self.group, self.steps, number)))

    def note(self, what):
        """Count what was done, and show it if the sequence fails."""
        happened[what] += 1
        hypothesis.note(what)

    def pick(self, found, chance):
        """Return one of the paths, so that the few files of a kind are as likely as the many files of models."""
        kinds = collections.defaultdict(list)
        for path in found:
            relative = path.relative_to(self.world.run)
            kinds[(relative.parts[0], relative.name if relative.name.endswith(".json") else "")].append(path)
        path = chance.choice(kinds[chance.choice(sorted(kinds))])
        self.metrics &= path.name != "metrics.jsonl"  # nothing tells a changed line of the log from another
        return path

    @initialize(number=NUMBERS)
    def start(self, number):
        chance = self.chance(number)
        last = self.world.moments - 1
        self.world.restore(str(chance.choice([chance.randint(0, last), last])))
        self.note("started")

    @rule(number=NUMBERS)
    def disturbed(self, number):
        """A session that does not come to its end, or is not meant to."""
        chance = self.chance(number)
        how = chance.choice(["killed", "killed", "SIGTERM", "disk full", "another config", "another setting"])
        if how.startswith("another") and not (self.world.run / "config.json").exists():
            return  # it would be the first session, and decide
        with chaos.surroundings(**self.around):
            if how == "killed":
                self.note(how if self.world.killed(chance.randint(1, 300)) else "ran to its end")
            elif how == "SIGTERM":
                self.note(f"{how}: status {self.world.interrupted(chance.randint(1, 8)).status}")
            elif how == "disk full":
                self.note(f"{how}: status {self.world.full_disk(chance.randint(1, 300)).status}")
            elif how == "another setting":
                name = chance.choice(sorted(chaos.SETTINGS))
                self.note(how)
                with chaos.setting(name):
                    assert self.world.session().status == 2, name
            else:
                self.note(how)
                more = chance.choice(["seeds=0,2", "optimizer.epochs=4", "dataset.name=digits"])
                assert self.world.session(f"--config.{more}").status == 2

    @rule(number=NUMBERS)
    def damaged(self, number):
        chance = self.chance(number)
        if found := chaos.files(self.world.run):
            kind, path = chance.choice(sorted(chaos.DAMAGES)), self.pick(found, chance)
            self.note(f"damaged: {kind}")
            hypothesis.note(str(path.relative_to(self.world.run)))
            chaos.DAMAGES[kind](path)

    @rule(number=NUMBERS)
    def misplaced(self, number):
        """A file or folder where another one belongs."""
        chance = self.chance(number)
        where = chance.choice(["releases/r*", "predictions/r*", "checkpoints/*/[0-9]*", "releases/*/card.json"])
        how, found = chance.choice(["swap", "copy", "link"]), sorted(self.world.run.glob(where))
        if not found:
            return
        one, other = chance.choice(found), chance.choice(found)
        if where.startswith("checkpoints") and how != "swap":
            other = one.with_name(str(chance.choice([1, 2, 3, 4, 9999])))
        if one != other:
            self.note(f"{how}: {where.partition('/')[0]}")
            hypothesis.note(f"{one.relative_to(self.world.run)}, {other.relative_to(self.world.run)}")
            {"swap": chaos.swap, "copy": chaos.copy, "link": chaos.link}[how](one, other)

    @rule(number=NUMBERS)
    def moved_elsewhere(self, number):
        """Other times of files, another clock, time zone, locale and umask."""
        chance = self.chance(number)
        self.note("clock, times of files, time zone, locale and umask changed")
        chaos.shift_times(self.world.run, chance.choice([-1e8, -3600.0, 3600.0, 1e8]))
        self.around = {
            "umask": chance.choice([0o000, 0o022, 0o077]),
            "zone": chance.choice(["Asia/Kathmandu", "America/St_Johns"]),
            "language": chance.choice(["C", "C.UTF-8", "tr_TR.UTF-8", "de_DE.UTF-8"]),
            "clock": chance.choice([-1e9, 86400.0]),
        }

    def teardown(self):
        with chaos.surroundings(**self.around):
            ended = self.world.session()
        happened["sequences"] += 1
        happened[f"ended with status {ended.status}"] += 1
        if ended.status == 0:
            expected = dict(self.world.expected)
            if not self.metrics:
                del expected["metrics"]
            assert self.world.result(metrics=self.metrics) == expected


def sequences(world, count, steps):
    WorkDirectory.world = world
    happened.clear()
    settings = hypothesis.settings(
        max_examples=GROUP,
        stateful_step_count=steps,
        deadline=None,
        database=None,
        phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate],  # names of files differ when it runs again
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    for WorkDirectory.group in range(count // GROUP):
        machine = hypothesis.seed(WorkDirectory.group)(WorkDirectory)  # a group can be run again
        run_state_machine_as_test(machine, settings=settings)
    print(dict(sorted(happened.items())))
    assert happened["sequences"] >= count and happened["ended with status 0"] > 0


def test_thirty_sequences(world):
    sequences(world, 30, 3)


@pytest.mark.slow
def test_a_thousand_sequences(world):
    sequences(world, 1000, 5)
