"""The Trainer: from Examples and the Transform graph to an exported SavedModel. Start with `run_fn`, which TFX calls.

Imports `components.transform`, `live`, `evaluator.quality`, and what a search or a range test finds.
"""
