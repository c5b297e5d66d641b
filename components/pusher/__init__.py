"""Pusher: puts a model with both blessings where servers find it, whole or not at all.

Imports `components.live` and `components.monitoring.reference`. Start with `executor`; `publish` is how a version goes
live, and how the Report, which comes later, puts the model card into it.
"""
