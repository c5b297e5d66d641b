"""Records of runs: read and written in ML Metadata (`store`, `records`), printed (`views`), reported (`report`).

What a run is, and the one verdict on it, is in `components.report.run`. May import `components`, not the runner; no
TensorFlow, except in `report`, and where `seeds` compares and `tracking` records. Start reading at `store`.
"""
