"""Runs and schedules on Vertex AI and Kubeflow Pipelines, by their own clients.

Imports what reads a compiled file, and the platforms' SDKs. Start with `platform`, what both have in common.
"""
