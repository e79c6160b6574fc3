"""The result of a run: `report.json` (a contract), `report.md`, and the table on the terminal.

Reads only what the run wrote: `config.json` and the cards of its releases.
"""

from mpt_jax.report.build import build as build
from mpt_jax.report.build import write as write
from mpt_jax.report.table import legend as legend
from mpt_jax.report.table import terminal as terminal
