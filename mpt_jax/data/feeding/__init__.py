"""Images for the train steps: sampling, augmentation, and streams that are decoded ahead of time."""
