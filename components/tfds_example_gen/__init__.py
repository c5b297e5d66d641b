"""TfdsExampleGen: a prepared TFDS dataset as TFX's Examples, one shard of a split per work item of Beam.

Imports `components.datasets`, `transform.images`, what the components share and `contract`. Start with `executor`.
"""
