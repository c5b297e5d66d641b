"""DataGate: stops the run before training where the data are not what the schema, or the live model's data, ask for.

Imports `components.live`. Start with `executor`; `comparisons` and `images` find, `findings` puts into words.
"""
