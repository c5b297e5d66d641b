"""What TFX hands to the Trainer and the Tuner, as the configuration of a training of these very Examples."""

from __future__ import annotations

import os
from dataclasses import replace

from tfx.components.trainer.fn_args_utils import FnArgs

from mnist_tfx.components.trainer.config import TrainerConfig
from mnist_tfx.components.trainer.training_data import examples_digest


def trainer_config(fn_args: FnArgs) -> TrainerConfig:
    """The configuration that the pipeline gave, which now knows its Examples and where its backup lies.

    Where the pipeline names no place for backups, several runs may train at once, and each keeps its own beside what it
    makes: a task that is tried again finds it, and no other run does.
    """
    config = TrainerConfig.from_json(fn_args.custom_config)
    return replace(
        config,
        examples=examples_digest(fn_args.train_files, fn_args.eval_files),
        backup_dir=config.backup_dir or os.path.join(fn_args.model_run_dir or fn_args.working_dir, "backup"),
    )
