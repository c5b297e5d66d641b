"""Monitoring: what is served, by the request log, against what the model was trained on.

Start with `watch`, which does all of it. `reference` is what the Pusher leaves in a version; `records` reads the logs,
`sample` what is looked at of them; `distributions` are what is compared, `distances` by what and with which bound,
`checks` the verdicts.
"""
