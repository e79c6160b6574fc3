"""Measurements of the train step: `python -m mpt_jax.benchmark step|population|table|device|input|network`.

`scaling` and `step --memory` predict from the compiled program without running it.

Everything that is compared is measured in one process, in alternating rounds, so that noise on the machine affects all
of it alike. The median of the rounds is reported.
"""
