"""The TPU script calls gcloud as documented; commands for the workers run in a local folder."""

import os
import pathlib
import shutil
import subprocess
import time

import pytest

SCRIPT = pathlib.Path(__file__).parents[2] / "launch/tpu_vm.sh"
COMMANDS = ["create", "state", "install", "start", "resume", "follow", "stop", "delete"]
ARGUMENTS = ["--config", "configs/x.py", "--workdir", "gs://bucket/run 1", '--config.a=it\'s $HOME `b` "c" \\ *']
# Records its arguments, and runs the commands for workers in the folder HOME, as ssh would.
GCLOUD = """
printf '%s\\0' "$@" >>"$RECORD"; printf '\\n' >>"$RECORD"
[[ -z $RECORD_ONLY ]] || exit 0
for argument; do
    case $argument in
    --command=*) cd "$HOME" && exec bash -c "${argument#--command=}" ;;
    esac
done
[[ $4 != scp ]] || cp "$5" "$HOME/mpt_jax.bundle"
"""


@pytest.fixture
def record(programs, tmp_path, monkeypatch):
    """Return a function that lists the arguments of each call of `gcloud`."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("RECORD", str(tmp_path / "record"))
    programs("gcloud", GCLOUD)
    return lambda: [call.split("\0") for call in (tmp_path / "record").read_text().split("\0\n")[:-1]]


def run(*arguments, script=SCRIPT, **variables):
    return subprocess.run(
        ["bash", str(script), *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **variables},
        timeout=60,
    )


def test_shellcheck(shellcheck):
    shellcheck(SCRIPT)


@pytest.mark.parametrize("command", COMMANDS)
def test_dry_run_prints_the_calls(command, record, programs, tmp_path, monkeypatch):
    """Pasted into a shell, the printed lines make the same calls as the script."""
    programs("git", "exit 0")
    programs("mktemp", f"echo '{tmp_path}/a folder'")
    monkeypatch.setenv("TMPDIR", f"{tmp_path}/a folder")
    arguments = [command, *(ARGUMENTS if command in ("start", "resume") else [])]
    monkeypatch.setenv("RECORD_ONLY", "1")
    dry = run("--dry-run", *arguments, NAME="my-tpu", ZONE="z-1")
    assert dry.returncode == 0, dry.stderr
    assert not (tmp_path / "record").exists()
    subprocess.run(["bash", "-c", dry.stdout], check=True)
    pasted = record()
    (tmp_path / "record").unlink()
    assert run(*arguments, NAME="my-tpu", ZONE="z-1").returncode == 0
    assert pasted == record()
    assert all(call[:2] == ["compute", "tpus"] and "--zone=z-1" in call for call in pasted)


def test_create_requests_the_slice(record):
    run("create", NAME="n", ZONE="z", TYPE="v6e-8", RUNTIME="r")
    run("create", SPOT="0")
    run("delete", NAME="n")
    first, second, last = record()
    assert first[:5] == ["compute", "tpus", "queued-resources", "create", "n"]
    assert {"--node-id=n", "--zone=z", "--accelerator-type=v6e-8", "--runtime-version=r", "--spot"} < set(first)
    assert "--spot" not in second
    assert last[:5] == ["compute", "tpus", "queued-resources", "delete", "n"] and "--force" in last


@pytest.mark.parametrize(("name", "value"), [("GRACE", "x; rm -rf ~"), ("GRACE", "2m"), ("SPOT", "false")])
def test_invalid_variables_are_refused(record, tmp_path, name, value):
    done = run("stop", **{name: value})
    assert done.returncode == 2 and done.stderr.startswith(f"{name}={value}; expected")
    assert not (tmp_path / "record").exists()


def test_a_dry_run_can_be_requested_by_the_environment(record, tmp_path):
    done = run("delete", DRY_RUN="yes")
    assert done.returncode == 0 and "delete" in done.stdout and not (tmp_path / "record").exists()


def test_a_run_from_install_to_stop(record, programs, tmp_path):
    """Arguments pass unchanged through both shells; a second start is refused; stop waits."""
    root = tmp_path / "checkout"
    (root / "launch").mkdir(parents=True)
    script = root / "launch/tpu_vm.sh"
    shutil.copy(SCRIPT, script)
    git = ["git", "-C", str(root), "-c", "user.name=a", "-c", "user.email=a@b"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "one"]):
        subprocess.run([*git, *words], check=True)
    home = tmp_path / "home"
    # `python3 -m uv venv .venv` creates a "python" that records its arguments and ends on SIGTERM.
    trainer = """#!/usr/bin/env bash
printf '%s\\n' "$@" >"$HOME/arguments"
trap 'echo saved >"$HOME/saved"; exit 143' TERM
echo training
while :; do sleep 0.1; done
"""
    (tmp_path / "trainer").write_text(trainer)
    (tmp_path / "trainer").chmod(0o755)
    programs("python3", f"[[ $3 != venv ]] || {{ mkdir -p .venv/bin; cp {tmp_path}/trainer .venv/bin/python; }}")

    done = run("install", script=script)
    assert done.returncode == 0, done.stderr
    assert (home / "mpt_jax/launch/tpu_vm.sh").is_file() and (home / "mpt_jax/.git").is_dir()

    assert run("stop", script=script).stdout == "nothing is running here\n"
    done = run("start", *ARGUMENTS, script=script)
    assert done.returncode == 0 and not done.stderr
    for _ in range(100):
        if (home / "arguments").exists() and "training" in (home / "mpt_jax.log").read_text():
            break
        time.sleep(0.1)
    assert (home / "arguments").read_text().splitlines() == ["-m", "mpt_jax.train", "--distributed", *ARGUMENTS]
    for command in (["install"], ["resume", *ARGUMENTS]):
        done = run(*command, script=script)
        assert done.returncode == 1 and done.stderr == "mpt_jax is already running here; stop it first\n"
    assert run("stop", script=script).returncode == 0
    assert (home / "saved").exists()
    (home / "arguments").unlink()
    assert run("resume", *ARGUMENTS, script=script).returncode == 0
    assert run("stop", script=script).returncode == 0
    assert {call[3] for call in record()} == {"ssh", "scp"} and all("--worker=all" in call for call in record())


def test_a_local_work_directory_causes_a_warning(record):
    done = run("--dry-run", "start", "--config", "x.py")
    assert done.returncode == 0 and done.stderr.startswith("warning: no gs://")


@pytest.mark.parametrize("arguments", [[], ["--dry-run"], ["begin"], ["start"], ["delete", "now"]])
def test_usage(arguments, record, tmp_path):
    done = run(*arguments)
    assert done.returncode == 2 and all(command in done.stderr for command in COMMANDS)
    assert not (tmp_path / "record").exists()
