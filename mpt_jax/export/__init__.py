"""Export a released model as StableHLO and safetensors: `python -m mpt_jax.export`."""
