"""Files that a run writes and reads: storage, checkpoints and releases, prediction files, the cache folder."""
