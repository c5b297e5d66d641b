"""The Trainer: from Examples and the Transform graph to an exported SavedModel. Start with `run_fn`, which TFX calls.

Imports `components.transform` and what the components share, no other component.
"""
