"""A page to try the served models by hand: draw a digit, or drop an image of clothing.

The server hands out `page/`, whose script calls its REST port. There is one module.
"""
