"""Arguments that several commands share."""

import argparse
import pathlib

import pytest

from mpt_jax.cli import arguments
from mpt_jax.errors import InputError


def test_invalid_arguments_raise_instead_of_exiting():
    parser = arguments.new_parser("it", "")
    parser.add_argument("--batch", type=arguments.positive_int)
    parser.add_argument("--steps", type=arguments.non_negative_int)
    parser.add_argument("--on", type=arguments.comma_separated)
    parsed = parser.parse_args(["--batch=3", "--steps=0", "--on=cpu,tpu"])
    assert parsed == argparse.Namespace(batch=3, steps=0, on=("cpu", "tpu"))
    for option in ("batch", "steps"):
        for invalid in ("0" if option == "batch" else "-0", "-1", "1.5", "", "x", "9" * 5000, "\u0663"):
            with pytest.raises(InputError, match=r"python -m it --help"):
                parser.parse_args([f"--{option}={invalid}"])
    with pytest.raises(InputError, match="at least one"):
        parser.parse_args(["--on=,"])
    with pytest.raises(InputError, match=r"--bat=3.*python -m it --help"):
        parser.parse_args(["--bat=3"])  # no abbreviations


@pytest.mark.parametrize("name", arguments.SHARED)
def test_shared_arguments_are_valid_for_argparse(name):
    assert name in arguments.new_parser("it", "", shared=[name]).format_help() or name == "release"


def test_an_impossible_output_file_is_found_before_any_work(tmp_path):
    assert arguments.output_file("--output", tmp_path / "a.csv") == tmp_path / "a.csv"
    (tmp_path / "file").write_text("")
    for path, what in (
        (tmp_path, "is a folder"),
        (tmp_path / "no/a.csv", "does not exist"),
        (tmp_path / "file/a.csv", "does not exist"),
        (pathlib.Path("gs://bucket/a.csv"), "is in a bucket"),
    ):
        with pytest.raises(InputError, match=f"--output .*{what}; expected a file in an existing, writable folder"):
            arguments.output_file("--output", path)
