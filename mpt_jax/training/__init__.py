"""Training of a population, and its parts for your own training loop.

`fit` trains a stage with checkpoints. In your own loop, call `train_steps` for a whole population, or `train_step` for
one member and one batch.
"""

from mpt_jax.training.batches import Batch as Batch
from mpt_jax.training.device_memory import fastest_members_at_once as fastest_members_at_once
from mpt_jax.training.device_memory import limit_members as limit_members
from mpt_jax.training.loop import fit as fit
from mpt_jax.training.optimizer import learning_rate as learning_rate
from mpt_jax.training.optimizer import make_optimizer as make_optimizer
from mpt_jax.training.population import train_steps as train_steps
from mpt_jax.training.recipe import Recipe as Recipe
from mpt_jax.training.sharding import choose_mesh as choose_mesh
from mpt_jax.training.sharding import run_mesh as run_mesh
from mpt_jax.training.state import Inputs as Inputs
from mpt_jax.training.state import TrainState as TrainState
from mpt_jax.training.state import init_state as init_state
from mpt_jax.training.state import input_specs as input_specs
from mpt_jax.training.state import new_state as new_state
from mpt_jax.training.state import place as place
from mpt_jax.training.state import zero_sums as zero_sums
from mpt_jax.training.step import SeedFacts as SeedFacts
from mpt_jax.training.step import train_step as train_step
from mpt_jax.training.teachers import freeze as freeze
