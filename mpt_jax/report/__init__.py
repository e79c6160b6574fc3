"""The result of a run: `report.json` (a contract), `report.md`, `report.html`, and the table on the terminal.

It reads only what the run wrote: `config.json`, cards, predictions and thumbnails. `build` collects the numbers
(`flips`, `comparison`). `contents` puts them into sections (`verdict`, `tradeoff`) of `blocks`, and `plots` draws them
in the style of `drawing`. `markdown` and `page` render the blocks.
"""

from mpt_jax.report.build import build as build
from mpt_jax.report.build import write as write
from mpt_jax.report.table import legend as legend
from mpt_jax.report.table import terminal as terminal
