"""The Transform step: `preprocessing_fn`, the one place where pixels are normalized, for training and serving alike.

Imports `components.settings` and `contract`. `images` makes pixels of files as people have them, before that.
"""
