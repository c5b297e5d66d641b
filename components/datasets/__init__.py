"""Getting the datasets: fetched, verified against published sums, and prepared as TFDS datasets.

Imports `contract` alone; no component. Start with `prepare`; what is prepared is described in `prepared`.
"""
