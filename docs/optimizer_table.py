"""Write the table of `docs/optimizers.md` from optax: `python docs/optimizer_table.py`."""

import pathlib

from mpt_jax.config.optimizers import OPTIMIZERS, options

PAGE = pathlib.Path(__file__).with_name("optimizers.md")
START, END = "<!-- optimizers -->\n\n", "\n\n<!-- end of optimizers -->"


def table() -> str:
    """Return every optimizer with its options and their defaults, as markdown.

    Examples:
      >>> [line for line in table().splitlines() if line.startswith("| `sgd`")]
      ['| `sgd` | `nesterov=False`, `accumulator_dtype=None` | added to the gradient |']
    """
    lines = ["| `optimizer.name` | `optimizer.options` with their defaults | weight decay |", "|---|---|---|"]
    for name, row in OPTIMIZERS.items():
        given = ", ".join(f"`{option}={_shown(default)}`" for option, default in options(name).items())
        lines.append(f"| `{name}` | {given} | {'its own' if row.decay else 'added to the gradient'} |")
    return "\n".join(lines)


def page() -> str:
    """Return `docs/optimizers.md` with the table of optax."""
    before, rest = PAGE.read_text("utf-8").split(START)
    return f"{before}{START}{table()}{END}{rest.split(END)[1]}"


def _shown(default: object) -> object:
    return default.__name__ if isinstance(default, type) else default


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
