"""The check: every rule, broken on purpose, is named with the task and the remedy."""

from __future__ import annotations

import contextlib
import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st

from mnist_tfx.contract.errors import UsageError
from mnist_tfx.kubeflow.check import BrokenRules, check, check_file
from mnist_tfx.kubeflow.ir import parse_compiled, read_compiled, read_content
from mnist_tfx.kubeflow.profiles import Target
from mnist_tfx.kubeflow.rules import RULES
from tests.fixtures.command import mnist_tfx
from tests.fixtures.compiled import GOLDEN, GOLDEN_FILES

Spec = dict[str, Any]
VERTEX: Spec = dict(read_content(GOLDEN / GOLDEN_FILES["vertex-gpu"]))
KUBEFLOW: Spec = dict(read_content(GOLDEN / GOLDEN_FILES["kubeflow-gpu"]))


@pytest.mark.parametrize("name", GOLDEN_FILES.values())
def test_what_we_compile_keeps_all_rules(name: str) -> None:
    assert check_file(GOLDEN / name) == name.partition("-")[0]
    answer = mnist_tfx("compile", "--check", GOLDEN / name)
    assert answer.code == 0 and "keeps all rules of" in answer.out
    assert answer.out.count("ok  ") == len(
        json.loads(mnist_tfx("compile", "--check", GOLDEN / name, "--json").out)["rules"]
    )


def _executor(spec: Spec, task: str) -> Spec:
    return spec["deploymentSpec"]["executors"][f"{task}_executor"]


def _task(spec: Spec, task: str) -> Spec:
    return spec["root"]["dag"]["tasks"][task]


def _as_resolver(spec: Spec) -> None:
    spec["deploymentSpec"]["executors"]["Baseline_executor"] = {"resolver": {"outputArtifactQueries": {}}}


def _as_importer(spec: Spec) -> None:
    importer = {"artifactUri": {"constant": "gs://b/schema"}, "typeSchema": {"schemaTitle": "tfx.Schema"}}
    spec["deploymentSpec"]["executors"]["ImportSchemaGen_executor"] = {"importer": importer}


def _condition_on_importer(spec: Spec) -> None:
    _as_importer(spec)
    condition = "(inputs.artifacts['schema'].artifacts[0].metadata['x'] == 1.0)"
    _task(spec, "StatisticsGen")["triggerPolicy"] = {"condition": condition}


def _importer_with_condition(spec: Spec) -> None:
    _as_importer(spec)
    _task(spec, "ImportSchemaGen")["triggerPolicy"] = {"condition": "true"}


def _with_driver(spec: Spec) -> None:
    hook = {"command": ["python", "-m", "tfx.orchestration.kubeflow.v2.file_based_example_gen.driver"]}
    _executor(spec, "TfdsExampleGen")["container"]["lifecycle"] = {"preCacheCheck": hook}


def _accelerator(words: str, count: str = "1") -> Callable[[Spec], None]:
    def put(spec: Spec) -> None:
        _executor(spec, "Trainer")["container"]["resources"]["accelerator"] = {"type": words, "count": count}

    return put


def _output_type(schema: Spec) -> Callable[[Spec], None]:
    def put(spec: Spec) -> None:
        spec["components"]["DataGate"]["outputDefinitions"]["artifacts"]["blessing"]["artifactType"] = schema

    return put


def _parameter(task: str, key: str, value: str) -> Callable[[Spec], None]:
    def put(spec: Spec) -> None:
        _task(spec, task)["inputs"]["parameters"][key] = {"runtimeValue": {"constant": value}}

    return put


def _set(*path: str, value: Any) -> Callable[[Spec], None]:
    def put(spec: Spec) -> None:
        target = spec
        for key in path[:-1]:
            target = target[key]
        target[path[-1]] = value

    return put


def _told_kubernetes(label: str, config: Spec) -> Callable[[Spec], None]:
    return lambda spec: spec["platforms"]["kubernetes"]["deploymentSpec"]["executors"].update({label: config})


