"""The Slurm script calls srun as documented and requeues its job."""

import pathlib
import re
import shlex
import subprocess

import pytest

SCRIPT = pathlib.Path(__file__).parents[2] / "launch/slurm.sbatch"
ARGUMENTS = ["--config", "configs/x.py", "--workdir", "/shared/a b", "--config.c=it's $HOME"]
SRUN = 'printf "%s\\0" "$@" >"$RECORD"; echo "srun ran"; exit "$STATUS"'


@pytest.fixture
def run(programs, tmp_path, monkeypatch):
    """Return a function that runs the script with a fake Slurm: result, and arguments of `srun`."""
    programs("srun", SRUN)
    programs("scontrol", 'echo "scontrol $*"')
    monkeypatch.setenv("RECORD", str(tmp_path / "record"))
    monkeypatch.setenv("SLURM_JOB_ID", "42")

    def call(*arguments, **variables):
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        done = subprocess.run(["bash", str(SCRIPT), *arguments], capture_output=True, text=True, timeout=30)
        record = tmp_path / "record"
        return done, record.read_text().split("\0")[:-1] if record.exists() else None

    return call


def test_shellcheck(shellcheck):
    shellcheck(SCRIPT)


def test_directives_fit_together():
    """One process per GPU, as JAX assumes under Slurm; time to save before the limit."""
    found = dict(re.findall(r"^#SBATCH --([a-z-]+)=?(\S*)", SCRIPT.read_text(), re.M))
    assert found["ntasks-per-node"] == found["gpus-per-node"]
    assert re.fullmatch(r"TERM@\d+", found["signal"]) and int(found["signal"].partition("@")[2]) >= 60
    assert "requeue" in found and found["open-mode"] == "append"
    before, _, script = SCRIPT.read_text().partition("set -uo pipefail")
    assert "#SBATCH" not in script and all(line.startswith("#") for line in before.splitlines())


def test_srun_gets_the_command(run):
    done, called = run(*ARGUMENTS, STATUS="0", PYTHON="/env/bin/python")
    assert (done.returncode, done.stdout) == (0, "srun ran\n")
    assert called[-(4 + len(ARGUMENTS)) :] == ["/env/bin/python", "-m", "mpt_jax.train", "--distributed", *ARGUMENTS]
    assert "--kill-on-bad-exit=0" in called  # the others have time to save after the first one ends


def test_a_bad_number_is_refused_before_training(run):
    done, called = run(*ARGUMENTS, STATUS="0", MOST_RESTARTS="abc")
    assert done.returncode == 2 and done.stderr == "MOST_RESTARTS=abc; expected a number\n" and called is None


@pytest.mark.parametrize(
    "status, restarts, again", [("143", "0", True), ("143", "50", False), ("2", "0", False), ("1", "3", False)]
)
def test_only_a_job_stopped_by_sigterm_is_requeued(run, status, restarts, again):
    done, _ = run(*ARGUMENTS, STATUS=status, SLURM_RESTART_COUNT=restarts)
    assert done.returncode == int(status)
    assert ("scontrol requeue 42" in done.stdout) == again


def test_dry_run(run):
    done, called = run(*ARGUMENTS, DRY_RUN="1", STATUS="0")
    assert called is None and done.returncode == 0
    assert shlex.split(done.stdout)[0] == "srun" and shlex.split(done.stdout)[-5:] == ARGUMENTS


def test_usage(run):
    done, called = run(STATUS="0")
    assert done.returncode == 2 and called is None and "usage" in done.stderr
