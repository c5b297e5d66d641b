"""Report: a run as one HTML page; and what a run is, with the one verdict on it that all who tell of runs ask for.

`run` and `verdict` are that model. `collect` fills a report from artifacts, `page` draws it. Imports what the other
steps offer to read what they made; no step imports it.
"""
