"""The folder that holds all state: `--home`, else `MNIST_TFX_HOME`, else `var/` in the checkout."""

from __future__ import annotations

import fcntl
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from mnist_tfx.contract.errors import PipelineError, UsageError
from mnist_tfx.contract.names import model_name

RUN_LOG = "run.log"  # in a run's folder
CHECKOUT = Path(__file__).resolve().parents[1]
_MIN_FREE_MIB = 300
_PATTERN_SIGNS = "*?[\\"


@dataclass(frozen=True)
class Home:
    """Where everything lives; the layout is a contract of the command line."""

    root: Path

    @classmethod
    def resolve(cls, option: str | None) -> Home:
        """The home named by `--home`, the environment or the default, as an absolute path; creates nothing.

        Raises:
            UsageError: its name does not mean the same to Python and to TensorFlow, TFX and Beam.
        """
        named = option or os.environ.get("MNIST_TFX_HOME")
        home = cls((Path(named).expanduser() if named else CHECKOUT / "var").resolve())
        home._check_name()
        return home

    def _check_name(self) -> None:
        if any(sign in str(self.root) for sign in _PATTERN_SIGNS):  # TFX looks for its files by patterns
            raise UsageError(
                f"the home folder {self.root} has a sign of file patterns in its name, one of {_PATTERN_SIGNS}. "
                "Name another one with --home DIR or MNIST_TFX_HOME."
            )
        # Python encodes a path as the locale says; TensorFlow and ML Metadata take all text for UTF-8.
        with suppress(UnicodeEncodeError):
            if os.fsencode(self.root) == str(self.root).encode():
                return
        raise UsageError(
            f"the home folder {str(self.root)!a} has a name that is no UTF-8, or that this locale (its encoding is "
            f"{sys.getfilesystemencoding()}) writes otherwise. Name another one with --home DIR or MNIST_TFX_HOME, "
            "or set a UTF-8 locale: LC_ALL=C.UTF-8."
        )

    @property
    def datasets(self) -> Path:
        """The TFDS data_dir."""
        return self.root / "datasets"

    @property
    def metadata_db(self) -> Path:
        """The SQLite file of ML Metadata."""
        return self.root / "metadata.db"

    @property
    def serving_root(self) -> Path:
        """The folder of all served models."""
        return self.root / "serving"

    def serving(self, dataset: str) -> Path:
        """The TF Serving base path of a dataset's model; its subfolders are versions."""
        return self.serving_root / model_name(dataset)

    def requests(self, model: str) -> Path:
        """The prefix of a model's request logs, as `mnist-tfx serve --log-requests` writes them."""
        return self.root / "requests" / model / "requests"

    def runs(self, dataset: str) -> Path:
        """The folder of a dataset's runs."""
        return self.root / "runs" / model_name(dataset)

    @property
    def reports(self) -> Path:
        """The folder of all reports, with the index of all runs."""
        return self.root / "reports"

    def report(self, dataset: str, run_id: str) -> Path:
        """The report of a run."""
        return self.reports / model_name(dataset) / f"{run_id}.html"

    def log(self, dataset: str, run_id: str) -> Path:
        """The log of a run."""
        return self.runs(dataset) / run_id / RUN_LOG

    def card(self, dataset: str, run_id: str) -> Path:
        """The model card of a run."""
        return self.runs(dataset) / run_id / "MODEL_CARD.md"

    def cache(self, subject: str) -> Path:
        """Files that can be made again: training backups, schema snapshots."""
        return self.root / "cache" / subject

    def training_backup(self, dataset: str) -> Path:
        """What trainings and searches of a dataset go on from: by its name in TFDS, with a configuration's slash."""
        return self.cache("training_backup") / dataset

    def prepare(self) -> None:
        """Makes the folder and proves that it can be written to.

        Raises:
            PipelineError: it cannot be made, is read-only, or its disk is nearly full.
        """
        probe = self.root / ".write-probe"
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            probe.write_bytes(b"x" * 4096)
        except OSError as error:
            raise PipelineError(
                f"cannot write to the home folder {self.root}: {error.strerror}. "
                "Name another one with --home DIR or MNIST_TFX_HOME, or free space."
            ) from error
        finally:
            with suppress(OSError):
                probe.unlink(missing_ok=True)
        free_mib = shutil.disk_usage(self.root).free // 2**20
        if free_mib < _MIN_FREE_MIB:
            raise PipelineError(
                f"only {free_mib} MiB free on the disk of {self.root}; a run needs {_MIN_FREE_MIB} MiB. "
                "Free space, or name a home on another disk with --home DIR."
            )

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keeps a second run out of this home, so that ML Metadata has one writer.

        Raises:
            PipelineError: another process holds the lock; the message names it.
        """
        with open(self.root / ".lock", "a+") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                handle.seek(0)
                owner = handle.read().strip() or "another process"
                raise PipelineError(
                    f"another run is using {self.root} ({owner}). "
                    "Wait for it to end, or run beside it with another home: --home DIR."
                ) from error
            handle.truncate(0)
            handle.write(f"process {os.getpid()}")
            handle.flush()
            yield

    def is_locked(self) -> bool:
        """Whether a process holds the lock. Asking takes the lock for an instant."""
        path = self.root / ".lock"
        if not path.exists():
            return False
        with open(path) as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False