def _lost(*path: str) -> Callable[[Spec], None]:
    def take(spec: Spec) -> None:
        target = spec
        for key in path[:-1]:
            target = target[key]
        del target[path[-1]]

    return take


def _does_not_wait(spec: Spec) -> None:
    _task(spec, "Evaluator")["dependentTasks"].remove("Trainer")


def _on_flink(spec: Spec) -> None:
    _executor(spec, "TfdsExampleGen")["container"]["args"] += ["--runner=FlinkRunner", "--flink_master=flink:8081"]


def _in_a_circle(spec: Spec) -> None:
    _task(spec, "TfdsExampleGen")["dependentTasks"] = ["Pusher"]


_CONTAINER = ("deploymentSpec", "executors", "Trainer_executor", "container")
BOTH: tuple[Target, ...] = ("vertex", "kubeflow")
BROKEN: list[tuple[str, tuple[Target, ...], Callable[[Spec], None], str, str]] = [
    # rule, targets, how it is broken, task, part of the message
    ("schema-version", ("kubeflow",), _set("schemaVersion", value="2.0.0"), "", "2.1.0 is wanted"),
    ("schema-version", ("vertex",), _set("schemaVersion", value="1.0"), "", "schemaVersion is '1.0'"),
    ("no-resolver", ("kubeflow",), _as_resolver, "Baseline", "an ordinary component, as Baseline does"),
    ("no-condition-on-importer", ("kubeflow",), _condition_on_importer, "StatisticsGen", "hangs on the Importer Imp"),
    ("no-condition-on-importer", ("kubeflow",), _importer_with_condition, "ImportSchemaGen", "is an Importer with the"),
    ("no-custom-driver", BOTH, _with_driver, "TfdsExampleGen", "lifecycle.preCacheCheck"),
    (
        "readable-root",
        ("kubeflow",),
        _set("defaultPipelineRoot", value="hdfs://mlpipeline"),
        "",
        "'hdfs://mlpipeline'",
    ),
    ("readable-root", ("kubeflow",), _lost("defaultPipelineRoot"), "", "it names no root"),
    ("accelerator-name", ("kubeflow",), _accelerator("NVIDIA_TESLA_T4"), "Trainer", "nvidia.com/gpu"),
    ("accelerator-name", ("vertex",), _accelerator("nvidia.com/gpu"), "Trainer", "NVIDIA_TESLA_T4"),
    ("accelerator-name", ("vertex",), _accelerator("NVIDIA_L4", "0"), "Trainer", "has no count"),
    ("artifact-types", BOTH, _output_type({"schemaTitle": "system.Artifact"}), "DataGate", "'system.Artifact'"),
    ("artifact-types", BOTH, _output_type({"instanceSchema": ""}), "DataGate", "has the type ''"),
    ("artifact-types", BOTH, _output_type({"instanceSchema": "title: DataBlessing"}), "DataGate", "TYPE_NAME"),
    (
        "pipeline-name",
        BOTH,
        _set("pipelineInfo", "name", value="fashion_mnist"),
        "",
        "fashion-mnist, not fashion_mnist",
    ),
    ("container-command", BOTH, _set(*_CONTAINER, "command", value=["bash"]), "Trainer", "its command is ['bash']"),
    (
        "container-command",
        BOTH,
        _set(*_CONTAINER, "image", value="gcr.io/tfx-oss-public/tfx:1.21.0"),
        "Trainer",
        "lacks",
    ),
    (
        "no-local-paths",
        BOTH,
        _parameter("Baseline", "serving_dir", "/home/me/serving"),
        "Baseline",
        "'/home/me/serving'",
    ),
    ("no-local-paths", BOTH, _parameter("Trainer", "custom_config", '{"a": ["/home/me"]}'), "Trainer", "'/home/me'"),
    (
        "no-local-paths",
        ("kubeflow",),
        _lost("platforms", "kubernetes", "deploymentSpec", "executors", "Pusher_executor", "pvcMount"),
        "Pusher",
        "'/mnt/mnist-tfx/serving/kmnist', a path of the machine that compiled it",
    ),
    ("readable-root", ("kubeflow",), _on_flink, "TfdsExampleGen", "workers elsewhere cannot read '/mnt/mnist-tfx'"),
    (
        "retry-policy",
        ("kubeflow",),
        _lost("root", "dag", "tasks", "Trainer", "retryPolicy", "backoffMaxDuration"),
        "Trainer",
        "set retries.backoff_max_seconds in the profile",
    ),
    (
        "retry-policy",
        ("kubeflow",),
        _set("root", "dag", "tasks", "Trainer", "retryPolicy", "backoffFactor", value=1.5),
        "Trainer",
        "the factor 1.5",
    ),
    ("kubernetes-config", ("kubeflow",), _told_kubernetes("Trainer_executor", {"gpu": 1}), "Trainer", "is told 'gpu'"),
    (
        "kubernetes-config",
        ("kubeflow",),
        _told_kubernetes("Other_executor", {}),
        "Other",
        "'Other_executor', which is not",
    ),
    ("whole-graph", BOTH, _lost("components", "Trainer"), "Trainer", "its component 'Trainer' is not there"),
    ("whole-graph", BOTH, _lost("deploymentSpec", "executors", "Pusher_executor"), "Pusher", "its executor 'Pusher_ex"),
    ("whole-graph", BOTH, _lost("root", "dag", "tasks", "Transform"), "Trainer", "waits for 'Transform'"),
    ("whole-graph", BOTH, _does_not_wait, "Evaluator", "takes an artifact from 'Trainer' and does not wait for it"),
    ("whole-graph", BOTH, _in_a_circle, "", "in a circle: "),
    ("whole-graph", BOTH, _set("root", value={"dag": {}}), "", "a graph has no tasks"),
]
CASES = [(rule, target, *rest) for rule, targets, *rest in BROKEN for target in targets]


