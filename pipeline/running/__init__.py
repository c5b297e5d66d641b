"""Running a pipeline on this machine: the runner, what is shown meanwhile, how it is stopped.

Imports `components`, `pipeline.runs` and the definition; no command. Start with `local_runner`.
"""
