"""Tuner: searches hyperparameters with TFX's Tuner and keras-tuner, each trial a training of `components.trainer`.

Imports `components.trainer` and `components.transform`. Start with `search`; `settings` are what a recipe may say.
"""
