"""What every part of the project relies on: the names in Examples and models, versions on disk, errors and exit codes.

Imports none of the other packages, and nothing that takes long. Start with `names`, then `versions`.
"""
