"""Lets Beam ship this package to its workers (`--setup_file=setup.py`); the metadata is in pyproject.toml."""

from setuptools import setup

setup()
