"""The files of results."""

import pytest

from mpt_jax.errors import InputError
from mpt_jax.reproduce import results


def test_new_runs_replace_those_that_share_a_seed_of_their_scenario():
    run = lambda scenario, *seeds: {"scenario": scenario, "seeds": list(seeds)}  # noqa: E731
    standing = [run("a", 0, 1), run("b", 0, 1), run("a", 2)]
    done = [run("a", 1)]
    assert results.join(standing, done) == [run("b", 0, 1), run("a", 1), run("a", 2)]
    assert results.join(standing, []) == standing
    assert results.join([], done) == done


def test_other_files_are_refused(tmp_path):
    for text in ("", "[]", '{"schema": 0, "runs": []}', '{"schema": 2, "runs": 3}'):
        (tmp_path / "x.json").write_text(text)
        with pytest.raises(InputError, match="no result of this version"):
            results.read(tmp_path / "x.json")
