"""From a TFDS name to arrays on the device: sources, the order of the classes, batches and their augmentation."""

from mpt_jax.data.augment import augment as augment
from mpt_jax.data.classes import class_order as class_order
from mpt_jax.data.sampling import batch_indices as batch_indices
from mpt_jax.data.sampling import epoch_permutation as epoch_permutation
from mpt_jax.data.sampling import steps_per_epoch as steps_per_epoch
from mpt_jax.data.sources import Dataset as Dataset
from mpt_jax.data.sources import Split as Split
from mpt_jax.data.sources import count as count
from mpt_jax.data.sources import load as load
from mpt_jax.data.sources import statistics as statistics