@pytest.mark.parametrize(("rule", "target", "put", "node", "words"), CASES)
def test_a_broken_rule_is_named_with_task_and_remedy(
    rule: str, target: Target, put: Callable[[Spec], None], node: str, words: str
) -> None:
    spec = copy.deepcopy(KUBEFLOW if target == "kubeflow" else VERTEX["pipelineSpec"])
    put(spec)
    job = spec if target == "kubeflow" else {**VERTEX, "pipelineSpec": spec}
    name = Path(f"pipeline.{'yaml' if target == 'kubeflow' else 'json'}")
    with pytest.raises(BrokenRules) as caught:
        check(parse_compiled(job, name), target)
    found = [breach for breach in caught.value.breaches if breach.rule == rule and words in str(breach)]
    assert found, str(caught.value)
    assert not node or node in {breach.node for breach in found}
    assert all(f"{rule}: " in str(caught.value) and f"Remedy: {breach.remedy}" in str(breach) for breach in found)


def test_every_rule_is_broken_above() -> None:
    assert {case[0] for case in CASES} | {"file-ending"} == {rule.name for rule in RULES}


def test_kubeflow_wants_a_yaml_file(tmp_path: Path) -> None:
    path = tmp_path / "pipeline.json"
    path.write_text(json.dumps(VERTEX))
    answer = mnist_tfx("compile", "--check", path, "--target", "kubeflow")
    assert answer.code == 1 and "file-ending: the pipeline" in answer.err and "ending in .yaml" in answer.err
    assert "accelerator-name: task Trainer" in answer.err, "all breaches are told at once"


