"""The workflow that users copy: linters accept it, and its scripts do what they should, with a script as `gh`."""

import json
import os
import pathlib
import shlex
import shutil
import subprocess
import sys
import sysconfig

import pytest
import yaml

from mpt_jax.compare.__main__ import parse

ROOT = pathlib.Path(__file__).resolve().parents[1]
PATH = ROOT / "docs/github_actions/gate.yml"
WORKFLOW = yaml.safe_load(PATH.read_text(encoding="utf-8"))
SCRIPTS = {step["name"]: step["run"] for job in WORKFLOW["jobs"].values() for step in job["steps"] if "run" in step}
# Answers the question for comments with what is in the file `comments`, filtered by jq as `gh` does, and logs the rest.
GH = """#!/usr/bin/env bash
case "$*" in
  *--jq*) echo "$*" >> asked; cat comments ;;
  *) echo "$*" >> done ;;
esac
"""


LINTERS = {
    "check-jsonschema": ["--builtin-schema", "vendor.github-workflows"],
    "zizmor": ["--offline", "--no-progress", "--persona=pedantic"],
}


def lint(name, path):
    line = [tool(name), *LINTERS[name], str(path)]
    return subprocess.run(line, capture_output=True, text=True, timeout=100)


def tool(name):
    return shutil.which(name, path=f"{sysconfig.get_path('scripts')}{os.pathsep}{os.environ['PATH']}")


@pytest.mark.parametrize("name", LINTERS)
def test_linters_accept_the_workflow(name):
    done = lint(name, PATH)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("check-jsonschema", "runs-on:", "runs_on:"),
        ("zizmor", "permissions: {}", "permissions: write-all"),
        ("zizmor", '"$OLD"', "${{ github.event.pull_request.title }}"),
        ("zizmor", "@df4cb1c069e1874edd31b4311f1884172cec0e10", "@v6"),
    ],
)
def test_linters_find_a_mistake(name, before, after, tmp_path):
    path = tmp_path / ".github/workflows/gate.yml"
    path.parent.mkdir(parents=True)
    path.write_text(PATH.read_text(encoding="utf-8").replace(before, after))
    assert lint(name, path).returncode != 0


@pytest.mark.parametrize("name", SCRIPTS)
def test_its_scripts_pass_shellcheck(name):
    line = [tool("shellcheck"), "--shell=bash", "-"]
    done = subprocess.run(line, input=SCRIPTS[name], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stdout


def run(name, folder, **variables):
    environment = os.environ | {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"} | variables
    line = ["bash", "-e", "-c", SCRIPTS[name]]
    return subprocess.run(line, cwd=folder, env=environment, capture_output=True, text=True, timeout=100)


def test_it_compares_and_keeps_what_the_comment_needs(tmp_path):
    variables = next(step for step in WORKFLOW["jobs"]["gate"]["steps"] if step.get("name") == "Compare")["env"]
    (tmp_path / "predictions").mkdir()
    for path in variables.values():
        (tmp_path / path).write_text("id,label,prediction\n1,cat,cat\n2,dog,dog\n")
    (tmp_path / "python").write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n')
    (tmp_path / "python").chmod(0o755)
    done = run("Compare", tmp_path, PYTHONPATH=str(ROOT), **variables)
    assert done.returncode in (0, 1) and "within" in done.stdout, done.stderr
    assert {"gate.md", "gate.html", "gate.json", "gate.xml"} <= {path.name for path in tmp_path.iterdir()}
    summary = tmp_path / "summary"
    assert run("Write the job summary", tmp_path, GITHUB_STEP_SUMMARY=str(summary)).returncode == 0
    assert summary.read_text() == (tmp_path / "gate.md").read_text()


@pytest.mark.parametrize(
    ("comments", "expected"),
    [("", "--method POST repos/a/b/issues/7/comments"), ("5\n12\n", "--method PATCH repos/a/b/issues/comments/12")],
)
@pytest.mark.parametrize("result", ["### ✅ Release gate: PASS\n", None])
def test_it_keeps_one_comment(comments, expected, result, tmp_path):
    (tmp_path / "gh").write_text(GH)
    (tmp_path / "gh").chmod(0o755)
    (tmp_path / "comments").write_text(comments)
    if result:
        (tmp_path / "gate.md").write_text(result)
    variables = {"COMMENTS": "repos/a/b/issues/7/comments", "COMMIT": "c0ffee", "RUN": "https://github.com/a/b/1"}
    done = run("Write or update the comment", tmp_path, GH_TOKEN="", **variables)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "done").read_text() == f"api --silent {expected} --field body=@comment.md\n"
    comment = (tmp_path / "comment.md").read_text()
    marker, rest = comment.split("\n", 1)
    assert rest.startswith(result or "### ❌ Release gate: it did not run\n") and "c0ffee" in rest
    asked = (tmp_path / "asked").read_text()
    assert marker in asked and 'user.login == "github-actions[bot]"' in asked


@pytest.mark.skipif(not shutil.which("jq"), reason="jq, which is part of gh, is not installed by itself")
def test_it_finds_only_its_own_comment(tmp_path):
    (tmp_path / "gh").write_text('#!/usr/bin/env bash\nif [ "$4" = --jq ]; then jq -r "$5" comments; fi\n')
    (tmp_path / "gh").chmod(0o755)
    marker = "<!-- mpt_jax release gate -->\n"
    bodies = [("github-actions[bot]", "hello"), ("mallory", marker), ("github-actions[bot]", marker + "old")]
    comments = [{"id": i, "user": {"login": login}, "body": body} for i, (login, body) in enumerate(bodies)]
    (tmp_path / "comments").write_text(json.dumps(comments))
    script = SCRIPTS["Write or update the comment"] + '\necho "id=$id"\n'
    line = ["bash", "-e", "-c", script]
    environment = os.environ | {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}", "COMMENTS": "x"}
    done = subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=100)
    assert done.stdout.endswith("id=2\n"), done.stderr


def test_only_the_comment_may_write_and_it_runs_no_code_of_the_pull_request():
    assert WORKFLOW["permissions"] == {}
    jobs = WORKFLOW["jobs"]
    assert {name: job["permissions"] for name, job in jobs.items()} == {
        "gate": {"contents": "read"},
        "comment": {"pull-requests": "write"},
    }
    assert not [step for step in jobs["comment"]["steps"] if "checkout" in step.get("uses", "")]
    assert "pull_request_target" not in PATH.read_text()


def test_the_command_has_the_options_that_the_workflow_gives():
    words = SCRIPTS["Compare"].replace('"', "").split()
    given = parse(words[words.index("mpt_jax.compare") + 1 :])
    assert given.markdown == "gate.md" and given.junit == "gate.xml"
