"""The command survives kills at any moment, signals, a full disk, a read-only folder, and damaged files.

Every process is the real command on the digits, with a network that compiles quickly; all share one cache of compiled
programs. At the end, each run is compared bit for bit with one that was not disturbed.
"""

import json
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
import time

import commands
import pytest

from mpt_jax.files import checkpoint

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name != "posix", reason="signals and mounts of POSIX")]

ROOT = pathlib.Path(__file__).resolve().parents[1]
CHECKPOINT_EVERY = 5
OPTIONS = (
    *(
        "--config.seeds=0,1",
        "--config.optimizer.epochs=2",
        "--config.model.name=mlp",
        "--config.update.schedule=[4,7,10]",
    ),
    *("--config.update.methods=no_treatment,mpt_kl,posthoc_bias", "--config.update.tune={'bias': (0, 2)}"),
    *("--config.update.start=old", "--config.update.memory=per_class:20"),
    *(f"--config.training.checkpoint_every={CHECKPOINT_EVERY}", "--config.training.steps_per_dispatch=2"),
)
# Where a run is killed: the part of a path, and the largest number of the file operation there; or at any time.
PLACES = {"metrics.jsonl": 20, "checkpoints": 250, "unfinished/model": 150, "notes.json": 20, "predictions": 30}
PLACES |= {"releases": 250, "card.json": 20, "report": 4, "config.json": 3, "": 900}
KILLS, OF_EACH = 30, 2

# The command, which kills itself just before the n-th file operation on a path with `place` in it.
COMMAND = """
import os, signal, sys
folder, place, at = sys.argv[1], sys.argv[2], int(sys.argv[3])
del sys.argv[1:4]
count = 0
def hook(event, args):
    global count
    if event in ("open", "os.rename", "os.mkdir", "os.rmdir", "os.remove", "os.scandir"):
        path = str(args[0])
        if path.startswith(folder) and place in path[len(folder):]:
            count += 1
            if count == at:
                os.kill(os.getpid(), signal.SIGKILL)
if at:
    sys.addaudithook(hook)
from mpt_jax import train
sys.exit(train.main())
"""


class World:
    """A folder for runs, and what they share."""

    def __init__(self, folder, dataset):
        self.folder, self.dataset = folder, dataset

    def line(self, name, *more, kill=("", 0)):
        run = str(self.folder / name)
        where = (f"--workdir={run}", f"--config.dataset.name={self.dataset}")
        options = ("--config", str(ROOT / "configs/digits.py"), *where, *OPTIONS, *more)
        return [sys.executable, "-c", COMMAND, run, kill[0], str(kill[1]), *options]

    def environment(self):
        return commands.environment(self.folder)

    def start(self, name, *more, kill=("", 0), wrapper=()):
        line = [*wrapper, *self.line(name, *more, kill=kill)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(line, env=self.environment(), cwd=ROOT, **pipes)

    def run(self, name, *more, **options):
        """(exit status, standard output, standard error) of a process that is not disturbed."""
        process = self.start(name, *more, **options)
        output, errors = process.communicate(timeout=600)
        assert "Traceback" not in errors, errors
        return process.returncode, output, errors

    def assert_equals_the_undisturbed_run(self, name):
        commands.assert_equal(self.folder / "whole", self.folder / name)


@pytest.fixture(scope="module")
def world(features_file, tmp_path_factory):
    """A world with a complete run that was not disturbed."""
    world = World(tmp_path_factory.mktemp("world"), features_file)
    status, _, errors = world.run("whole")
    assert status == 0, errors
    return world


def test_a_run_killed_at_any_moment_ends_bit_identical_and_repeats_few_steps(world):
    chance = random.Random(0)
    started = time.monotonic()
    assert world.run("timed")[0] == 0
    duration = time.monotonic() - started
    killed, lost, runs, name = [], [], 0, "killed-0"
    planned = [place for place in PLACES for _ in range(OF_EACH)] + [None] * (KILLS - OF_EACH * len(PLACES))
    chance.shuffle(planned)
    planned += ["config.json", "config.json"]  # used first, in a new folder: before the write and the rename
    while planned:
        before = commands.metrics(world.folder / name)
        place = planned.pop()
        at = chance.randint(1, PLACES[place]) if place is not None else 0
        at = len(killed) + 1 if len(killed) < 2 else at
        process = world.start(name, kill=(place or "", at))
        if place is None:
            at = chance.uniform(0.2, 0.9) * duration
            try:
                process.wait(timeout=at)
            except subprocess.TimeoutExpired:
                process.kill()
        output, errors = process.communicate(timeout=600)
        stage = r"^release (\d), (\w+), .*: \d+ steps(?:, resumed from step (\d+))?$"
        resumed = re.search(stage, output, re.MULTILINE)
        if resumed:
            reported = [line["step"] for line in before if (str(line["release"]), line["stage"]) == resumed.group(1, 2)]
            lost.append(max(reported, default=0) - int(resumed[3] or 0))
        if process.returncode == -signal.SIGKILL:
            killed.append((place, at))
            continue
        assert process.returncode == 0, errors  # it finished before the kill: plan another run
        world.assert_equals_the_undisturbed_run(name)
        planned += [place]
        runs += 1
        name = f"killed-{runs}"
        assert runs < 2 * KILLS, "runs are not killed"
    assert world.run(name)[0] == 0
    world.assert_equals_the_undisturbed_run(name)
    assert len(killed) == KILLS + 2 and {place for place, _ in killed} == {*PLACES, None}
    assert max(lost) <= CHECKPOINT_EVERY and sum(lost) > 0
    print(f"{len(killed)} kills in {runs + 1} runs; steps repeated: {sum(lost)}, at most {max(lost)} after a kill")


def wait_for(path, process):
    deadline = time.monotonic() + 300
    while not list(path.parent.glob(path.name)):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.01)


