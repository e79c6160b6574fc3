"""Train a population: its state, its step, the loop over the steps, and predictions of what was trained."""

from mpt_jax.training.loop import fit as fit
from mpt_jax.training.population import Inputs as Inputs
from mpt_jax.training.population import Recipe as Recipe
from mpt_jax.training.population import TrainState as TrainState
from mpt_jax.training.population import frozen as frozen
from mpt_jax.training.population import init_state as init_state
from mpt_jax.training.population import input_specs as input_specs
from mpt_jax.training.population import learning_rate as learning_rate
from mpt_jax.training.population import members_at_once as members_at_once
from mpt_jax.training.population import mesh_of as mesh_of
from mpt_jax.training.population import new_state as new_state
from mpt_jax.training.population import no_sums as no_sums
from mpt_jax.training.population import optimizer as optimizer
from mpt_jax.training.population import place as place
from mpt_jax.training.population import train_step as train_step
from mpt_jax.training.population import train_steps as train_steps
from mpt_jax.training.population import within_memory as within_memory
