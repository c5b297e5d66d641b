"""What a model server that loads the candidate can be asked, wherever it runs."""

from __future__ import annotations

import os
import time
from abc import ABC, abstractmethod

import tensorflow as tf
from tfx.utils import io_utils

from mnist_tfx.components.infra_validator import checks
from mnist_tfx.components.settings import InfraSettings
from mnist_tfx.serving.client import Client, DeadlineExceeded, ServingClientError, Tls, Unavailable
from mnist_tfx.serving.client.base import DEFAULT_TIMEOUT


class ServerFailed(Exception):
    """The server ended, or says that it cannot load the model; the message has its words."""


class ModelServer(ABC):
    """A server that loads the candidate that it is given.

    Attributes:
        max_difference: by which its probabilities may differ from those of this process.
    """

    max_difference = checks.MAX_DIFFERENCE

    def __init__(
        self, settings: InfraSettings, address: str, model_name: str, base_path: str, tls: Tls | None = None
    ) -> None:
        """Connects at the first call; the candidate will lie under `base_path`.

        Raises:
            serving.client.InvalidOption: an address or a file that is none.
        """
        # An answer that is far beyond the limit never comes: the server hangs.
        timeout = max(DEFAULT_TIMEOUT, 2e-3 * settings.max_latency_ms)
        self.client = Client(address, model_name, timeout=timeout, tls=tls)
        self._base_path = base_path

    def load(self, model_dir: str, seconds: float) -> tuple[float, str]:
        """Has the server load a copy of the SavedModel, as version 1.

        Returns:
            The seconds until it answered. If these are more than `seconds`, it has not: then also the last that was
            seen of it.

        Raises:
            ServerFailed: it never will.
            PipelineError: the server does not take it, which says nothing of the model.
        """
        started = time.monotonic()
        incoming = os.path.join(self._base_path, "incoming")
        io_utils.copy_dir(model_dir, incoming)
        tf.io.gfile.rename(incoming, os.path.join(self._base_path, "1"))
        self._announce(seconds)
        while True:
            left = started + seconds - time.monotonic()
            try:
                self.client.wait_ready(min(1.0, max(left, 0.01)))
                return time.monotonic() - started, ""
            except (DeadlineExceeded, Unavailable) as error:
                if why := self._end() or self._load_error():
                    raise ServerFailed(why) from error
                if left <= 0:
                    return time.monotonic() - started, str(error)

    def explain(self, error: Exception) -> str:
        """Why a call failed: that the server is no longer there, or else the error's own words.

        Raises:
            PipelineError: for a reason that says nothing of the model.
        """
        return self._end() or str(error)

    @abstractmethod
    def resident_bytes(self) -> int | None:
        """The memory of the server's process; None where it is not on this machine. Raises ServerFailed if it ended."""

    @abstractmethod
    def _announce(self, seconds: float) -> None:
        """Tells the server that the candidate is there, and raises as `load` does."""

    @abstractmethod
    def _end(self) -> str:
        """Why the server is no longer there; empty while it is."""

    def _load_error(self) -> str:
        """What the server says of a version that it gave up; empty if it has given up none."""
        try:
            statuses = self.client.status(timeout=1.0)
        except ServingClientError:
            return ""
        return "; ".join(str(status) for status in statuses if status.state == "END" and status.error_code != "OK")
