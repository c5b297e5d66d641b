"""Batch prediction: an exported model over many images, in Beam, into Parquet files; a stopped one goes on.

Imports `components.datasets`, `live` and `contract`. Start with `predict`; what there is to read is
decided in `inputs`.
"""
