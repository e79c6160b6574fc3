"""What a run records of itself is read and named without JAX."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from workdirs import make_workdir

from mpt_jax.errors import InputError
from mpt_jax.files import sealed
from mpt_jax.update import records, workdir

ROOT = Path(__file__).resolve().parents[2]


def test_the_identity_of_a_run_depends_on_its_data_and_on_what_may_not_change(tmp_path):
    facts = records.read_facts(make_workdir(tmp_path))

    def identity(contents=None, **changes):
        config = facts["config"]
        sections = {
            name: {**config[name], **value} if isinstance(value, dict) else value for name, value in changes.items()
        }
        return records.identity({**facts, "config": {**config, **sections}, "contents": contents or {}})

    same = identity()
    assert same == records.identity(facts) == workdir.identity(facts)
    assert same == identity(training={"cores": 3}, mesh={"data": 2}, dataset={"workers": 9, "data_dir": "/elsewhere"})
    others = [
        *[identity(seeds=[5]), identity(optimizer={"epochs": 2}), identity(dataset={"name": "other"})],
        *[identity({"test images": "a"}), identity({"test images": "b"}), identity(update={"schedule": [1, 3]})],
    ]
    assert len({same, *others}) == 1 + len(others)


def test_a_class_map_may_have_numbers_for_names(tmp_path):
    """A name that is a number in a config in Python is text in `config.json`, where the identity must be the same."""
    facts = records.read_facts(make_workdir(tmp_path))

    def identity(class_map):
        config = facts["config"] | {"update": {**facts["config"]["update"], "class_map": class_map}}
        return records.identity({**facts, "config": config})

    assert identity({"rename": {3: "three"}}) == identity({"rename": {"3": "three"}}) != identity({"rename": {}})


@pytest.mark.parametrize("key", ["config", "images", "command", "versions", "device"])
def test_a_key_that_is_missing_is_named(tmp_path, key):
    path = make_workdir(tmp_path) / "config.json"
    facts = json.loads(path.read_text())
    del facts[key]
    path.write_text(json.dumps(sealed.sealed(facts)))
    with pytest.raises(InputError, match=rf"config\.json is damaged: it has no {key}; restore it from a copy"):
        records.read_facts(tmp_path)


def test_it_needs_no_jax(tmp_path):
    make_workdir(tmp_path)
    code = (
        "import sys; sys.modules['jax'] = None; from pathlib import Path; from mpt_jax.update import records\n"
        "print(records.identity(records.read_facts(Path(sys.argv[1]))))"
    )
    line = [sys.executable, "-c", code, str(tmp_path)]
    printed = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert printed.strip() == records.identity(workdir.read_facts(tmp_path))
