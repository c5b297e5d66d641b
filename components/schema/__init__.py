"""What a dataset's curated schema should say: proposed from its statistics, compared with the one there is.

Imports `contract`; no component. There is one module.
"""
