"""`mnist-tfx compile`: for both targets, the same bytes for the same input, and nothing of this machine in them."""

from __future__ import annotations

import dataclasses
import json
import socket
from pathlib import Path
from typing import Any

import pytest
import tensorflow_data_validation as tfdv
import yaml
from kfp.pipeline_spec import pipeline_spec_pb2 as pb

from mnist_tfx.components.code_version import source_told
from mnist_tfx.components.datasets.prepared import PreparedDataset
from mnist_tfx.components.settings import InfraSettings
from mnist_tfx.contract.errors import UsageError
from mnist_tfx.kubeflow.check import BrokenRules
from mnist_tfx.kubeflow.compile import Upload, cluster_paths, compile_prepared, uploads
from mnist_tfx.kubeflow.ir import CompiledPipeline, read_compiled
from mnist_tfx.kubeflow.profiles import load_profile, profile_files
from mnist_tfx.pipeline.dag import create_pipeline
from mnist_tfx.pipeline.projects import shipped
from mnist_tfx.pipeline.recipes import Recipe
from tests.fixtures.command import mnist_tfx
from tests.fixtures.compiled import DESCRIBED, GOLDEN, GOLDEN_FILES, GOLDEN_SETTINGS, compile_described
from tests.fixtures.tiny_run import RECIPE_TOML, tiny_recipe_of

SUFFIX = {"vertex": ".json", "kubeflow": ".yaml"}


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, CompiledPipeline]:
    """Every shipped profile, compiled with the network cut off."""
    folder = tmp_path_factory.mktemp("compiled")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", _no_network)
        found = {}
        for name in profile_files():
            path = folder / (name + SUFFIX[name.partition("-")[0]])
            compile_described(name, path)
            found[name] = read_compiled(path)
    return found


def _no_network(*args: object, **kwargs: object) -> None:
    raise AssertionError(f"the network was asked for {args[0]}")


@pytest.mark.parametrize("profile", GOLDEN_FILES)
def test_the_output_is_the_golden_file(profile: str, tmp_path: Path) -> None:
    """After a change that is meant: `python -m tests.fixtures.compiled`."""
    name = GOLDEN_FILES[profile]
    compiled = compile_described(profile, tmp_path / name, settings=GOLDEN_SETTINGS[profile])
    assert compiled == (GOLDEN / name).read_text()


@pytest.mark.parametrize("profile", profile_files())
def test_every_shipped_profile_compiles_into_the_same_bytes_each_time(
    profile: str, compiled: dict[str, CompiledPipeline], tmp_path: Path
) -> None:
    path = tmp_path / compiled[profile].path.name
    compile_described(profile, path)
    assert path.read_bytes() == compiled[profile].path.read_bytes()


def test_the_dag_is_the_local_ones(compiled: dict[str, CompiledPipeline], tiny_recipe: Recipe) -> None:
    waits = {name: set(task.dependent_tasks) for name, task in compiled["vertex-cpu"].tasks().items()}
    assert waits["TfdsExampleGen"] == waits["ImportSchemaGen"] == set()
    assert waits["Transform"] == {"TfdsExampleGen", "ImportSchemaGen", "DataGate"}
    assert waits["Evaluator"] == {"TfdsExampleGen", "ImportSchemaGen", "Trainer", "Baseline"}
    assert waits["Pusher"] == {"Evaluator", "InfraValidator", "StatisticsGen", "TfdsExampleGen"}
    local = create_pipeline(tiny_recipe, DESCRIBED, cluster_paths(shipped(DESCRIBED.name), load_profile("vertex-cpu")))
    assert waits.keys() == {component.id for component in local.components}


def test_every_label_is_counted_however_many_there_are(tiny_recipe: Recipe) -> None:
    for classes, counted in ((10, 1000), (1200, 1200)):
        dataset = dataclasses.replace(DESCRIBED, class_names=tuple(map(str, range(classes))))
        paths = cluster_paths(shipped(DESCRIBED.name), load_profile("vertex-cpu"))
        [statistics] = [
            each for each in create_pipeline(tiny_recipe, dataset, paths).components if each.id == "StatisticsGen"
        ]
        options = tfdv.StatsOptions.from_json(statistics.exec_properties["stats_options_json"])
        assert options.num_rank_histogram_buckets == counted


