"""Every kind of input is compared with the right counts, or refused in one line with the words that the page has."""

import gate_inputs
import pytest

from mpt_jax.compare import compare
from mpt_jax.errors import InputError

KINDS = [pytest.param(kind, id=f"{group}-{kind.name}") for group, kinds in gate_inputs.GROUPS.items() for kind in kinds]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings("ignore")  # of the packages that make the tables
def test_a_kind_of_input_is_compared_or_refused(kind, tmp_path):
    try:
        old, new = kind.old(tmp_path), kind.new(tmp_path)
    except ModuleNotFoundError as error:
        pytest.skip(str(error))
    if kind.refused:
        with pytest.raises(InputError) as error:
            compare(old, new, **kind.options)
        message = str(error.value)
        name = old if isinstance(old, str | tmp_path.__class__) else message.partition(" of ")[2].partition(" with ")[0]
        for part in kind.refused.split("{old}"):
            assert part in message, (name, message)
        assert "\n" not in message
        return
    found = compare(old, new, allow_poor_old=True, **kind.options)
    rates = found["all_rows"]
    assert (rates["count"], rates["negative_flips"], rates["positive_flips"]) == kind.counts
    left_out = found["left_out"].get("rows without a label", 0)
    assert left_out + rates["count"] == len(gate_inputs.IDS) == found["inputs"][0]["rows"]


def test_there_are_many_kinds_each_once():
    names = [(group, kind.name) for group, kinds in gate_inputs.GROUPS.items() for kind in kinds]
    assert len(names) >= 80 and len(set(names)) == len(names)


def test_the_page_is_that_of_the_data():
    assert gate_inputs.PAGE.read_text("utf-8") == gate_inputs.page(), "run python docs/gate_inputs.py"
