"""The result of a run: `report.json` (a contract), `report.md`, `report.html`, and the table on the terminal.

Reads only what the run wrote: `config.json`, the cards of its releases, their predictions and the thumbnails. `build`
gathers the numbers (`flips`, `comparison`), `contents` says what they mean, `plots` draws them, and `markdown` and
`page` give all that its look.
"""

from mpt_jax.report.build import build as build
from mpt_jax.report.build import write as write
from mpt_jax.report.table import legend as legend
from mpt_jax.report.table import terminal as terminal
