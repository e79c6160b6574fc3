"""From a name to arrays on the device: sources, the order of the classes, memory, batches and their augmentation."""

from mpt_jax.data.augment import augment as augment
from mpt_jax.data.classes import class_order as class_order
from mpt_jax.data.findings import POLICIES as POLICIES
from mpt_jax.data.findings import Finding as Finding
from mpt_jax.data.memory import Policy as Policy
from mpt_jax.data.memory import herding as herding
from mpt_jax.data.memory import kept_counts as kept_counts
from mpt_jax.data.memory import parse_policy as parse_policy
from mpt_jax.data.memory import remember as remember
from mpt_jax.data.sampling import batch_indices as batch_indices
from mpt_jax.data.sampling import epoch_permutation as epoch_permutation
from mpt_jax.data.sampling import steps_per_epoch as steps_per_epoch
from mpt_jax.data.sources import load as load
from mpt_jax.data.sources import statistics as statistics
from mpt_jax.data.splits import Dataset as Dataset
from mpt_jax.data.splits import Split as Split
from mpt_jax.data.splits import class_counts as class_counts
from mpt_jax.data.splits import count as count
from mpt_jax.data.splits import take as take
from mpt_jax.data.subsets import long_tail as long_tail
from mpt_jax.data.subsets import long_tail_counts as long_tail_counts
from mpt_jax.data.subsets import part as part
