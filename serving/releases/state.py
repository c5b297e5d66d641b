"""What is served of a model and why, read from the files that a server reads."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from serving.releases.models_config import ModelsConfig, Pin
from serving.releases.record import Release, read_releases, withdrawn_versions
from serving.releases.versions import StoredVersion, model_folder, rolled_back_versions, stored_versions


@dataclass(frozen=True)
class ModelState:
    """One model. `live` answers clients of the label `stable` where versions are pinned, else everybody."""

    model: str
    folder: Path
    config: ModelsConfig
    pin: Pin | None  # None: the newest version is served
    stored: tuple[StoredVersion, ...]  # by number; what a server sees
    rolled_back: tuple[StoredVersion, ...]  # moved aside
    releases: tuple[Release, ...]  # the oldest first

    @property
    def serving(self) -> Path:
        """The folder of all models."""
        return self.folder.parent

    @property
    def whole(self) -> list[int]:
        """The versions that a server can load, ascending."""
        return sorted({version.number for version in self.stored if version.whole})

    @property
    def live(self) -> int | None:
        """The live version; None where there is none that could be loaded."""
        if self.pin is not None:
            return self.pin.stable
        return max(self.whole, default=None)

    @property
    def withdrawn(self) -> frozenset[int]:
        """What was rolled back; it may still lie where a server sees it, if another version is pinned."""
        return withdrawn_versions(self.releases) | {version.number for version in self.rolled_back}

    @property
    def served(self) -> list[int]:
        """The versions a server loads, ascending."""
        if self.pin is not None:
            return [version for version in self.pin.versions if version in self.whole]
        return self.whole[-(self.config.newest_served(self.model) or len(self.whole)) :]

    def status(self, version: StoredVersion) -> str:
        """One word or two on a version, for a table."""
        if version.is_rolled_back:
            return "rolled back"
        if not version.whole:
            return "incomplete"
        if version.number == self.live:
            return "live"
        if self.pin is None:
            return "stored"
        if version.number == self.pin.canary:
            return "canary"
        if version.number in self.pin.versions:
            return "served"
        if version.number in self.withdrawn:
            return "rolled back"
        return "not promoted" if version.number > self.pin.stable else "stored"


def read_state(serving: Path, model: str) -> ModelState:
    """The state of a model.

    Raises:
        PipelineError: nothing was pushed yet, or `models.config` cannot be read.
        UsageError: the model is unknown.
    """
    folder = model_folder(serving, model)
    config = ModelsConfig.read(serving)
    return ModelState(
        model=model,
        folder=folder,
        config=config,
        pin=config.pin(model),
        stored=tuple(stored_versions(folder)),
        rolled_back=tuple(rolled_back_versions(folder)),
        releases=tuple(read_releases(serving, model)),
    )


def notes_on(state: ModelState) -> list[str]:
    """What a person should know about the state of a model, in sentences."""
    model, pin, config = state.model, state.pin, state.config
    notes = [] if state.stored else [f"{model} has no version that a server could serve."]
    for version in state.stored:
        twins = [other.path.name for other in state.stored if other.number == version.number]
        if len(twins) > 1 and version.path.name == twins[0]:
            notes.append(f"{' and '.join(twins)} are one and the same version to a server. Remove one.")
        if not version.whole:
            notes.append(
                f"{version.path} holds no saved_model.pb: a copy that was not finished? No server can load it. "
                "Finish the copy, or remove it."
            )
        if version.number == state.live:
            notes += [
                f"version {version.number} is live, and was pushed with {caution}" for caution in version.cautions
            ]
    if config.lists_nothing:
        notes.append(
            f"{config.path} lists no model. A server that runs keeps what it has; one that starts with it serves "
            f"nothing. Write it anew: mnist-tfx promote {model} VERSION. Or remove it: then each push goes live."
        )
    elif config.text is not None and model not in config.models:
        notes.append(
            f"{config.path} does not list {model}: a server that reads this file does not serve it. "
            "The next canary, promote or rollback by label, of any model, adds it."
        )
    return notes if pin is None else notes + _notes_on_pin(state, pin)


def _notes_on_pin(state: ModelState, pin: Pin) -> list[str]:
    model = state.model
    notes = [
        f"version {version} is pinned, but is not there or not whole: {state.folder / str(version)}"
        for version in sorted({*pin.versions, *pin.labels.values()})
        if version not in state.whole
    ]
    notes += [
        f"the label {label!r} names version {version}, which is not among the versions served."
        for label, version in pin.labels.items()
        if version not in pin.versions
    ]
    if pin.canary is not None:
        notes.append(
            f"requests that name no label or version get version {pin.highest}, the highest one served. "
            "Clients that want the stable version ask for the label 'stable'."
        )
    waiting = [version.number for version in state.stored if state.status(version) == "not promoted"]
    if waiting:
        notes.append(
            f"version {waiting[-1]} is stored, but not served: {pin.stable} is pinned as stable. Try it: "
            f"mnist-tfx canary {model} {waiting[-1]}; make it live: mnist-tfx promote {model} {waiting[-1]}"
        )
    unlabelled = [str(version) for version in pin.versions if version not in pin.labels.values()]
    if unlabelled and pin.labels:
        notes.append(
            f"served without a label: {', '.join(unlabelled)}. If a canary was broken off, call mnist-tfx canary again."
        )
    return notes
