"""The subcommands of `mnist-tfx`, a module each: options, and words; the work is elsewhere.

May import everything, and TensorFlow only when it runs. Start with `run`.
"""
