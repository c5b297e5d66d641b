"""Baseline: the model that a candidate must not fall behind, copied into the run so that its lineage stays whole.

Imports `components.live`. Start with `executor`.
"""
