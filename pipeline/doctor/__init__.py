"""What this machine has and lacks, for `mnist-tfx doctor`: facts in `machine`, verdicts and remedies in `checks`.

Imports no TensorFlow. Start with `checks`.
"""