def test_a_file_for_one_target_breaks_the_others_words_alone() -> None:
    with pytest.raises(BrokenRules) as caught:
        check(read_compiled(GOLDEN / GOLDEN_FILES["kubeflow-gpu"]), "vertex")
    assert [(breach.rule, breach.node) for breach in caught.value.breaches] == [("accelerator-name", "Trainer")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot read"),
        ("{", "is no compiled pipeline"),
        ("[1]", "neither `pipelineSpec` nor `pipelineInfo`"),
        ('{"pipelineSpec": {"pipelineInfo": {"name": 3}}}', "is no compiled pipeline"),
        ('{"pipelineSpec": 3}', "`pipelineSpec` and `runtimeConfig` are objects there"),
        ('{"pipelineSpec": {}, "runtimeConfig": 3}', "`pipelineSpec` and `runtimeConfig` are objects there"),
    ],
)
def test_what_is_no_compiled_pipeline_is_wrong_usage(tmp_path: Path, text: str | None, message: str) -> None:
    path = tmp_path / "pipeline.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UsageError) as caught:
        check_file(path)
    assert message in str(caught.value)
    assert mnist_tfx("compile", "--check", path).code == 2


def _places(node: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Of everything in a JSON value."""
    keys = list(node) if isinstance(node, dict) else list(range(len(node))) if isinstance(node, list) else []
    return [path, *(place for key in keys for place in _places(node[key], (*path, key)))]


PLACES = _places(KUBEFLOW)


@hypothesis.settings(max_examples=150, deadline=None, derandomize=True, database=None)
@hypothesis.given(place=st.sampled_from(PLACES), value=st.sampled_from([None, True, 3, "", "{", "a: [", [], [3], {}]))
def test_a_file_broken_anywhere_is_judged_and_nothing_worse(place: tuple[Any, ...], value: Any) -> None:
    spec = copy.deepcopy(KUBEFLOW)
    if place:
        target = spec
        for key in place[:-1]:
            target = target[key]
        target[place[-1]] = value
    else:
        spec = {"pipelineSpec": value}
    with contextlib.suppress(UsageError, BrokenRules):
        check(parse_compiled(spec, Path("pipeline.yaml")), "kubeflow")


def test_pipelines_that_tfx_compiles_and_kubeflow_refuses(tmp_path: Path) -> None:
    """A Resolver, a file-based ExampleGen and a condition, compiled by TFX itself, from no code of ours."""
    path = tmp_path / "pipeline.yaml"
    _compile_with_tfx(path)
    with pytest.raises(BrokenRules) as caught:
        check_file(path)
    found = {(breach.rule, breach.node) for breach in caught.value.breaches}
    assert found == {
        ("no-resolver", "latest-model-resolver"),
        ("no-custom-driver", "CsvExampleGen"),
        ("no-condition-on-importer", "StatisticsGen"),
        ("no-local-paths", "CsvExampleGen"),
        ("container-command", "CsvExampleGen"),  # the image, which is TFX's own
        ("container-command", "StatisticsGen"),
        ("readable-root", ""),  # a YAML file by TFX itself names none
    }


def _compile_with_tfx(path: Path) -> None:
    from tfx import v1 as tfx
    from tfx.dsl.experimental.conditionals.conditional import Cond

    examples = tfx.components.CsvExampleGen(input_base="/home/me/csv")
    schema = tfx.dsl.Importer(source_uri="gs://b/schema", artifact_type=tfx.types.standard_artifacts.Schema).with_id(
        "s"
    )
    with Cond(schema.outputs["result"].future()[0].uri != "x"):
        statistics = tfx.components.StatisticsGen(
            examples=examples.outputs["examples"], schema=schema.outputs["result"]
        )
    latest = tfx.dsl.Resolver(
        strategy_class=tfx.dsl.experimental.LatestArtifactStrategy,
        model=tfx.dsl.Channel(type=tfx.types.standard_artifacts.Model),
    ).with_id("latest-model-resolver")
    pipeline = tfx.dsl.Pipeline("p", "gs://b/root", components=[examples, schema, statistics, latest])
    config = tfx.orchestration.experimental.KubeflowV2DagRunnerConfig(use_pipeline_spec_2_1=True)
    tfx.orchestration.experimental.KubeflowV2DagRunner(config, str(path.parent), path.name).run(pipeline)
