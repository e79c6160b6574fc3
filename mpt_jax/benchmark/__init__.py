"""How fast the train step is, alone and as a population: `python -m mpt_jax.benchmark step|population|table|device`;
and what it would do elsewhere: `scaling`, and `step --memory`.

Everything that is compared is measured in the same process run, in rounds that alternate, so that a noisy machine hits
all of it alike; of the rounds the median counts.
"""
