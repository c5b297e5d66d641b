"""Draws reports as HTML pages that need nothing but themselves. No TensorFlow."""
