"""Tables of experiments: trained by one command, kept in `results/` and shown in `REPRODUCIBILITY.md`.

`tables` defines what is run, `collection` reads a finished run, `results` keeps the numbers, `summary` computes the
statistics, `plots`, `readme_figure` and `page` show them; `__main__` is the command.
"""
