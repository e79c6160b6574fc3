"""The lineage of releases: old model -> independently trained new model -> updated students, and what each wrote.

`lineage` says which populations make which releases, `preparation` reads and checks everything before anything is
written, `planning` says what will be done, `stages` trains what is missing, `derivation` makes the rows that need no
training of their own, `selection` is the choice of numbers on validation images, and `releases` is where models, cards
and predictions are written.
"""

from mpt_jax.update.context import Run as Run
from mpt_jax.update.planning import plan as plan
from mpt_jax.update.preparation import prepare as prepare
from mpt_jax.update.stages import execute as execute
