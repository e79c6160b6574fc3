"""The configs of the repository's folder `configs/`; a wheel has the files themselves in place of this module."""

import pathlib

__path__ = [str(pathlib.Path(__file__).resolve().parents[3] / "configs")]
