"""All tables at a glance: a row per table and scenario, and what the methods gain there at equal accuracy."""

from collections.abc import Mapping, Sequence
from typing import Any

from mpt_jax.reproduce import cells
from mpt_jax.reproduce.results import BASELINE
from mpt_jax.reproduce.summary import choose, summarize
from mpt_jax.reproduce.table_page import as_trained

# The columns: a method, and its b where it has one; "auto" is chosen on validation images.
_COMPARED = (
    *(("pct_kl", ""), ("mpt_kl", "0"), ("mpt_kl", "1"), ("mpt_kl", "4"), ("mpt_kl", "auto"), ("mpt_lm", "1")),
    ("balanced_softmax", ""),
)
_TEXT = """\
# All tables at a glance

- *Accuracy* and *flips* are those of the baseline, `no_treatment`.
- The columns of methods show the change of negative flips at equal accuracy. **Bold**: p < 0.05, not corrected for the
  number of comparisons. With one seed there is no p.
- `independent` is the training of `no_treatment` with other random numbers: its change is chance.
- *Chosen on validation, as trained*: negative flips and points of accuracy against `no_treatment`, without a correction
  to equal accuracy. `-`: the validation images do not single out one row.

[How to read the tables](reading.md) has the definitions."""


def render(tables: Sequence[Mapping[str, Any]]) -> str:
    """Render the page of all tables: what the methods gain at equal accuracy, and which one was chosen."""
    columns = [f"`{method}`" + f", b = {b}" * bool(b) for method, b in _COMPARED]
    headings = ["table", "seeds", "accuracy", "flips", "`independent`", *columns, "chosen on validation, as trained"]
    lines = []
    for table in tables:
        chosen = choose(table["runs"])
        for scenario, methods in summarize(table["runs"]).items():
            protocol = next(run["protocol"] for run in table["runs"] if run["scenario"] == scenario)
            base = methods.get(BASELINE, {})
            # If the students start from the old model, `independent` is not the same training: it starts from scratch.
            same = methods.get("independent") if protocol["start"] == "random" else None
            compared = [same, *(_with_bias(methods, method, b, protocol["bias"]) for method, b in _COMPARED)]
            changes = [cells.tested_change((found or {}).get("equal")) for found in compared]
            name = f"[`{table['table']}`]({table['table']}-{table['budget']}.md)"
            name += f" ({table['budget']})" * (table["budget"] != "cpu") + f", {scenario}" * bool(scenario)
            rates = [f"{100 * base[key]['mean']:.1f}" if key in base else "-" for key in ("accuracy", "nfr")]
            best = chosen[scenario][0] if len(chosen[scenario]) == 1 else ""
            against = as_trained(methods, best)
            verdict = f"`{best}`: {', '.join(against)}" if against else "-"
            lines.append([name, str(base.get("seeds", "-")), *rates, *changes, verdict])
    return f"{_TEXT}\n\n{cells.table(headings, lines)}\n"


def _with_bias(methods: Mapping[str, Any], method: str, b: str, usual: str) -> Mapping[str, Any] | None:
    """Return the row of a method at this b: the row that names it, or the plain one if the run's own b is the same."""
    named = methods.get(f"{method}@bias={b}")
    return named or (methods.get(method) if b in ("", usual) else None)
