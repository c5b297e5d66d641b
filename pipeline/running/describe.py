"""What each component made, in a few words for the live table."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence

from tfx.dsl.io import fileio
from tfx.types import Artifact

from mnist_tfx.components.evaluator.result import read_quality
from mnist_tfx.components.infra_validator.report import failed_checks
from mnist_tfx.components.trainer.run_fn import TRAINING_LOG
from mnist_tfx.components.tuner.results import read_trials, short

_Outputs = Mapping[str, Sequence[Artifact]]


def describer(class_names: Sequence[str]) -> Callable[[str, _Outputs], str]:
    """The callback `describe(node_id, outputs)` of an observer."""

    def describe(node_id: str, outputs: _Outputs) -> str:
        match node_id:
            case "TfdsExampleGen":
                counts = json.loads(_only(outputs, "examples").get_string_custom_property("counts"))
                spans = json.loads(_only(outputs, "examples").get_string_custom_property("spans") or "{}")
                of_spans = f" of spans {', '.join(spans)}" if spans else ""
                return "examples: " + ", ".join(f"{count:,} {split}" for split, count in counts.items()) + of_spans
            case "ExampleValidator":
                blessed = _only(outputs, "anomalies").get_json_value_custom_property("blessed") or {}
                bad = [split for split, verdict in blessed.items() if not verdict]
                return f"anomalies in {', '.join(bad)}" if bad else "no anomalies"
            case "DataGate":
                return "data accepted"
            case "Tuner":
                best, *others = read_trials(outputs)
                settings = ", ".join(f"{key} {short(value)}" for key, value in best.settings.items())
                return f"best of {1 + len(others)} trials: {best.score:.4f} with {settings}"
            case "Trainer":
                with fileio.open(os.path.join(_only(outputs, "model").uri, TRAINING_LOG)) as file:
                    log = json.load(file)
                best = log["history"][log["best_epoch"] - 1]
                return (
                    f"best epoch {log['best_epoch']} of {len(log['history'])}, val_accuracy {best['val_accuracy']:.4f}"
                )
            case "WarmStart":
                version = _only(outputs, "base_model").get_string_custom_property("version")
                return f"from version {version}" if version else "nothing is served to begin with"
            case "Baseline":
                baseline = _only(outputs, "baseline")
                if not_compared := baseline.get_string_custom_property("not_compared"):
                    return f"none: {not_compared}"
                version = baseline.get_string_custom_property("version")
                return f"version {version}" if version else "nothing else is served: the candidate itself"
            case "Evaluator":
                quality = read_quality(_only(outputs, "evaluation").uri, class_names)
                by_span = "".join(f", span {span.number} {span.accuracy:.4f}" for span in quality.spans)
                verdict = "not blessed" if quality.broken_bounds else "blessed"
                return f"accuracy {quality.accuracy:.4f}{by_span}, {verdict}"
            case "InfraValidator":
                failed = failed_checks(_only(outputs, "blessing").uri)
                return f"not blessed: {failed[0]}" if failed else "serves as it was trained"
            case "Pusher":
                pushed = _only(outputs, "pushed_model")
                version = pushed.get_string_custom_property("pushed_version")
                if pushed.get_int_custom_property("pushed"):
                    return f"version {version}"
                return ": ".join(filter(None, ("not pushed", pushed.get_string_custom_property("not_pushed"))))
        return ""

    return describe


def _only(outputs: _Outputs, key: str) -> Artifact:
    [artifact] = outputs[key]
    return artifact
