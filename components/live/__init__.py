"""What is live: the served versions of a model, and the driver by which it enters the keys of TFX's cache.

Baseline, WarmStart, DataGate and Pusher share it. Start with `model`; `metadata` is what a model says of itself.
"""
