"""What is served of a model and why, read from the files that a server reads."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mnist_tfx.contract.models_config import ModelsConfig, Pin
from mnist_tfx.contract.releases import Release, read_releases, withdrawn_versions
from mnist_tfx.contract.versions import ROLLED_BACK, StoredVersion, model_folder, stored_versions


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


def read_state(serving: Path, model: str) -> ModelState:
    """Raises PipelineError where `models.config` cannot be read, UsageError for an unknown model."""
    folder = model_folder(serving, model)
    config = ModelsConfig.read(serving)
    return ModelState(
        model=model,
        folder=folder,
        config=config,
        pin=config.pin(model),
        stored=tuple(stored_versions(folder)),
        rolled_back=tuple(stored_versions(folder / ROLLED_BACK)),
        releases=tuple(read_releases(serving, model)),
    )
