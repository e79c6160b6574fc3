"""An update from the old model to the released students: what is trained, in which order, and what each stage writes.

- `lineage` lists the populations and the releases they make.
- `preparation` reads and checks everything before anything is written, and returns a `run.Run`. Old models that this
  package did not train come from `external_model` and `precomputed_logits`.
- `planning` describes what will be done.
- `stages` trains what is missing: `stage_inputs` collects what a population learns from, `stage_metrics` records its
  values, `selection` chooses numbers on validation images, `derivation` computes the derived methods,
  and `releases` writes models, cards and predictions.
- `chain` checks that each file of the work directory is the one that belongs there; `verification` checks all of them.
  Both read what a run records of itself by `records`.
- `workdir` has the layout of the work directory, `lock` keeps other processes out of it, `gallery` and `loggers` write
  thumbnails and TensorBoard events to it.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mpt_jax.update.planning import plan as plan
    from mpt_jax.update.preparation import prepare as prepare
    from mpt_jax.update.run import Run as Run
    from mpt_jax.update.stages import execute as execute

_MODULES = {"plan": "planning", "prepare": "preparation", "Run": "run", "execute": "stages"}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: `chain` and `verification` need no JAX."""
    if name in _MODULES:
        return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