def test_one_sigmoid_unit_is_for_two_classes(tmp_path: Path) -> None:
    recipe = tiny_recipe_of(RECIPE_TOML.replace("[model]\n", '[model]\noutput = "sigmoid"\n'))
    profile, path = load_profile("vertex-cpu"), tmp_path / "p.json"
    with pytest.raises(UsageError, match="is for two classes, and kmnist has 10"):
        compile_prepared(DESCRIBED, recipe, profile, path)
    compile_prepared(dataclasses.replace(DESCRIBED, class_names=("even", "odd")), recipe, profile, path)
    assert path.exists()


def test_every_container_runs_our_entry_point_and_tells_its_verdict(compiled: dict[str, CompiledPipeline]) -> None:
    """TFX's own neither knows the types of Kubeflow's input artifacts nor reads the launcher's copies."""
    for pipeline in compiled.values():
        for task in pipeline.tasks().values():
            component, executor = pipeline.component(task), pipeline.executor(task)
            assert component is not None and executor is not None
            assert list(executor.container.command) == ["python", "-m", "mnist_tfx.kubeflow.entrypoint"]
            assert component.output_definitions.parameters["verdict"].parameter_type == pb.ParameterType.STRING
            words = list(executor.container.args)
            declared = json.loads(words[words.index("--json_serialized_inputs_spec_args") + 1])
            for key, artifact in component.input_definitions.artifacts.items():
                schema = declared["artifacts"][key]["artifactType"]["instanceSchema"]
                assert schema == artifact.artifact_type.instance_schema and schema.startswith("title: ")


def test_on_kubeflow_artifacts_may_lie_in_another_store_than_data_and_models(tmp_path: Path) -> None:
    shared = load_profile("kubeflow-cpu", ["root=s3://artifacts/mnist", "shared=gs://data/mnist"])
    assert cluster_paths(shipped("kmnist"), shared).serving == "gs://data/mnist/serving/kmnist"
    assert uploads(DESCRIBED, shipped("kmnist"), shared)[0].destination == "gs://data/mnist/datasets/kmnist/3.0.1"
    compile_prepared(DESCRIBED, tiny_recipe_of(), shared, tmp_path / "p.yaml")
    assert read_compiled(tmp_path / "p.yaml").root == "s3://artifacts/mnist/runs/kmnist"
    with pytest.raises(UsageError, match="is not an address that Kubeflow's launcher copies from"):
        load_profile("kubeflow-cpu", ["root=https://artifacts"])
    for settings, found in (
        (["root=s3://artifacts/mnist"], r"'serving_dir' holds 's3://artifacts/mnist/serving/kmnist'.*set shared ="),
        (
            ["root=s3://artifacts/mnist", "shared=gs://data", "beam.runner=flink", "beam.job_endpoint=flink:8099"],
            "Beam's workers elsewhere cannot read 's3://artifacts/mnist/runs/kmnist'",
        ),
    ):
        with pytest.raises(BrokenRules, match=found):
            compile_prepared(DESCRIBED, tiny_recipe_of(), load_profile("kubeflow-cpu", settings), tmp_path / "p.yaml")


def test_data_and_models_may_lie_on_a_volume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    profile = load_profile(
        "kubeflow-cpu", ["volume={claim = 'data', mount_path = '/mnt/mnist'}", "root=s3://artifacts"]
    )
    assert cluster_paths(shipped("kmnist"), profile).serving == "/mnt/mnist/serving/kmnist"
    monkeypatch.chdir("/")
    folder = "/mnt/mnist/datasets/kmnist"
    assert uploads(DESCRIBED, shipped("kmnist"), profile)[0].command() == (
        f"kubectl exec mnist-tfx-upload -- mkdir -p {folder} && "
        f"kubectl cp no/such/folder/kmnist/3.0.1 mnist-tfx-upload:{folder}"
    )
    for upload in uploads(DESCRIBED, shipped("kmnist"), profile):  # copied into a folder, it keeps its name
        assert upload.source.name == Path(upload.destination).name
    compile_prepared(DESCRIBED, tiny_recipe_of(), profile, tmp_path / "p.yaml")
    pipeline = read_compiled(tmp_path / "p.yaml")
    assert {tuple(pipeline.mount_paths(task)) for task in pipeline.tasks().values()} == {("/mnt/mnist",)}
    told = {each.name: each.value for each in pipeline.executors["Trainer_executor"].container.env}
    source = source_told("tfx.components.trainer.component", "mnist_tfx.components.trainer.run_fn")
    assert told == {"MNIST_TFX_SOURCE": source, "MNIST_TFX_BACKUPS": "/mnt/mnist/backups/kmnist"}


