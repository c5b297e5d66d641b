"""Command lines that cannot be meant: told in words with exit code 2, before any work."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from mnist_tfx.pipeline.cli import COMMANDS, main
from mnist_tfx.pipeline.home import CHECKOUT
from tests.fixtures.command import mnist_tfx
from tests.fixtures.image_folder import write_images
from tests.fixtures.run_process import COMMAND

RECIPE = """
[data]
dataset = "flowers"
image_shape = [16, 16, 3]
[evaluation]
min_accuracy = 0.5
"""
VERTEX = ("--target", "vertex", "--profile", "vertex-gpu")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project that has its recipe alone, in a folder with a space in its path."""
    folder = tmp_path / "my place" / "flowers"
    folder.mkdir(parents=True)
    (folder / "recipe.toml").write_text(RECIPE)
    return folder


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0 and f"example: mnist-tfx {command}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("schedule", "create", *VERTEX, "--cron", "0 3 * * *"), "name a dataset: --dataset NAME"),
        (("submit", *VERTEX), "name a dataset: --dataset NAME"),
        (("recipes", "--dataset", "all"), "unknown dataset 'all'. Known: digits, "),
        (("lr-find", "--dataset", "digits", "--max-rate", "inf"), "must begin above 0, and rise to a number"),
        (("prune", "--dataset", "mnits"), "unknown dataset 'mnits'. Did you mean 'mnist'?"),
        (("data", "add", "/no/such", "--dataset", "mnist", "--home", "/no/home"), "there is no folder /no/such"),
        (("monitor", "mnist", "--listen", "9000", "--page", "drift.html"), "--page and --json are of one look"),
        (("predict", "mnist", "--batch", "in", "--out", "there", "--top", "2", "--tls"), "leave out --tls, --top."),
        (("predict", "mnist", "--batch", "in", "--out", "there", "--address", "a:1"), "leave out --address."),
        (("predict", "mnist", "a.png", "--out", "there"), "--out, --part, --recipe and --set go with --batch IN"),
        (("predict", "mnist", "a.png", "--part", "9"), "--out, --part, --recipe and --set go with --batch IN"),
        (("rollback", "mnist", "--no-wait", "--address", "a:1"), "--no-wait asks no server: leave out --address."),
        (("promote", "mnist", "--no-wait", "--tls", "--timeout", "9"), "leave out --tls, --timeout."),
        (("serve", "--home", "there", "--model_base_path", "/m"), "--model_base_path says which models to serve"),
        (("compile", "--check", "p.json", *VERTEX, "--run-local", "d", "-o", "x"), "--profile, --output, --run-local."),
        (("compile", "--check", "p.json", "--as", "vertex", "--in-bucket"), "leave out --as, --in-bucket."),
        (("feedback", "mnist", "--export", "there", "--test"), "--test goes with --labels FILE"),
        (("feedback", "mnist", "--labels", "labels.csv", "--limit", "3"), "--limit goes with --export DIR"),
        (("init", "flowers", "--tfds", "digits", "--max-unreadable", "0.1"), "--max-unreadable goes with --images DIR"),
        (("monitor", "mnist", "--every", "60"), "--every goes with --listen PORT"),
        (("submit", *VERTEX, "--dataset", "mnist", "--poll", "1"), "--poll goes with --wait"),
    ],
)
def test_wrong_usage_is_told(arguments: tuple[str, ...], words: str) -> None:
    answer = mnist_tfx(*arguments)
    assert (answer.code, answer.out) == (2, "")
    assert words in answer.err and "Did you mean 'all'" not in answer.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("monitor", "mnist", "--since", "0m"), "'0m' is no span of time"),
        (("monitor", "mnist", "--since", "9999999999d"), "'9999999999d' is no span of time"),
        (("predict", "mnist", "a.png", "--top", "0"), "must be above 0, got 0"),
        (("monitor", "mnist", "--listen", "65536"), "must be from 0 to 65535"),
        (("tensorboard", "--port", "-1"), "must be from 0 to 65535"),
        (("init", "flowers", "--images", "there", "--project", "mine"), "unrecognized arguments: --project mine"),
    ],
)
def test_a_value_that_does_not_fit_is_told(
    arguments: tuple[str, ...], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*arguments])
    assert ended.value.code == 2 and words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("data", "prepare", "--from", "."), "where a project's data are, its recipe says"),
        (("feedback", "mnist", "--export", "there"), "the project's model is 'flowers', not 'mnist'"),
        (("compile", *VERTEX, "-o", "x.json"), "data prepare --dataset flowers` (with the same --home or --project)"),
        (("status", "flowers"), "run --dataset mnist (or --project DIR)"),
        (("show", "latest"), "run --dataset mnist (or --project DIR)"),
        (("schema", "diff"), "dataset 'flowers' has no schema: cannot read"),
    ],
)
def test_what_a_project_is_told(project: Path, arguments: tuple[str, ...], words: str) -> None:
    answer = mnist_tfx(*arguments, "--project", project)
    assert answer.code in (1, 2) and words in answer.err


