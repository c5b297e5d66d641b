"""Makes a plan so, in steps each of which leaves a state that a server can follow and a restart can go on from.

TF Serving gives a label only to a version that is available, and it checks the labels of a new `models.config` before
it loads the file's versions. A file that both serves a version for the first time and labels it is refused at each
poll. So the change takes two files: the first serves old and new versions under the old labels; when a server reports
the new ones available, the second moves the labels and lets the old versions go. Where no server runs one file is
enough: to start with labels at all, TF Serving needs `--allow_version_labels_for_unavailable_models`, which allows it.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from mnist_tfx.contract.errors import PipelineError
from mnist_tfx.contract.models_config import Pin
from mnist_tfx.contract.releases import recorded
from mnist_tfx.contract.versions import model_folder, model_names, stored_versions
from mnist_tfx.serving.releases.plans import Plan
from mnist_tfx.serving.releases.servers import Followers, RunningServer
from mnist_tfx.serving.releases.state import ModelState, read_state

_LOCK = ".releases.lock"
_LOCK_SECONDS = 10.0


@dataclass(frozen=True)
class Released:
    """A change that was made."""

    plan: Plan
    before: ModelState
    after: ModelState


def release(
    serving: Path,
    model: str,
    decide: Callable[[ModelState], Plan],
    *,
    servers: Sequence[RunningServer] = (),
    timeout: float = 60.0,
    reason: str = "",
) -> Released:
    """Reads the state of a model, decides by one of `plans`, and changes it, with other releases kept out.

    A push is not kept out: it only adds a folder, under a number that no version had.

    Args:
        servers: those that watch the folder; each that answers is waited for.
        timeout: for each wait, in seconds.
        reason: goes into the record.

    Raises:
        PipelineError: nothing was changed; or, as the message then says, a server does not follow the change.
    """
    model_folder(serving, model)
    try:
        with changes_kept_out(serving):
            state = read_state(serving, model)
            plan = decide(state)
            followers = Followers(servers, timeout)
            followers.let_look([plan.after], max(folder.stat().st_mtime for folder in (serving, state.folder)))
            with recorded(serving, plan.action, model, plan.before, plan.after, reason):
                _make(plan, state, followers)
    except OSError as error:
        raise PipelineError(f"cannot change {error.filename or serving}: {error.strerror}") from error
    after = read_state(serving, model)
    try:
        followers.wait(after.served, after.pin.labels if after.pin is not None else {})
    except PipelineError as error:
        raise PipelineError(f"the {plan.action} to version {plan.after} is made, but {error}") from error
    return Released(plan, state, after)


def _make(plan: Plan, state: ModelState, followers: Followers) -> None:
    serving = state.folder.parent
    with _moved(plan.moves):
        if plan.pin == state.pin:
            return
        # A server that is told of a folder without versions, such as a backup, is not ready until one comes.
        names = [name for name in model_names(serving) if stored_versions(serving / name)]
        now = followers.available
        labelled = set(plan.pin.labels.values()) if plan.pin is not None else set()
        try:
            if plan.pin is not None and now is not None and not labelled <= now:
                state.config.with_pin(state.model, _bridge(state, plan.pin, now), names).write()
                followers.wait(labelled)
            state.config.with_pin(state.model, plan.pin, names).write()
        except BaseException:
            state.config.write()
            raise


def _bridge(state: ModelState, target: Pin, now: set[int]) -> Pin:
    """Old and new versions, under the old labels as far as a server can give them."""
    old = state.pin or Pin(tuple(state.served), {})
    versions = {*old.versions, *target.versions, *(now & set(state.whole))}
    return Pin(tuple(sorted(versions)), {label: version for label, version in old.labels.items() if version in now})


@contextmanager
def _moved(moves: Sequence[tuple[Path, Path]]) -> Iterator[None]:
    """Moves folders; moves them back if what follows fails."""
    for source, destination in moves:
        if destination.exists() or destination.is_symlink():
            raise PipelineError(f"{destination} is in the way of {source}: remove or rename one of the two.")
    with ExitStack() as undo:
        for source, destination in moves:
            destination.parent.mkdir(exist_ok=True)
            _move(source, destination)
            undo.callback(_move, destination, source)
        yield
        undo.pop_all()


def _move(source: Path, destination: Path) -> None:
    if source.is_symlink():  # a relative one would lead elsewhere from there
        destination.symlink_to(source.resolve())
        source.unlink()
    else:
        os.rename(source, destination)


@contextmanager
def changes_kept_out(serving: Path) -> Iterator[None]:
    """Inside, no other process changes what is served. Raises PipelineError where one does for 10 s."""
    deadline = time.monotonic() + _LOCK_SECONDS
    with open(serving / _LOCK, "a") as handle:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() > deadline:
                    raise PipelineError(
                        f"another canary, promote or rollback is changing {serving}, perhaps waiting for its server. "
                        "Wait for it, or stop it with Ctrl-C: it then puts back what it changed."
                    ) from error
                time.sleep(0.05)
        yield
