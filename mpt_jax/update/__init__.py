"""An update from the old model to the released students: what is trained, in which order, and what each stage writes.

`lineage` lists the populations and the releases they make. `preparation` reads and checks everything before anything is
written, into a `run.Run`. `planning` describes what will be done. `stages` trains what is missing: `stage_inputs`
collects what a population learns from, `selection` chooses numbers on validation images, `derivation` makes the methods
without a training of their own, and `releases` writes models, cards and predictions.
"""

from mpt_jax.update.planning import plan as plan
from mpt_jax.update.preparation import prepare as prepare
from mpt_jax.update.run import Run as Run
from mpt_jax.update.stages import execute as execute
