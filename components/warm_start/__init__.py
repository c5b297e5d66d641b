"""WarmStart: the served model whose weights a training on new data begins with, copied into the run.

Imports `components.live`. Start with `executor`; what the Trainer makes of it is in `trainer.warm_start`.
"""
