"""Draws reports as HTML pages that need nothing but themselves. No TensorFlow.

Imports what a report holds (`components.report.content`). Start with `render`; `drawing` is how charts are made.
"""
