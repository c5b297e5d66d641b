"""What the infra validator writes down of its checks, and how others read it."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import tensorflow as tf

from components.infra_validator.checks import Check

_FILE = "infra_validation.json"  # in the root of the InfraBlessing artifact


def write_report(blessing_uri: str, checks: Sequence[Check], latencies: Sequence[float]) -> None:
    """Writes the checks, and the seconds of each request of one image, as JSON (see `read_report`)."""
    report = {
        "checks": [{**asdict(check), "passed": check.passed} for check in checks],
        "latency_ms": [round(1e3 * seconds, 3) for seconds in latencies],
    }
    with tf.io.gfile.GFile(os.path.join(blessing_uri, _FILE), "w") as file:
        json.dump(report, file, indent=2)


def read_report(blessing_uri: str) -> dict[str, Any]:
    """Keys: `checks`, each with `name`, `measured`, `limit`, `unit`, `detail`, `passed`; `latency_ms`, a list."""
    with tf.io.gfile.GFile(os.path.join(blessing_uri, _FILE)) as file:
        return dict(json.load(file))


def read_checks(blessing_uri: str) -> tuple[Check, ...]:
    """The checks that were made."""
    checks = read_report(blessing_uri)["checks"]
    return tuple(Check(**{key: value for key, value in check.items() if key != "passed"}) for check in checks)


def failed_checks(blessing_uri: str) -> tuple[str, ...]:
    """Each check that failed, with its limit and the measured value, in words."""
    return tuple(str(check) for check in read_checks(blessing_uri) if not check.passed)
