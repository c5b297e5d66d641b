"""Which version of a model answers: rollback, canary and promotion, on the folder that a server watches.

Only files are written. The folders `<serving>/<model>/<version>/` and the file `<serving>/models.config` are the state;
TF Serving and `mnist-tfx serve` follow both at their next poll. Nothing here imports TensorFlow.
"""
