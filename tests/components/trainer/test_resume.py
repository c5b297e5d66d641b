"""Trainings that were killed or stopped go on, and end as if nothing had been."""

from __future__ import annotations

import json
import logging
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from mnist_tfx.components.trainer import training
from mnist_tfx.components.trainer.resume import backed_up_epoch, keep_trained, kept_trained
from mnist_tfx.components.trainer.training import forget_training, new_classifier, train_once
from mnist_tfx.contract import names as features
from tests.fixtures.tiny_run import TinyRun
from tests.fixtures.training import (
    EVERYTHING,
    NORMALIZATION,
    config,
    decoded,
    interrupted_at,
    logits,
    trained,
    without_times,
)

_CHECKOUT = Path(__file__).resolve().parents[3]
_STEPS = 10  # of an epoch: 480 examples in batches of 50


@pytest.fixture(scope="module")
def uninterrupted(tiny_run: TinyRun, tmp_path_factory: pytest.TempPathFactory) -> tuple[keras.Model, dict[str, Any]]:
    """One training from start to end."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    return trained(tiny_run.examples, folder, config(folder))


KILLED_TRAINING = """
import json, logging, os, signal, sys
from pathlib import Path

class KillAfter(logging.Handler):
    def emit(self, record):
        if record.getMessage().startswith(sys.argv[3]):
            os.kill(os.getpid(), signal.SIGKILL)

progress = logging.getLogger("mnist_tfx.progress")
progress.setLevel(logging.INFO)
progress.addHandler(KillAfter())
from tests.fixtures.training import config, trained
trained(Path(sys.argv[1]), Path(sys.argv[2]), config(Path(sys.argv[2])))
"""


@pytest.fixture(scope="module")
def killed(tiny_run: TinyRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a training whose process was killed when it reported its third epoch."""
    folder = tmp_path_factory.mktemp("killed")
    command = [sys.executable, "-c", KILLED_TRAINING, str(tiny_run.examples), str(folder), "epoch 3/"]
    done = subprocess.run(command, cwd=_CHECKOUT, capture_output=True, text=True, timeout=240)
    assert done.returncode == -signal.SIGKILL, done.stderr
    return folder


def copy_of(killed: Path, folder: Path) -> Path:
    """The killed training's backup, to be gone on from."""
    shutil.copytree(killed / "backup", folder / "backup")
    [backup] = (folder / "backup").iterdir()
    return backup


def test_a_killed_training_goes_on_and_ends_as_an_uninterrupted_one(
    tiny_run: TinyRun, killed: Path, uninterrupted: tuple[keras.Model, dict[str, Any]], tmp_path: Path
) -> None:
    backup = copy_of(killed, tmp_path)
    model, log = trained(tiny_run.examples, tmp_path, config(tmp_path))
    assert log["resumed_after_epoch"] in (2, 3)
    whole_model, whole_log = uninterrupted
    assert [row["epoch"] for row in log["history"]] == [1, 2, 3, 4, 5]
    done = log["resumed_after_epoch"]
    assert without_times(log)[:done] == without_times(whole_log)[:done]
    assert without_times(log) == without_times(whole_log)
    np.testing.assert_array_equal(logits(model, tiny_run), logits(whole_model, tiny_run))
    assert not backup.exists()  # nothing is left that a later training could go on from


