"""TfdsExampleGen: a prepared TFDS dataset as TFX's Examples, one shard of a split per work item of Beam.

Imports `components.datasets`. Start with `executor`.
"""
