"""Runs a compiled pipeline on this machine, task by task, in the way of Vertex AI or of Kubeflow's driver and launcher.

Imports what reads a compiled file; is handed all else by its command. Start with `run`; `backends` are the two ways.
"""
