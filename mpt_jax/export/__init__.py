"""Export of a released model for use without this package: `python -m mpt_jax.export`."""
