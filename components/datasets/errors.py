"""Errors that the parts of this package raise to each other."""

from __future__ import annotations

from mnist_tfx.contract.errors import PipelineError


class NotPrepared(PipelineError):
    """A dataset does not lie complete in a data_dir."""


class SourceUnavailable(Exception):
    """A dataset cannot be had from one of its sources; the message says why."""
