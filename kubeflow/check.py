"""The gate at the end of every compilation: all rules of the target, on the compiled file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mnist_tfx.contract.errors import PipelineError
from mnist_tfx.kubeflow.ir import CompiledPipeline, read_compiled
from mnist_tfx.kubeflow.profiles import Target
from mnist_tfx.kubeflow.rules import RULES, Breach, Rule


class BrokenRules(PipelineError):
    """A compiled pipeline that its target would refuse, or fail on."""

    def __init__(self, path: Path, target: str, breaches: Sequence[Breach]) -> None:
        self.breaches = tuple(breaches)
        listed = "\n".join(f"  {breach}" for breach in breaches)
        super().__init__(f"{path} will not run on {target}:\n{listed}")


def rules_of(target: Target) -> list[Rule]:
    """The rules that hold for a target, in the order in which they are checked."""
    return [rule for rule in RULES if target in rule.targets]


def check(pipeline: CompiledPipeline, target: Target) -> None:
    """Raises BrokenRules, with every breach of every rule, where there is any."""
    breaches = [breach for rule in rules_of(target) for breach in rule.breaches(pipeline, target)]
    if breaches:
        raise BrokenRules(pipeline.path, target, breaches)


def check_file(path: Path, target: Target | None = None) -> Target:
    """Checks a file, whoever compiled it. Needs no network.

    Args:
        path: a compiled pipeline.
        target: None: Vertex AI for `.json`, Kubeflow for all else.

    Returns:
        The target it was checked for.

    Raises:
        UsageError: it is no compiled pipeline.
        BrokenRules: it breaks rules of the target.
    """
    pipeline = read_compiled(path)
    judged: Target = target or ("vertex" if path.suffix == ".json" else "kubeflow")
    check(pipeline, judged)
    return judged
