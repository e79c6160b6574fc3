"""Data sets and batches.

- `loading`: from a config section (`dataset_config`) to a data set (`splits`). It reads TFDS (`tfds_source`) or your
  own files (`own`), reports faults (`findings`), orders the classes (`classes`) and draws subsets (`subsets`).
- `images` decodes image files; `normalization` computes their mean and standard deviation; `sequence` takes the images
  of a split one after the other.
- `rehearsal`: the images of old classes that an update may use.
- `feeding`: batches on the device, from memory or as a stream, and their augmentation.
- `examples`: batches for the predictions of a released model.
- `digits` and `photos`: built-in data sets.
"""

from mpt_jax.data.classes import class_order as class_order
from mpt_jax.data.dataset_config import AUGMENTATIONS as AUGMENTATIONS
from mpt_jax.data.dataset_config import COVER as COVER
from mpt_jax.data.dataset_config import INTERPOLATIONS as INTERPOLATIONS
from mpt_jax.data.dataset_config import LINKS as LINKS
from mpt_jax.data.dataset_config import POLICIES as POLICIES
from mpt_jax.data.dataset_config import RANDOM as RANDOM
from mpt_jax.data.dataset_config import SOURCES as SOURCES
from mpt_jax.data.dataset_config import Augmentation as Augmentation
from mpt_jax.data.dataset_config import DatasetConfig as DatasetConfig
from mpt_jax.data.dataset_config import Resizing as Resizing
from mpt_jax.data.feeding.augment import augment as augment
from mpt_jax.data.feeding.feed import Feed as Feed
from mpt_jax.data.feeding.feed import Resident as Resident
from mpt_jax.data.feeding.feed import Window as Window
from mpt_jax.data.feeding.feed import local_part as local_part
from mpt_jax.data.feeding.order import Consecutive as Consecutive
from mpt_jax.data.feeding.order import Shuffled as Shuffled
from mpt_jax.data.feeding.sampling import batch_indices as batch_indices
from mpt_jax.data.feeding.sampling import epoch_permutation as epoch_permutation
from mpt_jax.data.feeding.sampling import steps_per_epoch as steps_per_epoch
from mpt_jax.data.feeding.stream import Reader as Reader
from mpt_jax.data.feeding.stream import Stream as Stream
from mpt_jax.data.findings import Finding as Finding
from mpt_jax.data.loading import load as load
from mpt_jax.data.normalization import statistics as statistics
from mpt_jax.data.rehearsal import Policy as Policy
from mpt_jax.data.rehearsal import herding as herding
from mpt_jax.data.rehearsal import kept_counts as kept_counts
from mpt_jax.data.rehearsal import parse_policy as parse_policy
from mpt_jax.data.rehearsal import remember as remember
from mpt_jax.data.splits import PARTS as PARTS
from mpt_jax.data.splits import Dataset as Dataset
from mpt_jax.data.splits import Split as Split
from mpt_jax.data.splits import class_counts as class_counts
from mpt_jax.data.splits import count as count
from mpt_jax.data.splits import take as take
from mpt_jax.data.subsets import long_tail as long_tail
from mpt_jax.data.subsets import long_tail_counts as long_tail_counts
from mpt_jax.data.subsets import part as part
