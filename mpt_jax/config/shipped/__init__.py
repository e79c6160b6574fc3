"""The configs of the repository's folder `configs/`; a wheel has them next to this file."""

import pathlib

_here = pathlib.Path(__file__).resolve().parent
if not (_here / "common.py").is_file():  # in a checkout
    __path__ = [str(_here.parents[2] / "configs")]
