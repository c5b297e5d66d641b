"""Side-by-side measurements. Each is one command, run from the checkout: `.venv/bin/python -m benchmarks.pipeline`."""
