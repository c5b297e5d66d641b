"""Getting the datasets: fetched, verified against published sums, and prepared as TFDS datasets.

Imports what the components share and `contract`, and in `images`, of the steps, `components.transform.images`. Start
with `prepare`; what is prepared is described in `prepared`.
"""
