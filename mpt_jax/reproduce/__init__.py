"""Named tables of experiments: run, collected into `results/`, and set into `REPRODUCIBILITY.md`.

`tables.py` says what is run, `results.py` what is kept of a run and what it adds up to, `plots.py` and `page.py` how it
looks; `__main__.py` is the command.
"""
