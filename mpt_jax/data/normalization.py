"""Mean and standard deviation of images or features."""

import numpy as np

from mpt_jax.data.feeding.stream import Stream

STREAM_SAMPLE = 10_000  # images decoded to estimate the statistics of a stream
_CHUNK = 1000  # examples; bounds the temporary copies at 8 bytes per value


def statistics(images: np.ndarray | Stream) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and population standard deviation of each channel in units of pixel/255, or of each feature.

    Sums over pixels are exact integers; sums over features are float64. A constant channel or feature gets a standard
    deviation of 1. Of a stream, at most `STREAM_SAMPLE` evenly spaced images are decoded.

    Args:
      images: ``uint8 [N, H, W, C]``, or features, ``float32 [N, D]``.

    Returns:
      Two arrays, ``float32 [C]`` or ``float32 [D]``.

    Raises:
      ValueError: no images.

    Examples:
      >>> mean, std = statistics(np.array([0, 255], np.uint8).reshape(1, 1, 2, 1))
      >>> float(mean[0]), float(std[0])
      (0.5, 0.5)
      >>> mean, std = statistics(np.array([[1.0, 3.0], [5.0, 3.0]], np.float32))
      >>> mean.tolist(), std.tolist()
      ([3.0, 3.0], [2.0, 1.0])
    """
    if not len(images) or not images.shape[-1]:
        raise ValueError("statistics of no images; expected at least one")
    if isinstance(images, Stream):
        images = np.asarray(images[:: -(-len(images) // STREAM_SAMPLE)])
    return _feature_statistics(images) if images.dtype.kind == "f" else _pixel_statistics(images)


def _pixel_statistics(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    means, stds = [], []
    for channel in range(images.shape[-1]):
        chunks = (images[start : start + _CHUNK, ..., channel] for start in range(0, len(images), _CHUNK))
        counts = [np.bincount(chunk.ravel(), minlength=256) for chunk in chunks]
        histogram = np.sum(counts, axis=0).tolist()
        total = sum(histogram)
        first = sum(number * value for value, number in enumerate(histogram))
        second = sum(number * value * value for value, number in enumerate(histogram))
        means.append(first / total / 255)
        stds.append((total * second - first * first) ** 0.5 / total / 255 or 1.0)
    return np.array(means, np.float32), np.array(stds, np.float32)


def _feature_statistics(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    chunks = [features[start : start + _CHUNK] for start in range(0, len(features), _CHUNK)]
    mean = sum(chunk.sum(0, dtype=np.float64) for chunk in chunks) / len(features)
    std = np.sqrt(sum(np.square(chunk - mean).sum(0) for chunk in chunks) / len(features))
    # XLA may flush subnormal float32 numbers to zero, and the standard deviation is a divisor.
    return mean.astype(np.float32), np.where(std < np.finfo(np.float32).tiny, 1, std).astype(np.float32)
