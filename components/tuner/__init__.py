"""Searches hyperparameters with TFX's Tuner and keras-tuner."""
