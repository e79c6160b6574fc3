"""Files that a run writes and reads: local or in a bucket, checkpoints, released models, predictions, the cache."""
