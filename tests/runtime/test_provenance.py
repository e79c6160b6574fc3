"""The git revision shows whether the code was changed."""

import subprocess

from mpt_jax.runtime import provenance


def test_versions_device_and_revision_are_recorded():
    found = provenance.provenance({"platform": "cpu"})
    assert found.keys() == {"versions", "device", "git_revision"} and found["device"] == {"platform": "cpu"}
    assert {"mpt_jax", "python", *provenance.PACKAGES} == found["versions"].keys()


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