@pytest.mark.parametrize(("signum", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_a_checkpoint_and_prints_how_to_resume(world, signum, status):
    name = f"signal-{status}"
    process = world.start(name)
    wait_for(world.folder / name / "metrics.jsonl", process)
    process.send_signal(signum)
    started = time.monotonic()
    output, errors = process.communicate(timeout=100)
    assert time.monotonic() - started < 10
    assert process.returncode == status and "Traceback" not in errors
    assert errors.splitlines()[-1].startswith("stopped; to resume from the last checkpoint: python -m mpt_jax.train ")
    states = world.folder / name / "checkpoints"
    saved = {path.name: max(checkpoint.saved_steps(path)) for path in states.iterdir()}
    reported = {f"r{line['release']}-{line['stage']}": line["step"] for line in commands.metrics(world.folder / name)}
    assert all(step >= reported[stage] for stage, step in saved.items())  # no reported step is lost
    status, output, errors = world.run(name)
    assert status == 0, errors
    assert all(f"resumed from step {step}\n" in output for step in saved.values())
    world.assert_equals_the_undisturbed_run(name)


def test_resnet18_on_cifar100_has_a_checkpoint_within_ten_seconds_of_a_signal(world, cifar_dir):
    """A step takes 0.2 s to some seconds on a CPU, and a call of the program makes 20 of them."""
    run = world.folder / "cifar"
    options = (
        "--config",
        str(ROOT / "configs/cifar100.py"),
        f"--workdir={run}",
        f"--config.dataset.data_dir={cifar_dir}",
    )
    line = [sys.executable, "-m", "mpt_jax.train", *options]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(line, env=world.environment(), cwd=ROOT, **pipes)
    wait_for(run / "metrics.jsonl", process)
    process.send_signal(signal.SIGTERM)
    started = time.monotonic()
    _, errors = process.communicate(timeout=100)
    seconds = time.monotonic() - started
    assert process.returncode == 143 and "to resume from the last checkpoint" in errors, errors
    (step,) = checkpoint.saved_steps(run / "checkpoints/r0-old")
    assert step >= max(line["step"] for line in commands.metrics(run)) and seconds < 10
    print(f"checkpoint at step {step}, {seconds:.1f} s after the signal")


def test_a_second_signal_ends_the_run_immediately_without_loss(world):
    process = world.start("signals")
    wait_for(world.folder / "signals/metrics.jsonl", process)
    for _ in range(2):
        process.send_signal(signal.SIGTERM)
    process.communicate(timeout=5)
    assert process.returncode == 143
    assert world.run("signals")[0] == 0
    world.assert_equals_the_undisturbed_run("signals")


def test_two_processes_in_one_folder(world):
    process = world.start("shared")
    wait_for(world.folder / "shared/metrics.jsonl", process)
    status, _, errors = world.run("shared")
    assert status == 2 and f"in use by process {process.pid} on " in errors and len(errors.splitlines()) == 1
    process.kill()
    process.wait()
    assert world.run("shared")[0] == 0
    world.assert_equals_the_undisturbed_run("shared")


@pytest.fixture
def mounts():
    """The start of a command that runs a shell script in its own mount namespace, if that is possible."""
    wrapper = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    probe = [*wrapper, "mount -t tmpfs -o size=1m none /tmp"]
    try:
        done = subprocess.run(probe, capture_output=True, text=True, timeout=30)
    except FileNotFoundError:
        pytest.skip("no command `unshare`")
    if done.returncode:
        pytest.skip(f"no mounts without the superuser here: {done.stderr.strip()}")
    return wrapper


def shell(world, mounts, script, name):
    """Run a script, in which `$RUN` is the work directory and "$@" the command; return exit status, output, errors."""
    (world.folder / name).mkdir()
    line = [*mounts, script, "sh", *world.line(name)]
    environment = {**world.environment(), "RUN": str(world.folder / name)}
    done = subprocess.run(line, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=900)
    return done.returncode, done.stdout, done.stderr


def test_a_full_disk_ends_with_status_3_and_the_run_resumes_when_there_is_space(world, mounts):
    needed = sum(path.stat().st_size for path in (world.folder / "whole").rglob("*") if path.is_file())
    sizes = [int(part * needed / 1024) for part in (0.02, 0.3, 0.6, 0.9)]
    script = f"""
        mount -t tmpfs -o size=16k none $RUN
        for size in {" ".join(map(str, sizes))}; do
            mount -o remount,size=${{size}}k $RUN; "$@"; echo "status $?"
            find $RUN -name '*.unfinished' -path '*checkpoints*' >&2
        done
        mount -o remount,size=1g $RUN; "$@"; echo "status $?"; cp -r $RUN {world.folder}/roomy
    """
    _, output, errors = shell(world, mounts, script, "full")
    assert re.findall(r"^status (\d+)$", output, re.MULTILINE) == ["3"] * len(sizes) + ["0"], errors
    lines = errors.splitlines()
    assert len(lines) == len(sizes), errors
    assert all("No space left on device; the last checkpoint is intact: free some space" in line for line in lines)
    world.assert_equals_the_undisturbed_run("roomy")


FULL = """
import sys, pathlib
import jax.numpy as jnp
from mpt_jax.files import array_folder, checkpoint
folder, small, large = pathlib.Path(sys.argv[1]), {"w": jnp.ones(9)}, {"w": jnp.arange(10**6)}
notes = {"seconds": 1.0, "since": 0, "teachers": [], "sums": {}}
checkpoint.save(folder, 1, small, notes)
array_folder._require_space = lambda *args: None  # as on a disk that fills up only now, or has a quota
try:
    checkpoint.save(folder, 2, large, notes)
except OSError as error:
    print(error.strerror, [path.name for path in folder.iterdir()])
print(checkpoint.restore(folder, small, print)[0])
"""


def test_a_disk_that_fills_up_while_a_checkpoint_is_written(world, mounts):
    (world.folder / "filling").mkdir()
    script = 'mount -t tmpfs -o size=2m none $0; "$@"'
    line = [*mounts, script, str(world.folder / "filling"), sys.executable, "-c", FULL, str(world.folder / "filling")]
    done = subprocess.run(line, env=world.environment(), cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.stdout.splitlines() == ["No space left on device ['1']", "1"], done.stderr
    assert done.stderr == ""  # the threads of orbax print tracebacks


def test_a_read_only_folder_ends_with_status_2(world, mounts):
    script = '''mount --bind $RUN $RUN; mount -o remount,bind,ro $RUN; "$@"'''
    status, _, errors = shell(world, mounts, script, "readonly")
    assert status == 2 and len(errors.splitlines()) == 1, errors
    assert "cannot write to work directory" in errors and "Read-only file system" in errors


def test_a_run_reports_a_damaged_checkpoint_and_resumes_from_the_one_before(world):
    name = "damaged"
    process = world.start(name, kill=("r1-independent/.14.unfinished", 1))  # before the third is written
    process.communicate(timeout=300)
    assert process.returncode == -signal.SIGKILL
    states = world.folder / name / "checkpoints/r1-independent"
    assert {5, 10} <= set(checkpoint.saved_steps(states))
    largest = max(
        (path for path in (checkpoint.step_folder(states, 10) / "model").rglob("*") if path.is_file()),
        key=lambda p: p.stat().st_size,
    )
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 1
    largest.write_bytes(content)
    status, output, errors = world.run(name)
    assert status == 0, errors
    assert f"{largest} is damaged: trying an older checkpoint" in output and "resumed from step 5" in output
    world.assert_equals_the_undisturbed_run(name)


def swap(one, other):
    aside = one.with_name("aside")
    one.rename(aside)
    other.rename(one)
    aside.rename(other)


def one_line(errors):
    assert len(errors.splitlines()) == 1, errors
    return errors


@pytest.mark.parametrize("copied_to", ["14", "34", "9999"])
def test_a_checkpoint_that_was_copied_to_the_name_of_a_later_step(world, copied_to):
    name = f"copied-{copied_to}"
    world.start(name, kill=("r1-independent/.14.unfinished", 1)).communicate(timeout=300)
    states = world.folder / name / "checkpoints/r1-independent"
    shutil.copytree(states / "10", states / copied_to)
    status, output, errors = world.run(name)
    assert status == 0, errors
    assert f"{states / copied_to} was copied or renamed: it is the checkpoint of step 10" in output
    assert "resumed from step 10" in output
    world.assert_equals_the_undisturbed_run(name)


def test_two_checkpoints_that_were_swapped(world):
    world.start("swapped", kill=("r1-independent/.14.unfinished", 1)).communicate(timeout=300)
    states = world.folder / "swapped/checkpoints/r1-independent"
    swap(states / "5", states / "10")
    status, _, errors = world.run("swapped")
    assert status == 2 and f"no checkpoint in {states} can be used; remove that folder" in one_line(errors)
    shutil.rmtree(states)
    assert world.run("swapped")[0] == 0
    world.assert_equals_the_undisturbed_run("swapped")


def test_predictions_of_two_seeds_that_were_swapped_before_the_students_are_compared(world):
    world.start("seeds", kill=("checkpoints/r1-students", 1)).communicate(timeout=300)
    folder = world.folder / "seeds/predictions"
    assert not list(folder.glob("r1-mpt_kl-*"))
    swap(folder / "r0-old-seed0.npz", folder / "r0-old-seed1.npz")
    status, output, errors = world.run("seeds")
    assert status == 0, errors
    assert output.count("holds other predictions, those of r0-old-seed") == output.count("computed again") == 2
    world.assert_equals_the_undisturbed_run("seeds")


def test_predictions_of_two_methods_that_were_swapped_in_a_finished_run(world):
    shutil.copytree(world.folder / "whole", world.folder / "methods")
    files = [world.folder / f"methods/predictions/r2-{name}-seed0.npz" for name in ("no_treatment", "mpt_kl")]
    swap(*files)
    assert commands.run(world.folder, "verify", world.folder / "methods")[0] == 1
    status, output, errors = world.run("methods")
    assert status == 0, errors
    assert output.count("computed again") == 2
    world.assert_equals_the_undisturbed_run("methods")
    assert commands.run(world.folder, "verify", world.folder / "methods")[0] == 0


@pytest.mark.parametrize("how", ["swapped", "linked", "copied"])
def test_releases_of_two_seeds_that_were_exchanged(world, how):
    run = world.folder / f"releases-{how}"
    shutil.copytree(world.folder / "whole", run)
    one, other = (run / f"releases/r2-mpt_kl-seed{seed}" for seed in (0, 1))
    if how == "swapped":
        swap(one, other)
    else:
        shutil.rmtree(one)
        one.symlink_to(other) if how == "linked" else shutil.copytree(other, one)
    status, _, errors = world.run(run.name)
    assert status == 2 and "r2-mpt_kl-seed0 holds the release r2-mpt_kl-seed1" in one_line(errors)
    assert commands.run(world.folder, "verify", run)[0] == 1


@pytest.mark.parametrize("damage", ["missing", "truncated"])
def test_a_model_of_a_finished_run_that_is_not_whole(world, damage):
    run = world.folder / f"model-{damage}"
    shutil.copytree(world.folder / "whole", run)
    model = run / "releases/r2-mpt_kl-seed0/model"
    path = max((path for path in model.rglob("*") if path.is_file()), key=lambda p: p.stat().st_size)
    if damage == "missing":
        shutil.rmtree(model)
    else:
        path.write_bytes(path.read_bytes()[:-1])
    status, _, errors = world.run(run.name)
    assert status == 2 and "restore it from a copy, or remove" in one_line(errors)
    status, output, _ = commands.run(world.folder, "verify", run, "--quick")
    assert status == 1 and "r2-mpt_kl-seed0/model/" in output


def test_a_damaged_teacher_is_an_error_with_a_remedy(world):
    shutil.copytree(world.folder / "whole", world.folder / "teacher")
    shutil.rmtree(world.folder / "teacher/releases/r1-mpt_kl-seed0")  # so that the students are trained again
    weights = max((world.folder / "teacher/releases/r0-old-seed1/model").rglob("d/*"), key=lambda p: p.stat().st_size)
    content = bytearray(weights.read_bytes())
    content[-9] ^= 4
    weights.write_bytes(content)
    status, _, errors = world.run("teacher")
    assert status == 2 and len(errors.splitlines()) == 1, errors
    assert (
        str(weights) in errors and f"or remove {world.folder}/teacher/releases/r0-old-seed1 to train it again" in errors
    )
    shutil.rmtree(world.folder / "teacher/releases/r0-old-seed1")
    assert world.run("teacher")[0] == 0
    assert commands.outcome(world.folder / "teacher")[:2] == commands.outcome(world.folder / "whole")[:2]


def test_many_short_runs_with_random_kills_lose_nothing(world):
    """Up to 200 runs, two at a time, for a quarter of an hour at most."""
    chance, deadline = random.Random(1), time.monotonic() + 800
    short = ("--config.update.schedule=[5,10]", "--config.update.methods=no_treatment", "--config.update.tune={}")
    short += ("--config.optimizer.epochs=1", "--config.seeds=0")
    started = time.monotonic()
    assert world.run("soak", *short)[0] == 0
    duration, expected = time.monotonic() - started, commands.outcome(world.folder / "soak")
    waiting, running, kills, done = [f"soak-{i}" for i in range(200)], {}, 0, 0
    while running or (waiting and time.monotonic() < deadline):
        while waiting and len(running) < 2 and time.monotonic() < deadline:
            name = waiting.pop(0)
            running[name] = world.start(name, *short), time.monotonic() + chance.uniform(0.3, 2.5) * duration
        time.sleep(0.02)
        for name, (process, killed_at) in list(running.items()):
            if process.poll() is None and time.monotonic() > killed_at:
                process.kill()
            if process.poll() is None:
                continue
            _, errors = process.communicate()
            assert "Traceback" not in errors, errors
            if process.returncode == -signal.SIGKILL:
                kills += 1
                running[name] = world.start(name, *short), float("inf")
                continue
            assert process.returncode == 0, errors
            assert commands.outcome(world.folder / name) == expected
            shutil.rmtree(world.folder / name)
            del running[name]
            done += 1
    print(f"{done} runs with {kills} kills in {time.monotonic() - started:.0f} s")
    assert done >= 20 and kills >= 5


@pytest.mark.skipif(not pathlib.Path("/proc/self/fd").exists(), reason="open files are counted by Linux's /proc")
def test_memory_and_open_files_do_not_grow_over_two_thousand_steps(tmp_path):
    code = """
import json, os, pathlib, sys
import jax, jax.numpy as jnp, numpy as np
from mpt_jax import models, objectives, training
from mpt_jax.config import OptimizerConfig
from mpt_jax.training import sharding
optimizer = OptimizerConfig(learning_rate=0.01, weight_decay=0.0, epochs=140, batch_size=16)
recipe = training.Recipe(models.build("linear", 10), 5, optimizer, steps_per_call=20)
random = np.random.default_rng(0)
images = random.integers(0, 256, (240, 8, 8, 1), np.uint8)
inputs = training.Inputs(
    np.sort(random.integers(0, 10, 240).astype(np.int32)),
    np.full(1, 0.4, np.float32), np.full(1, 0.3, np.float32), jnp.stack([jax.random.key(0)]),
    objectives.stack([objectives.METHODS["no_treatment"]]), {},
)
seen = []
def on_values(step, values):
    if step % 300 == 0:
        pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
        seen.append((step, pages * os.sysconf("SC_PAGE_SIZE") / 2**20, len(os.listdir("/proc/self/fd"))))
training.fit(recipe, sharding.make_mesh(jax.devices()[:1]), inputs, images, folder=pathlib.Path(sys.argv[1]),
             checkpoint_every=60, teacher_digests=[], on_start=lambda step: None, on_values=on_values)
print(json.dumps(seen))
"""
    line = [sys.executable, "-c", code, str(tmp_path / "state")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "XLA_FLAGS": ""}
    done = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout.splitlines()[-1])
    print(seen)
    (first, memory, files), (last, memory_at_end, files_at_end) = seen[0], seen[-1]
    assert last - first >= 1800
    assert memory_at_end - memory < 20 and files_at_end <= files
