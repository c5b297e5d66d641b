"""What runs, in which order: the DAG, recipes and settings; around them all that runs it here and tells of it.

Imports `components`; only `pipeline.commands` imports `kubeflow`. Start with `dag`; what a command does, with `cli` and
`commands`.
"""
