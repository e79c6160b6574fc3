"""A folder appears complete or not at all."""

import pytest

from mpt_jax.errors import InputError
from mpt_jax.export import output


def test_a_folder_appears_when_it_is_complete_and_is_new(tmp_path):
    folder = tmp_path / "out"
    with output.complete(folder) as unfinished:
        (unfinished / "a").write_text("a")
        assert not folder.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["out"] and (folder / "a").read_text() == "a"
    assert output.digest(folder / "a").startswith("ca978112ca1bbdca")  # the published SHA-256 of "a"
    with pytest.raises(InputError, match="is not empty"):
        output.require_new(folder)


def test_after_an_error_nothing_is_left(tmp_path):
    with pytest.raises(ZeroDivisionError), output.complete(tmp_path / "out") as unfinished:
        (unfinished / "a").write_text(str(1 / 0))
    assert not list(tmp_path.iterdir())
    with pytest.raises(InputError, match="create it first"):
        output.require_new(tmp_path / "no" / "out")


def test_a_missing_package_has_a_remedy():
    with pytest.raises(InputError, match=r"export needs no_such; install it: pip install 'mpt_jax\[export\]'"):
        output.package("no_such.module")