def test_every_task_but_the_data_gate_is_tried_again(compiled: dict[str, CompiledPipeline]) -> None:
    """No platform can be told by which exit code: what the gate rejected, it would reject again."""
    for pipeline in compiled.values():
        counts = {name: task.retry_policy.max_retry_count for name, task in pipeline.tasks().items()}
        assert (counts.pop("DataGate"), counts.pop("Trainer"), set(counts.values())) == (0, 3, {1})


def test_the_trainer_has_the_gpu_in_each_targets_words(compiled: dict[str, CompiledPipeline]) -> None:
    for profile, words in (("vertex-gpu", "NVIDIA_TESLA_T4"), ("kubeflow-gpu", "nvidia.com/gpu")):
        accelerators = {
            label: (executor.container.resources.accelerator.type, executor.container.resources.accelerator.count)
            for label, executor in compiled[profile].executors.items()
        }
        assert accelerators.pop("Trainer_executor") == (words, 1)
        assert set(accelerators.values()) == {("", 0)}
    resources = compiled["vertex-gpu"].executors["Trainer_executor"].container.resources
    assert (resources.cpu_limit, resources.memory_limit) == (8, 30)  # an n1-standard-8


def test_a_dataset_with_a_configuration_has_a_pipeline_of_a_name_that_is_taken(tmp_path: Path) -> None:
    balanced = dataclasses.replace(DESCRIBED, name="emnist/balanced")
    for monitor, name in ((False, "emnist-balanced"), (True, "kmnist-monitor")):
        compile_prepared(
            balanced, tiny_recipe_of(), load_profile("kubeflow-cpu", []), tmp_path / "p.yaml", monitor=monitor
        )
        assert read_compiled(tmp_path / "p.yaml").name == name


def test_the_infra_validator_has_the_name_by_which_the_model_is_served(tmp_path: Path) -> None:
    """A staging server that serves it for good is known by it."""
    balanced = dataclasses.replace(DESCRIBED, name="emnist/balanced")
    compile_prepared(balanced, tiny_recipe_of(), load_profile("vertex-cpu"), tmp_path / "p.json")
    parameters = read_compiled(tmp_path / "p.json").tasks()["InfraValidator"].inputs.parameters
    assert parameters["model_name"].runtime_value.constant.string_value == "emnist_balanced"


def test_class_names_that_look_like_paths_are_none(tmp_path: Path) -> None:
    """Those of Open Images: the Trainer is told them, and the Report, which also has the recipe's groups of them."""
    names = ("/m/1", "/m/2")
    of_open_images = dataclasses.replace(DESCRIBED, class_names=names)
    recipe = tiny_recipe_of(RECIPE_TOML.replace("shards = 2", 'shards = 2\nclasses = { "/m/1" = ["/m/1"] }'))
    compile_prepared(of_open_images, recipe, load_profile("vertex-cpu"), tmp_path / "p.json")
    parameters = read_compiled(tmp_path / "p.json").tasks()["Report"].inputs.parameters
    assert json.loads(parameters["class_names"].runtime_value.constant.string_value) == list(names)


def test_a_search_has_the_trainers_machine_too(tmp_path: Path) -> None:
    recipe = tiny_recipe_of()
    searching = recipe.model_copy(update={"tuner": recipe.tuner.model_copy(update={"tune": True})})
    for target, ending in (("vertex", "json"), ("kubeflow", "yaml")):
        path = tmp_path / f"pipeline.{ending}"
        compile_prepared(DESCRIBED, searching, load_profile(f"{target}-gpu", []), path)
        executors = read_compiled(path).executors
        trainer, tuner = (executors[f"{task}_executor"].container.resources for task in ("Trainer", "Tuner"))
        assert tuner == trainer and tuner.accelerator.count == 1


def test_everything_lies_under_the_profiles_root(compiled: dict[str, CompiledPipeline]) -> None:
    for pipeline in compiled.values():
        assert pipeline.root == "gs://my-bucket/mnist-tfx/runs/kmnist"
        text = pipeline.path.read_text()
        assert str(DESCRIBED.data_dir) not in text and str(Path.cwd()) not in text
        assert text.count("gs://") == text.count("gs://my-bucket/mnist-tfx/")