def test_a_stopped_training_goes_on_as_if_nothing_had_been(
    tiny_run: TinyRun, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With everything that draws random numbers or keeps a state. Its teacher is kept until it is kept itself."""
    whole, whole_log = trained(tiny_run.examples, tmp_path / "whole", config(tmp_path / "whole", **EVERYTHING))
    settings = config(tmp_path / "stopped", **EVERYTHING)
    with interrupted_at("epoch 2/3"), pytest.raises(KeyboardInterrupt):
        trained(tiny_run.examples, tmp_path / "stopped", settings)
    caplog.set_level(logging.INFO, "mnist_tfx.progress")
    caplog.clear()
    teachers: list[list[Path]] = []

    def observed(folder: str, *kept: Any) -> None:
        teachers.append(list((tmp_path / "stopped" / "backup").glob("*-trained")))
        keep_trained(folder, *kept)

    monkeypatch.setattr(training, "keep_trained", observed)
    train_examples, eval_examples = (
        decoded(tiny_run.examples, split, tmp_path / "stopped") for split in (features.TRAIN, features.EVAL)
    )
    weights, log = train_once(settings, NORMALIZATION, train_examples, eval_examples, str(tmp_path / "logs"))
    resumed = new_classifier(settings)
    resumed.set_weights(weights)
    told = [record.getMessage().partition("  ")[0] for record in caplog.records]
    assert told[:3] == ["teacher 1 of 1", "going on after epoch 2 of an interrupted training", "epoch 3/3"]
    [[teacher]], [student] = teachers, (tmp_path / "stopped" / "backup").iterdir()
    assert teacher != student
    for _ in range(2):  # as where somebody deleted it before
        forget_training(settings)
        assert not list((tmp_path / "stopped" / "backup").iterdir())
    assert log["resumed_after_epoch"] == 2
    assert without_times(log) == without_times(whole_log)
    assert [row["val_accuracy"] for row in log["teachers"]] == [row["val_accuracy"] for row in whole_log["teachers"]]
    np.testing.assert_array_equal(logits(resumed, tiny_run), logits(whole, tiny_run))


def test_another_recipe_does_not_go_on_from_the_backup(tiny_run: TinyRun, killed: Path, tmp_path: Path) -> None:
    copy_of(killed, tmp_path)
    settings = config(tmp_path, seed=7, epochs=1)
    assert trained(tiny_run.examples, tmp_path, settings)[1]["resumed_after_epoch"] == 0
    assert len(list((tmp_path / "backup").iterdir())) == 1  # the killed training's is still there


def damage_metadata(backup: Path) -> None:
    (backup / "training_metadata.json").write_text('{"epo')


def damage_all_weights(backup: Path) -> None:
    for path in backup.glob("*.h5*"):
        path.write_bytes(path.read_bytes()[:100])


def damage_the_first_backup(backup: Path) -> None:
    """As a kill leaves it that comes while the first epoch's weights are written."""
    weights = (backup / "latest.weights.h5").read_bytes()
    for path in backup.iterdir():
        if not path.name.startswith(("early_stopping-0", "best_weights-0")):
            path.unlink()
    (backup / "latest.weights.h5").write_bytes(weights[:100])


def lose_best_weights(backup: Path) -> None:
    for path in backup.glob("best_weights-*"):
        path.write_bytes(b"")


def lose_metadata(backup: Path) -> None:
    """As a kill leaves it that comes after the first epoch's weights are written, and before the epoch's number is."""
    for path in backup.glob("training_metadata.json*"):
        path.unlink()


def lose_the_last_epochs_number(backup: Path) -> None:
    """As a kill leaves it that comes after an epoch's weights are written, and before its number is."""
    path = backup / "training_metadata.json"
    metadata = json.loads(path.read_text())
    path.write_text(json.dumps(metadata | {"epoch": metadata["epoch"] - 1}))


@pytest.mark.parametrize(
    "damage",
    [
        damage_metadata,
        damage_all_weights,
        damage_the_first_backup,
        lose_metadata,
        lose_the_last_epochs_number,
        lose_best_weights,
    ],
)
def test_a_damaged_backup_is_removed(killed: Path, tmp_path: Path, damage: Callable[[Path], None]) -> None:
    backup = copy_of(killed, tmp_path)
    assert backed_up_epoch(str(backup), _STEPS) in (2, 3)
    damage(backup)
    assert backed_up_epoch(str(backup), _STEPS) == 0
    assert not backup.exists()


@pytest.mark.parametrize("name", ["weights.npz", "training.json"])
@pytest.mark.parametrize("whole_bytes", [0, 10])
def test_what_was_kept_of_a_training_is_removed_where_it_is_not_whole(
    tmp_path: Path, name: str, whole_bytes: int
) -> None:
    """As a power cut leaves it."""
    folder = tmp_path / "trained"
    keep_trained(str(folder), [np.ones(3)], {"best_epoch": 1})
    assert kept_trained(str(folder)) is not None
    (folder / name).write_bytes((folder / name).read_bytes()[:whole_bytes])
    assert kept_trained(str(folder)) is None
    assert not folder.exists()


def test_a_damaged_backup_means_training_from_scratch(
    tiny_run: TinyRun, killed: Path, uninterrupted: tuple[keras.Model, dict[str, Any]], tmp_path: Path
) -> None:
    damage_all_weights(copy_of(killed, tmp_path))
    model, log = trained(tiny_run.examples, tmp_path, config(tmp_path))
    assert log["resumed_after_epoch"] == 0
    assert without_times(log) == without_times(uninterrupted[1])
    np.testing.assert_array_equal(logits(model, tiny_run), logits(uninterrupted[0], tiny_run))
