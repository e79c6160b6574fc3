"""Batches for the device: sampling, augmentation, streams decoded ahead of the step."""