def test_labels_of_the_profile_are_on_the_vertex_job(compiled: dict[str, CompiledPipeline]) -> None:
    labels = json.loads(compiled["vertex-gpu"].path.read_text())["labels"]
    assert labels["app"] == "mnist-tfx" and labels["tfx_runner"] == "kubeflow_v2"


def test_tasks_that_look_at_what_is_served_are_never_answered_from_the_cache(
    compiled: dict[str, CompiledPipeline],
) -> None:
    """Their inputs and parameters say nothing of it: a rollback or another recipe's push would go unseen."""
    for pipeline in compiled.values():
        cached = {name for name, task in pipeline.tasks().items() if task.caching_options.enable_cache}
        assert pipeline.tasks().keys() - cached == {"DataGate", "Baseline", "Pusher", "Report"}


def test_without_the_cache_no_task_is_answered_from_it(tmp_path: Path, tiny_recipe: Recipe) -> None:
    path = tmp_path / "pipeline.json"
    compile_prepared(DESCRIBED, tiny_recipe, load_profile("vertex-cpu", ["cache=false"]), path)
    assert not any(task.caching_options.enable_cache for task in read_compiled(path).tasks().values())


def test_dataflow_for_the_components_that_are_named(tmp_path: Path, tiny_recipe: Recipe) -> None:
    overrides = ["beam.runner=dataflow", 'beam.components=["StatisticsGen", "Transform", "Evaluator"]']
    path = tmp_path / "pipeline.json"
    compile_prepared(DESCRIBED, tiny_recipe, load_profile("vertex-cpu", overrides), path)
    runners = {
        label.removesuffix("_executor"): [word for word in executor.container.args if word.startswith("--runner=")]
        for label, executor in read_compiled(path).executors.items()
    }
    on_dataflow = {name for name, runner in runners.items() if runner == ["--runner=DataflowRunner"]}
    assert on_dataflow == {"StatisticsGen", "Transform", "Evaluator"}
    assert len(runners["DataGate"]) == 1 and runners["DataGate"][0].endswith("FnApiRunner")
    assert runners["Trainer"] == runners["Pusher"] == []
    with pytest.raises(UsageError, match=r"unknown component in beam.components 'Evalutor'\. Did you mean 'Evaluator'"):
        compile_prepared(
            DESCRIBED, tiny_recipe, load_profile("vertex-cpu", [overrides[0], 'beam.components=["Evalutor"]']), path
        )


def test_the_uploads_are_what_the_pipeline_reads(
    tiny: PreparedDataset, compiled: dict[str, CompiledPipeline], monkeypatch: pytest.MonkeyPatch
) -> None:
    data, schema = uploads(tiny, shipped("kmnist"), load_profile("vertex-gpu"))
    assert (
        data.destination == "gs://my-bucket/mnist-tfx/datasets/kmnist/3.0.1"
        and (data.source / "features.json").exists()
    )
    assert data.command().startswith("gcloud storage rsync --recursive ")
    importer = compiled["vertex-gpu"].tasks()["ImportSchemaGen"]
    assert importer.inputs.parameters["schema_file"].runtime_value.constant.string_value == schema.destination
    monkeypatch.chdir(schema.source.parents[1])
    assert schema.command() == f"gcloud storage cp kmnist/schema.pbtxt {schema.destination}"
    monkeypatch.chdir("/")
    assert Upload(Path("/no such/file"), "gs://b/f").command() == "gcloud storage cp 'no such/file' gs://b/f"


