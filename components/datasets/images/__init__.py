"""A dataset made of image files: folders by class, with or without splits, or a CSV file that names each one's class.

Imports `components.transform.images`, with which everything reads image files, what components share and `contract`.
Start with `prepare`; what becomes of each file is decided in `index`.
"""
