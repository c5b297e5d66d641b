"""The steps of the pipeline, a folder each: the component (its interface), its executor, the work in plain functions.

Imports `contract`, and the client of `serving` to try a server; nothing that runs a pipeline. Start with `settings`,
which all share, or with `trainer`.
"""
