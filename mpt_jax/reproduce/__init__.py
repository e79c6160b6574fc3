"""Tables of experiments: trained by one command, kept in `results/` and shown in `REPRODUCIBILITY.md`.

`tables` defines what is run, `collection` reads a finished run, `results` keeps the numbers, `summary` computes the
statistics. `plots`, `readme_figure` and `summary_figure` draw them. `page` writes all pages: the first one itself,
`table_page` that of a table, `overview` that of all tables, with the `cells` of Markdown tables. `__main__` is the
command.
"""