def test_the_command_writes_the_file_and_says_what_to_upload(tiny: PreparedDataset, tmp_path: Path) -> None:
    path = tmp_path / "out" / "pipeline.yaml"
    arguments = ("compile", "--target", "kubeflow", "--dataset", "kmnist", "--profile", "kubeflow-cpu", "-o", path)
    answer = mnist_tfx(*arguments, "--home", tiny.data_dir.parent)
    assert answer.code == 0, answer.err
    assert f"{path} keeps all rules" in answer.out and "gcloud storage rsync --recursive" in answer.out
    assert yaml.safe_load(path.read_text())["schemaVersion"] == "2.1.0"
    assert list(path.parent.iterdir()) == [path]
    assert tiny.fingerprint in path.read_text()
    listed = json.loads(mnist_tfx(*arguments, "--home", tiny.data_dir.parent, "--json").out)
    assert [upload["destination"].partition("mnist-tfx/")[2].split("/")[0] for upload in listed["uploads"]] == [
        "datasets",
        "schemas",
    ]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ((), 2, "compile needs --target, --dataset, --profile, --output (or --check FILE)"),
        (
            ("--target", "vertex", "--profile", "kubeflow-gpu"),
            2,
            "profile kubeflow-gpu is for kubeflow, not for vertex",
        ),
        (("--target", "kubeflow", "--profile", "kubeflow-gpu"), 2, "must be in a file ending in .yaml"),
        (("--target", "vertex", "--profile", "vertx-gpu"), 2, "Did you mean 'vertex-gpu'?"),
        (("--target", "vertex", "--profile", "vertex-gpu", "--dataset", "kmnits"), 2, "Did you mean 'kmnist'?"),
        (("--target", "vertex", "--profile", "vertex-gpu"), 1, "Run `mnist-tfx data prepare --dataset kmnist`"),
        (("--target", "vertex", "--profile", "vertex-gpu", "--profile-set", "regoin=x"), 2, "Did you mean 'region'?"),
    ],
)
def test_wrong_usage_is_told_with_the_remedy(
    tmp_path: Path, arguments: tuple[str, ...], code: int, message: str
) -> None:
    output = str(tmp_path / "pipeline.json")
    given = () if not arguments else ("--dataset", "kmnist", "-o", output, *arguments)
    answer = mnist_tfx("compile", *given, "--home", tmp_path / "home")
    assert (answer.code, message in answer.err) == (code, True), answer.err
    assert not (tmp_path / "pipeline.json").exists()


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("folder.json", "folder.json is a folder, where a file is to be. Name another place."),
        ("file/pipeline.json", "file is there already, where a folder is to be made. Name another place."),
        ("file/out/pipeline.json", "a folder on the way to it is a file. Name another place."),
    ],
)
def test_a_place_that_cannot_be_written_is_told(
    tiny: PreparedDataset, tmp_path: Path, output: str, message: str
) -> None:
    (tmp_path / "folder.json").mkdir()
    (tmp_path / "file").touch()
    arguments = ("--target", "vertex", "--dataset", "kmnist", "--profile", "vertex-gpu", "-o", tmp_path / output)
    answer = mnist_tfx("compile", *arguments, "--home", tiny.data_dir.parent)
    assert answer.code == 1 and answer.err.endswith(f"{message}\n")


def test_beam_in_the_recipe_is_refused_on_a_cluster(tiny: PreparedDataset, tmp_path: Path) -> None:
    arguments = ("--target", "vertex", "--dataset", "kmnist", "--profile", "vertex-gpu", "-o", tmp_path / "p.json")
    answer = mnist_tfx("compile", *arguments, "--set", "beam.workers=2", "--home", tiny.data_dir.parent)
    assert answer.code == 2 and "--profile-set beam.runner=dataflow" in answer.err


def test_a_staging_server_is_refused_where_it_could_not_read_the_candidate(tmp_path: Path) -> None:
    staging = InfraSettings(endpoint="staging:8500", endpoint_for_candidates_only=True)
    recipe = tiny_recipe_of().model_copy(update={"infra": staging})
    with pytest.raises(UsageError, match=r"cannot read the candidate: leave infra\.endpoint out of the recipe"):
        compile_prepared(DESCRIBED, recipe, load_profile("kubeflow-cpu"), tmp_path / "p.yaml")
    compile_prepared(DESCRIBED, recipe, load_profile("vertex-cpu"), tmp_path / "p.json")
    compile_prepared(DESCRIBED, recipe, load_profile("kubeflow-cpu"), tmp_path / "p.yaml", monitor=True)


def test_the_gate_is_part_of_every_compilation(
    tmp_path: Path, tiny_recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A component that takes a path from anywhere but `Paths` is caught where it enters."""
    monkeypatch.setattr("mnist_tfx.pipeline.dag.Pusher", _push_to_this_machine(tmp_path))
    with pytest.raises(BrokenRules) as caught:
        compile_prepared(DESCRIBED, tiny_recipe, load_profile("vertex-gpu"), tmp_path / "pipeline.json")
    [breach] = caught.value.breaches
    assert (breach.rule, breach.node) == ("no-local-paths", "Pusher") and str(tmp_path) in breach.found


def _push_to_this_machine(folder: Path) -> type:
    from mnist_tfx.components.pusher.component import Pusher

    class Careless(Pusher):
        def __init__(self, **kwargs: Any) -> None:
            super().__init__(**{**kwargs, "serving_dir": str(folder / "serving")})
            self.with_id("Pusher")

    return Careless
