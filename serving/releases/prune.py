"""Which versions of a model nobody needs any more, and their removal beside a running server. No TensorFlow."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Sequence

from mnist_tfx.contract.releases import stable_before
from mnist_tfx.contract.versions import StoredVersion
from mnist_tfx.serving.releases.servers import RunningServer
from mnist_tfx.serving.releases.state import ModelState

_PRUNED = ".pruned-"  # no integer: a server does not take it for a version


def unneeded_versions(state: ModelState, keep: int, servers: Sequence[RunningServer]) -> list[StoredVersion]:
    """All whole versions but

    - the `keep` newest;
    - those that are served, or pinned by `models.config`, with or without a label;
    - those that one of the servers has not unloaded;
    - the live one and the one below it, of which one is the next candidate's baseline and the other where a rollback
      leads, and the one that was stable before.

    What was rolled back stays, too, also in its place under a pin: it keeps the same model from being pushed again. So
    does a folder without a graph, which somebody may be copying. And every version stays where `models.config` lists no
    model: what it pinned is lost, and a server that runs may serve any of them.
    """
    if state.config.lists_nothing:
        return []
    needed = {*state.whole[-keep:], *state.served, *state.withdrawn}
    if state.pin is not None:
        needed |= {*state.pin.versions, *state.pin.labels.values()}
    if state.live is not None:
        below = [version for version in state.whole if version < state.live]
        needed |= {state.live, *below[-1:], stable_before(state.releases, state.live) or state.live}
    for server in servers:
        needed |= {version for version, status in (server.states() or {}).items() if status.state != "END"}
    return [version for version in state.stored if version.whole and version.number not in needed]


def remove_versions(state: ModelState, versions: Sequence[StoredVersion]) -> None:
    """A server sees each whole or not at all; what a removal that was killed left behind goes, too.

    Of a version that is a link, the link goes: what it leads to is not ours.
    """
    for version in versions:
        os.rename(version.path, state.folder / f"{_PRUNED}{version.path.name}-{uuid.uuid4().hex}")
    for path in state.folder.glob(f"{_PRUNED}*"):
        if path.is_symlink():
            path.unlink()
        else:
            shutil.rmtree(path)
