"""Report: a run as one HTML page and as a model card; what a run is, and the one verdict that all who tell of it share.

`run` and `verdict` are that model. `collect` fills a report from artifacts, `page` draws it. Imports what the other
steps offer to read what they made; of them, monitoring alone imports it, to draw its own page.
"""
