"""The git revision shows whether the code was changed."""

import json
import subprocess

import jax
import pytest

from mpt_jax.files import schema
from mpt_jax.runtime import provenance


def test_versions_device_and_revision_are_recorded():
    device = {"platform": "cpu", "kind": "cpu", "count": 1}
    found = provenance.provenance(device)
    assert found.keys() == {"versions", "device", "settings", "git_revision"} and found["device"] == device
    assert not schema.fault(json.loads(json.dumps(found)), provenance.PROVENANCE)
    assert {"mpt_jax", "python", *provenance.PACKAGES} == found["versions"].keys()


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("", ""),
        ("--xla_force_host_platform_device_count=8 --xla_dump_to=/tmp/x", ""),
        ("--xla_b --xla_a=1  --xla_a=2", "--xla_a=2 --xla_b"),
        ("--xla_cpu_enable_fast_math=true --xla_dump_hlo_as_text", "--xla_cpu_enable_fast_math=true"),
    ],
)
def test_flags_that_change_numbers_are_settings_in_any_order(tmp_path, monkeypatch, flags, expected):
    monkeypatch.setenv("XLA_FLAGS", flags)
    assert provenance.settings()["XLA_FLAGS"] == expected
    (tmp_path / "flags").write_text(flags.replace(" ", "\n"))
    monkeypatch.setenv("XLA_FLAGS", str(tmp_path / "flags"))  # XLA reads a file that has this name
    assert provenance.settings()["XLA_FLAGS"] == expected


def test_every_setting_of_jax_that_changes_numbers_is_one():
    before = provenance.settings()
    assert {name for name in provenance._JAX if name not in jax.config.values} == set()
    for name, value in (
        ("jax_enable_x64", True),
        ("jax_default_prng_impl", "rbg"),
        ("jax_threefry_partitionable", False),
    ):
        old = jax.config.values[name]
        jax.config.update(name, value)
        try:
            after = provenance.settings()
        finally:
            jax.config.update(name, old)
        assert {key for key in before if before[key] != after[key]} == {name} and after[name] == value
    assert provenance.settings() == before


def test_changed_code_makes_the_revision_dirty_and_changed_results_do_not(tmp_path, monkeypatch):
    def git(*words):
        command = ["git", "-c", "user.name=A", "-c", "user.email=a@example.org", *words]
        return subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True).stdout.strip()

    code, results = tmp_path / "package/runtime/provenance.py", tmp_path / "results.json"
    code.parent.mkdir(parents=True)
    monkeypatch.setattr(provenance, "__file__", str(code))
    assert provenance._git_revision.__wrapped__() is None
    for path in (code, results):
        path.write_text("1")
    git("init", "-q")
    assert provenance._git_revision.__wrapped__() is None  # nothing is committed yet
    git("add", ".")
    git("commit", "-qm", "x")
    head = git("rev-parse", "HEAD")
    assert provenance._git_revision.__wrapped__() == head
    results.write_text("2")
    assert provenance._git_revision.__wrapped__() == head
    code.write_text("2")
    assert provenance._git_revision.__wrapped__() == f"{head}-dirty"
