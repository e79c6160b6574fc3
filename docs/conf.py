"""The documentation: `sphinx-build -W -b html docs DIR`."""

from mpt_jax import __version__

project = "mpt_jax"
copyright = "The mpt_jax authors"
version = release = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "furo"
exclude_patterns = ["_build"]
autodoc_typehints = "none"  # signatures have them
autodoc_member_order = "bysource"
myst_heading_anchors = 3
html_static_path = ["_static"]
html_css_files = ["tables.css"]
