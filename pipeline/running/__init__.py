"""Running a pipeline on this machine: the home of all state, the runner, what is shown meanwhile, how it is stopped.

Imports `components` and `pipeline.dag`; no command. Start with `local_runner`.
"""
