"""The model server, the gRPC client, releases, a demo, and the deployment on GPU nodes.

Imports `contract`; `client` imports nothing of ours. Start with README.md.
"""
