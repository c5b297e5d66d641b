from __future__ import annotations

import json
import re
import shutil
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from mnist_tfx.components.report.page.words import UNKNOWN
from mnist_tfx.components.report.run import Run
from mnist_tfx.contract.errors import PipelineError
from mnist_tfx.pipeline.home import Home
from mnist_tfx.pipeline.projects import shipped
from mnist_tfx.pipeline.recipes import load_recipe
from mnist_tfx.pipeline.run_recipe import run_until
from mnist_tfx.pipeline.runs.report import write_report
from mnist_tfx.pipeline.runs.store import list_runs, load_run
from tests.fixtures.command import Answer, mnist_tfx
from tests.fixtures.pages import by_id, parse, table, text
from tests.fixtures.tiny_run import TinyRun
from tests.pipeline.small_pipelines import run_small_pipeline

# Split eval has other shares of the classes than split train.
SKEWED = ("--set", "data.splits.train=train[:500]", "--set", "data.splits.eval=train[500:]")


@pytest.fixture(scope="module")
def run(tiny_run: TinyRun) -> Iterator[TinyRun]:
    """The tiny run; the versions that tests push are removed afterwards."""
    before = tiny_run.versions()
    yield tiny_run
    for version in set(tiny_run.versions()) - set(before):
        shutil.rmtree(tiny_run.home.serving("kmnist") / version)


@pytest.fixture(scope="module")
def rejected(run: TinyRun) -> Answer:
    """A run whose model is not good enough."""
    answer = run.again("--set", "min_accuracy=1.0", "--set", "baseline=none", "--set", "max_accuracy_drop=0.5")
    assert answer.code == 4
    return answer


def test_a_run_leaves_its_report_and_names_it_last(run: TinyRun) -> None:
    path = Path(run.answer.outcome["report"])
    assert path == run.home.root / "reports" / "kmnist" / f"{run.run_id}.html"
    assert run.answer.err.splitlines()[-1] == f"report of kmnist: {path}"
    page = path.read_text()
    assert page.startswith("<!DOCTYPE html>") and "could not be made" not in page
    assert run.run_id in page and str(run.answer.outcome["pushed_version"]) in page
    assert not re.search(r"""(src|href)=["']https?:""", page)
    assert path.stat().st_size < 3 * 2**20


