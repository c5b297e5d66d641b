"""Vertex AI and Kubeflow Pipelines: the same pipeline compiled, checked, tried here, submitted and scheduled.

Imports the definition in `pipeline` and `components`, nothing that runs a pipeline on this machine. Start with
`compile`; `entrypoint` is what runs in every container.
"""
