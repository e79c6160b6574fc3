"""Reading and writing of prediction files, without JAX.

`formats` opens csv, parquet, jsonl and npz files as streams of columns, and `columns` finds ids and scores in them.
`writer` writes the files of `mpt_jax.predict`; `released` has the files of a run's released models.
"""