def test_a_summary_that_cannot_be_written_is_told_like_a_page(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.report("mnist", "a-run").with_suffix(".json").mkdir(parents=True)
    with pytest.raises(PipelineError, match=r"cannot write .*a-run\.json"):
        write_report(home, Run("a-run", "mnist", end="failed"))


def test_the_report_is_an_artifact_with_lineage(run: TinyRun) -> None:
    report = load_run(run.home.metadata_db, run.run_id).executions[-1]
    assert report.component == "Report"
    assert [made.type for made in report.outputs] == ["system.HTML"]
    assert {"evaluation", "pushed_model", "infra_blessing"} <= {read.name for read in report.inputs}
    assert (Path(report.outputs[0].uri) / "report.html").read_text().startswith("<!DOCTYPE html>")


def test_the_report_of_a_rejected_model_says_why_and_what_to_do(run: TinyRun, rejected: Answer) -> None:
    told = json.loads(Path(rejected.outcome["report"]).with_suffix(".json").read_text())
    assert told["outcome"] == "not blessed" and told["accuracy"] == rejected.outcome["accuracy"]
    [failure] = told["failures"]
    assert failure["component"] == "Evaluator" and "required at least 1.0000" in failure["message"]
    assert "change the bounds" in failure["remedy"]
    page = Path(rejected.outcome["report"]).read_text()
    assert "required at least 1.0000" in page and "change the bounds" in page
    of_component = load_run(run.home.metadata_db, rejected.outcome["run"]).executions[-1]
    assert (of_component.component, of_component.state) == ("Report", "COMPLETE")
    assert "required at least 1.0000" in (Path(of_component.outputs[0].uri) / "report.html").read_text()


def test_the_report_of_rejected_data_says_why_and_what_to_do(run: TinyRun) -> None:
    answer = run.again(*SKEWED)
    assert answer.code == 3
    report = Path(answer.outcome["report"])
    told = json.loads(report.with_suffix(".json").read_text())
    assert (told["outcome"], told["accuracy"], told["warnings"]) == ("data rejected", None, [])
    [failure] = told["failures"]
    assert failure["component"] == "DataGate" and "the data gate rejected kmnist" in failure["message"]
    page = report.read_text()
    assert "train against eval" in page and "raise the comparator" in page


def test_the_report_of_a_failed_run_says_why_and_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(PipelineError):
        run_small_pipeline(tmp_path, behavior="fail")
    answer = mnist_tfx("report", "latest", "--json", "--home", tmp_path)
    assert answer.code == 0
    told = json.loads(answer.out)
    assert told["outcome"] == "failed" and told["accuracy"] is None
    [failure] = told["failures"]
    assert (failure["component"], failure["message"]) == ("Trainer", "NaN in the weights")
    assert "run.log" in failure["remedy"]
    page = Path(told["report"]).read_text()
    assert "NaN in the weights" in page and "could not be made" not in page


def test_the_command_prints_the_path_and_makes_the_page_anew(run: TinyRun) -> None:
    path = Path(run.answer.outcome["report"])
    path.write_text("old")
    answer = mnist_tfx("report", run.run_id, "--home", run.home.root)
    assert (answer.code, answer.out, answer.err) == (0, f"{path}\n", "")
    assert path.read_text().startswith("<!DOCTYPE html>")


def _without_its_date(page: str) -> str:
    return re.sub(r"<p>Made .*? by mnist-tfx", "", page)


def test_the_page_at_the_end_of_a_run_is_the_one_that_is_made_anew(run: TinyRun, tmp_path: Path) -> None:
    for answer in (run.answer, run.again()):  # drawn in the run itself, and in an earlier one
        file = tmp_path / f"{answer.outcome['run']}.html"
        assert mnist_tfx("report", answer.outcome["run"], "-o", file, "--home", run.home.root).code == 0
        assert _without_its_date(Path(answer.outcome["report"]).read_text()) == _without_its_date(file.read_text())
        card = mnist_tfx("report", "--card", answer.outcome["run"], "--home", run.home.root).out
        assert (run.home.runs("kmnist") / answer.outcome["run"] / "MODEL_CARD.md").read_text() == card


def test_a_run_from_the_cache_draws_nothing_again_and_tells_its_own_times(run: TinyRun) -> None:
    # Other modules' tests run in this home, too: the cache answers with the last report on the same artifacts.
    report = load_run(run.home.metadata_db, run.again().outcome["run"]).artifact("Report", "report")
    assert report is not None
    drawn = Path(report.uri, "drawn.json")
    before = drawn.read_text()
    try:
        drawn.write_text(before.replace("Confusion matrix of split test", "drawn by the first run"))
        page = Path(run.again().outcome["report"]).read_text()
        drawn.write_text(before[: len(before) // 2])
        made_anew = Path(run.again().outcome["report"]).read_text()
    finally:
        drawn.write_text(before)
    assert "drawn by the first run" in page and "Confusion matrix of split test" not in page
    root = parse(page)
    assert run.run_id not in text(by_id(root, "verdict"))
    [_, *executions] = table(by_id(root, "lineage"))
    assert {row[4] for row in executions} == {"cached"}
    assert "Confusion matrix of split test" in made_anew and "could not be" not in made_anew


def test_the_report_may_be_written_elsewhere(run: TinyRun, tmp_path: Path) -> None:
    file = tmp_path / "new" / "report.html"
    answer = mnist_tfx("report", run.run_id, "-o", file, "--json", "--home", run.home.root)
    assert answer.code == 0 and json.loads(answer.out)["report"] == str(file)
    assert run.run_id in file.read_text()
    assert mnist_tfx("report", run.run_id, "-o", tmp_path, "--home", run.home.root).code == 2


def test_two_runs_beside_each_other(run: TinyRun, rejected: Answer) -> None:
    other = rejected.outcome["run"]
    answer = mnist_tfx("report", "--compare", run.run_id, other, "--home", run.home.root)
    assert answer.code == 0
    page = Path(answer.out.strip()).read_text()
    assert page.startswith("<!DOCTYPE html>") and run.run_id in page and other in page


def test_three_runs_beside_each_other(run: TinyRun, rejected: Answer, tmp_path: Path) -> None:
    named = (run.run_id, rejected.outcome["run"], run.run_id)
    answer = mnist_tfx("report", "--compare", *named, "--json", "--home", run.home.root)
    told = json.loads(answer.out)
    assert answer.code == 0 and told["runs"] == list(named)
    root = parse(Path(told["report"]).read_text())
    [head, accuracy, *_] = table(by_id(root, "verdict"))
    assert head == ["measure", "A", "B", "C", "mean ± standard deviation"]
    assert accuracy[1] == accuracy[3] == f"{100 * run.answer.outcome['accuracy']:.2f}%"
    settings = table(by_id(root, "changes"))[1:]
    assert ["evaluation.min_accuracy", "0.3", "1.0", "0.3"] in settings
    assert all(len(set(values)) > 1 for _, *values in settings)


def test_a_card_without_a_name_is_of_the_newest_model_that_was_judged(run: TinyRun, tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    shutil.copytree(run.home.root, home.root)
    with home.lock():
        run_until("ImportSchemaGen", load_recipe("kmnist", str(run.recipe_file)), home)
    partial, *others = list_runs(home.metadata_db)
    assert not partial.maker("Evaluator")
    judged = next(other.run_id for other in others if other.maker("Evaluator"))
    answer = mnist_tfx("report", "--card", "--home", home.root)
    assert answer.code == 0 and judged in answer.out.splitlines()[0]


def test_the_model_card_has_the_figures_and_the_way_to_them(run: TinyRun, tmp_path: Path) -> None:
    answer = mnist_tfx("report", "--card", run.run_id, "--home", run.home.root)
    assert (answer.code, answer.err) == (0, "")
    outcome, plan = run.answer.outcome, load_run(run.home.metadata_db, run.run_id).plan
    assert f"| accuracy | {100 * outcome['accuracy']:.2f}% | {UNKNOWN} | ≥ 30%, drop ≤ 100 points |" in answer.out
    assert f"| {outcome['worst_class']} | " in answer.out and f"Fingerprint: {plan.data_fingerprint}" in answer.out
    assert "| test | 200 |" in answer.out
    kept = run.home.runs("kmnist") / run.run_id / "MODEL_CARD.md"
    assert kept.read_text() == answer.out
    file = tmp_path / "card.md"
    answer = mnist_tfx("report", "--card", run.run_id, "-o", file, "--home", run.home.root)
    assert (answer.out, file.read_text()) == (f"{file}\n", kept.read_text())

    recipe = tmp_path / "recipe.toml"
    recipe.write_text(textwrap.dedent(kept.read_text().partition("recipe.toml holds:\n")[2]))
    assert load_recipe(shipped("kmnist"), str(recipe), []).model_dump(mode="json") == plan.recipe


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("latst",), "Did you mean 'latest'?"),
        ((), "name one run, or two with --compare"),
        (("latest", "--compare", "latest", "latest"), "name one run, or two with --compare"),
        (("--compare", "latest", "latst"), "Did you mean 'latest'?"),
        (("--compare", "latest"), "name one run, or two with --compare"),
        (("--card", "--compare", "latest", "latest"), "--card is the card of one run"),
    ],
)
def test_wrong_names_are_wrong_usage(run: TinyRun, arguments: tuple[str, ...], message: str) -> None:
    answer = mnist_tfx("report", *arguments, "--home", run.home.root)
    assert answer.code == 2 and message in answer.err and answer.out == ""


def test_runs_of_two_datasets_cannot_be_compared(tmp_path: Path) -> None:
    first = run_small_pipeline(tmp_path).run_id
    second = run_small_pipeline(tmp_path, name="fashion-mnist").run_id
    answer = mnist_tfx("report", "--compare", first, second, "--home", tmp_path)
    assert answer.code == 2 and "only runs of one dataset can be compared" in answer.err


def test_the_index_and_the_list_lead_to_each_report(run: TinyRun, rejected: Answer) -> None:
    index = (run.home.reports / "index.html").read_text()
    for name in (run.run_id, rejected.outcome["run"]):
        assert f'href="kmnist/{name}.html"' in index
    listed = json.loads(mnist_tfx("runs", "--json", "--home", run.home.root).out)
    reports = {each["run_id"]: each["report"] for each in listed}
    assert reports[run.run_id] == run.answer.outcome["report"]
    assert str(reports[run.run_id]) in mnist_tfx("runs", "--home", run.home.root).out


def test_a_report_that_cannot_be_written_fails_no_run(run: TinyRun, tmp_path: Path) -> None:
    reports = Home(run.home.root).reports
    reports.rename(tmp_path / "reports")
    reports.write_text("a file in the way")
    try:
        answer = run.again()
    finally:
        reports.unlink()
        (tmp_path / "reports").rename(reports)
    assert (answer.code, answer.outcome["report"]) == (0, None)
    assert "Traceback" not in answer.err and "report of" not in answer.err
