"""Runs a compiled pipeline on this machine, task by task, as a cluster would. Start with `run`."""
