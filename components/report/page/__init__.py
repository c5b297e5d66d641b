"""Draws reports as HTML pages that need nothing but themselves. No TensorFlow.

Imports what reports hold: `components.report.content`, `evaluator.quality`, `monitoring.watch`. Start with `render`;
`drawing` is how charts are made.
"""