def test_the_model_of_a_configuration_of_a_dataset_is_found(project: Path) -> None:
    (project / "recipe.toml").write_text(RECIPE.replace("flowers", "emnist/mnist"))
    answer = mnist_tfx("feedback", "emnist_mnist", "--export", project / "there", "--project", project)
    assert answer.code == 2 and f"no request log {project}/var/requests/emnist_mnist/requests-*" in answer.err


def test_in_a_projects_folder_its_own_name_is_known(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    for dataset in ("flowers", "mnist"):
        listed = json.loads(mnist_tfx("recipes", "--dataset", dataset, "--json").out)
        assert {each["dataset"] for each in listed} == {dataset}
    (project / "recipe.toml").write_text("servings = 4\n")  # of another program
    assert mnist_tfx("recipes", "--dataset", "mnist").code == 0


def test_a_schema_that_is_no_text_is_told(project: Path) -> None:
    (project / "schema.pbtxt").write_bytes("# für Bäume".encode("latin-1"))
    answer = mnist_tfx("schema", "update", "--project", project)
    assert answer.code == 2 and f"{project / 'schema.pbtxt'} is no UTF-8" in answer.err


def test_a_schema_that_does_not_parse_is_told_by_monitoring(project: Path) -> None:
    (project / "schema.pbtxt").write_text("feature {")
    (project / "var" / "serving" / "flowers").mkdir(parents=True)
    answer = mnist_tfx("monitor", "flowers", "--project", project)
    assert answer.code == 2 and f"{project / 'schema.pbtxt'}: 1:" in answer.err


def test_a_project_may_be_called_all(project: Path) -> None:
    write_images(project / "images", 20)
    images = 'dataset = "all"\nimages = "images"\nresize = [16, 16]'
    (project / "recipe.toml").write_text(RECIPE.replace('dataset = "flowers"', images))
    assert "unknown recipe of all 'deep'" in mnist_tfx("run", "--project", project, "--recipe", "deep").err
    answer = mnist_tfx("data", "prepare", "--project", project, "--json")
    assert [each["dataset"] for each in json.loads(answer.out)] == ["all"], answer.err


def test_the_first_run_of_a_project_is_made_by_what_is_told(project: Path) -> None:
    assert f"Make one: mnist-tfx run --project '{project}'\n" in mnist_tfx("runs", "--project", project).out


def test_a_project_without_runs_has_nothing_to_prune(project: Path) -> None:
    answer = mnist_tfx("prune", "--project", project)
    assert answer.code == 0 and answer.out.startswith("0 removed"), answer.err


def test_of_a_machine_for_a_project_the_shipped_datasets_are_not_asked(project: Path) -> None:
    asked = json.loads(mnist_tfx("doctor", "--json", "--project", project).out)["checks"]
    assert {"home", "disk"} <= {check["name"] for check in asked}
    assert not [check for check in asked if check["name"].startswith("data ")]


def test_a_name_that_no_model_can_have_makes_no_folder(tmp_path: Path) -> None:
    assert mnist_tfx("init", tmp_path / "My Flowers", "--images", tmp_path).code == 2
    assert not (tmp_path / "My Flowers").exists()


def test_a_result_that_nobody_reads_keeps_its_exit_code(project: Path) -> None:
    """As with `| head`: doctor says 1 where the home cannot be written to, also to a reader that has gone away."""
    arguments = ["doctor", "--project", str(project), "--home", str(project / "recipe.toml")]
    command = [sys.executable, "-c", COMMAND, *arguments]
    with subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout and process.stderr
        process.stdout.close()
        assert (process.wait(), process.stderr.read()) == (1, b"")


def test_a_closed_output_is_the_null_device(tmp_path: Path) -> None:
    """Else the log would be the next file to be opened, and standard output's number its own."""
    predict = ["predict", "mnist", "--batch", "in", "--out", str(tmp_path / "out"), "--home", str(tmp_path)]
    command = ["sh", "-c", 'exec "$@" <&- >&-', "sh", sys.executable, "-c", COMMAND, *predict]
    answer = subprocess.run(command, cwd=CHECKOUT, stderr=subprocess.PIPE, text=True)
    assert answer.returncode in (1, 2) and answer.stderr.startswith("error: "), answer.stderr
