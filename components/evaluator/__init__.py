"""The judgement on a model: what TFMA measures (`metrics`) and the bounds (`config`); what came of it (`quality`).

`result` is the only reader of TFMA's files. Imports nothing of the other steps. Start reading at `config`.
"""
