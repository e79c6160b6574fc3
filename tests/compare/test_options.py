"""One table of options for the command and for Python."""

import dataclasses

import pytest

from mpt_jax.compare import __main__ as command
from mpt_jax.compare import compare, gate, options
from mpt_jax.compare.options import Options
from mpt_jax.errors import InputError


def test_every_limit_is_checked_and_documented():
    assert set(options.LIMIT_NAMES) == set(gate.LIMITS)
    for each in dataclasses.fields(Options):
        assert f"      {each.name}" in f"{Options.__doc__}{options.Limits.__doc__}".replace("\n    ", "\n      ")


def test_the_command_has_every_option_and_passes_only_those_given():
    assert vars(command.parse(["a", "b", "--max-nfr", "0.1", "--same=x=y"])) == {
        **{"old": "a", "new": "b", "more": [], "max_nfr": 0.1, "same": [("x", "y")]},
        **dict.fromkeys(("policy", "json", "html", "markdown", "junit")),
    }
    with pytest.raises(SystemExit):
        command.parse(["--help"])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"max_nrf": 0.1}, "unknown option 'max_nrf'; did you mean 'max_nfr'"),
        ({"undecided": "maybe"}, "undecided is 'maybe'; expected fail or pass"),
        ({"min_rows": -1}, "min_rows is -1; expected 0 or more"),
        ({"min_rows": 1.5}, "min_rows is 1.5"),
        ({"confident": 1, "max_nfr": 0.1}, "confident is 1; expected true or false"),
        ({"confidence": 95}, "confidence is 95; expected a number between 0 and 1"),
        ({"max_churn": 2}, "max_churn is 2; expected a fraction below 1"),
        ({"max_nfr": True}, "max_nfr is True; expected a fraction"),
        ({"same": ["Cat=cat"]}, "same is \\['Cat=cat'\\]; expected names by name"),
        ({"same": {"Cat": 1}}, "same is {'Cat': 1}; expected names by name"),
        ({"confident": True}, "confident applies to limits, but none is given"),
    ],
)
def test_options_that_are_not_valid(given, message):
    with pytest.raises(InputError, match=message):
        compare({}, {}, **given)


@pytest.mark.parametrize("name", [each.name for each in dataclasses.fields(options.Options)])
@pytest.mark.parametrize("value", [5, -1.5, "x", "", b"x", ["x"], [5], {"x": 5}, {5: "x"}, object(), True])
def test_a_value_of_any_type_is_used_or_refused_in_one_line(name, value):
    table = {"id": [1, 2], "label": ["x", "y"], "prediction": ["x", "y"]}
    try:
        compare(table, table, **{name: value})
    except InputError as error:
        assert name.rstrip("s") in str(error).replace("-", "_") or len(str(error)) > 20
