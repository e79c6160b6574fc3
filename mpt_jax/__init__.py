"""Updates of image classifiers without negative flips: Margin Preserving Training and its neighbours in JAX."""

__version__ = "0.1.0"
