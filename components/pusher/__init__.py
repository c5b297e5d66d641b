"""The last gate: what goes live. Imports no TensorFlow."""
