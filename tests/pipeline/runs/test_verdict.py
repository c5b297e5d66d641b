"""The one verdict: whatever tells how a run ended says the same, for every way in which a run can end."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import ml_metadata as mlmd
import pytest

from mnist_tfx.components.evaluator.quality import Scores
from mnist_tfx.components.report.run import Artifact, Execution, Run
from mnist_tfx.contract.errors import DataRejected, PipelineError, UsageError
from mnist_tfx.pipeline.home import Home
from mnist_tfx.pipeline.runs.records import close_killed_runs, record_canceled, record_end, record_failure
from mnist_tfx.pipeline.runs.store import load_run
from mnist_tfx.pipeline.runs.views import tell_runs
from tests.fixtures.command import mnist_tfx
from tests.fixtures.recorded_runs import Node, record_run
from tests.fixtures.report_content import sample_content

RUN_ID = "20261122-143000-mnist"
End = Callable[[mlmd.MetadataStore], object]


def gate() -> Node:
    return Node("DataGate", {"blessing": ("DataBlessing", {})})


def judged(quality: int = 1, infra: int = 1) -> list[Node]:
    """As far as both blessings."""
    return [
        gate(),
        Node("Trainer"),
        Node("Evaluator", {"blessing": ("ModelBlessing", {"blessed": quality})}),
        Node("InfraValidator", {"blessing": ("InfraBlessing", {"blessed": infra})}),
    ]


def pusher(state: str = "COMPLETE", **properties: int | str) -> Node:
    return Node("Pusher", {"pushed_model": ("PushedModel", properties)}, state)


def ended(end: str) -> End:
    return lambda store: record_end(store, RUN_ID, end, 12.3)  # type: ignore[arg-type]


def of_data(store: mlmd.MetadataStore, execution: object) -> None:
    record_failure(store, execution, DataRejected("a digit is missing"))  # type: ignore[arg-type]


def of_trainer(store: mlmd.MetadataStore, execution: object) -> None:
    record_failure(store, execution, ValueError("NaN in the weights"))  # type: ignore[arg-type]


@dataclass(frozen=True)
class Ending:
    """A way in which a run ends, and what each place says of it.

    Attributes:
        nodes: what ran.
        end: what is noted at the end; None: nothing.
        words: in `runs`, `show` and the index of reports.
        outcome: in the report's JSON, and
        label: on its page.
        closing: in the columns "verdict" and "pushed version" of the closing table.
        exit_code: of the command; None: it has none.
        going_on: whether the home is locked.
    """

    nodes: Sequence[Node]
    end: End | None
    words: str
    outcome: str
    label: str
    closing: tuple[str, str]
    exit_code: int | None
    going_on: bool = False


ENDINGS = {
    "pushed": Ending(
        [*judged(), pusher(pushed=1, pushed_version="7")],
        ended("complete"),
        "pushed version 7",
        "pushed",
        "Pushed",
        ("blessed", "7"),
        0,
    ),
    "pushed, from the cache": Ending(
        [*judged(), pusher("CACHED", pushed=1, pushed_version="7")],
        ended("complete"),
        "pushed version 7 (cached)",
        "pushed",
        "Pushed",
        ("blessed", "7"),
        0,
    ),
    "not pushed": Ending(
        [*judged(), pusher(pushed=0, not_pushed="a study recipe")],
        ended("complete"),
        "not pushed: a study recipe",
        "not pushed",
        "Good enough, but not pushed",
        ("blessed", "not pushed: a study recipe"),
        0,
    ),
    "not blessed by TFMA": Ending(
        [*judged(quality=0), pusher(pushed=0)],
        ended("complete"),
        "not blessed",
        "not blessed",
        "Not good enough to push",
        ("not blessed", ""),
        4,
    ),
    "not blessed by the infra validator": Ending(
        [*judged(infra=0), pusher(pushed=0)],
        ended("complete"),
        "not blessed",
        "not blessed",
        "Not good enough to push",
        ("not blessed", ""),
        4,
    ),
    "complete": Ending(
        [gate(), Node("Trainer")],
        ended("complete"),
        "complete",
        "complete",
        "Complete, without a push",
        ("complete", ""),
        0,
    ),
    "data rejected": Ending(
        [Node("DataGate", state="RUNNING", note=of_data)],
        ended("failed"),
        "data rejected",
        "data rejected",
        "Data rejected",
        ("data rejected", ""),
        3,
    ),
    "failed": Ending(
        [gate(), Node("Trainer", state="RUNNING", note=of_trainer)],
        ended("failed"),
        "failed: Trainer",
        "failed",
        "Failed",
        ("failed", ""),
        1,
    ),
    "failed after a push": Ending(
        [*judged(), pusher(pushed=1, pushed_version="7"), Node("Report", state="RUNNING", note=of_trainer)],
        ended("failed"),
        "failed: Report",
        "failed",
        "Failed",
        ("failed", "7"),
        1,
    ),
    "stopped": Ending(
        [gate(), Node("Trainer", state="RUNNING", note=record_canceled)],
        ended("stopped"),
        "stopped",
        "stopped",
        "Stopped",
        ("stopped", ""),
        130,
    ),
    "killed": Ending(
        [gate(), Node("Trainer", state="RUNNING")],
        close_killed_runs,
        "killed",
        "killed",
        "Killed",
        ("killed", ""),
        None,
    ),
    "killed, and nobody noticed yet": Ending(
        [gate(), Node("Trainer", state="RUNNING")],
        None,
        "killed",
        "killed",
        "Killed",
        ("killed", ""),
        None,
    ),
    "running": Ending(
        [gate(), Node("Trainer", state="RUNNING")],
        None,
        "running",
        "running",
        "Still running",
        ("running", ""),
        None,
        going_on=True,
    ),
}


@pytest.fixture(params=ENDINGS)
def ending(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Ending]:
    """A home whose only run ended so."""
    given = ENDINGS[request.param]
    home = Home(tmp_path)
    store = record_run(home.metadata_db, RUN_ID, given.nodes)
    if given.end is not None:
        given.end(store)
    with home.lock() if given.going_on else nullcontext():
        yield given


def test_every_place_says_the_same(ending: Ending, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home = Home(tmp_path)
    run = load_run(home.metadata_db, RUN_ID)
    verdict = run.verdict()
    assert (verdict.outcome, str(verdict), verdict.exit_code) == (ending.outcome, ending.words, ending.exit_code)

    for command in (("runs",), ("show", RUN_ID)):
        answer = mnist_tfx(*command, "--home", tmp_path)
        told = json.loads(mnist_tfx(*command, "--json", "--home", tmp_path).out)
        assert f" {ending.words} " in f"{answer.out} ".replace("\n", " "), command
        assert (told[0] if command == ("runs",) else told["summary"])["verdict"] == ending.words

    assert tell_runs([run], as_json=False) == (ending.exit_code or 0)
    *_, row, _ = capsys.readouterr().out.splitlines()
    cells = [cell.strip() for cell in row.split("│")]
    assert (cells[5], cells[6]) == ending.closing
    assert tell_runs([run], as_json=True) == (ending.exit_code or 0)
    [closing] = json.loads(capsys.readouterr().out)
    assert closing["exit_code"] == ending.exit_code
    assert closing["blessed"] is (ending.closing[0] == "blessed")
    assert closing["pushed_version"] == (ending.closing[1] if ending.closing[1] == "7" else None)
    assert closing["not_pushed"] == ("a study recipe" if ending.outcome == "not pushed" else None)

    reported = json.loads(mnist_tfx("report", RUN_ID, "--json", "--home", tmp_path).out)
    assert reported["outcome"] == ending.outcome
    assert f'<span class="hidden">Verdict: </span>{ending.label}</h2>' in Path(reported["report"]).read_text()
    assert ending.words in (home.reports / "index.html").read_text()


def test_a_failure_is_told_with_its_reason_and_its_remedy(tmp_path: Path) -> None:
    store = record_run(tmp_path / "metadata.db", RUN_ID, ENDINGS["failed"].nodes)
    record_end(store, RUN_ID, "failed", 12.3)
    [failure] = load_run(tmp_path / "metadata.db", RUN_ID).verdict().failures
    assert (failure.component, failure.message) == ("Trainer", "NaN in the weights")
    assert str(Home(tmp_path).log("mnist", RUN_ID)) in failure.remedy


def test_names_and_reasons_are_told_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    """They are the user's own: a class is called as its folder, and `push.reason` is any text."""
    quality = sample_content().quality
    assert quality is not None
    worst = replace(quality.classes[0], name="cat [red] :smile: [/b]", scores=Scores(0.0, 0.001, 0.0))
    quality = replace(quality, classes=(worst, *quality.classes[1:]))
    said = {"pushed": 0, "not_pushed": "see [link] and [/why]"}
    pusher = Execution(1, "Pusher", "COMPLETE", outputs=(Artifact("pushed_model", 2, "PushedModel", "/made", said),))
    assert tell_runs([Run(RUN_ID, "mnist", (pusher,), end="complete", quality=quality)], as_json=False) == 0
    table = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "cat [red] :smile: [/b] 0.0010" in table and "not pushed: see [link] and [/why]" in table


@pytest.mark.parametrize(
    ("error", "closing", "exit_code"),
    [
        (PipelineError("the disk of /home is full"), "failed", 1),
        (DataRejected("a digit is missing"), "data rejected", 3),
        (UsageError("no such slice"), "failed", 2),
    ],
)
def test_a_run_that_ml_metadata_knows_nothing_of_has_its_table_its_message_and_its_exit_code(
    error: PipelineError, closing: str, exit_code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Run(RUN_ID, "mnist", end="failed", error=error, seconds=1.0, log=Path("/home/run.log"))
    assert tell_runs([run], as_json=False) == exit_code
    out, err = capsys.readouterr()
    assert f"│ {closing}" in out
    assert err == f"error: {error}\nlog of mnist: /home/run.log\n"
    assert tell_runs([run, run], as_json=True) == exit_code
    told, _ = json.loads(capsys.readouterr().out)
    assert (told["exit_code"], told["error"], told["accuracy"]) == (exit_code, str(error), None)
    assert (told["components"], told["blessed"], told["pushed_version"]) == ([], False, None)


@pytest.mark.parametrize(
    ("errors", "exit_code"),
    [
        ([None, None], 0),
        ([DataRejected("a digit is missing"), DataRejected("two are")], 3),
        ([None, DataRejected("a digit is missing")], 3),
        ([DataRejected("a digit is missing"), UsageError("no such slice")], 1),
        ([UsageError("no such slice"), None, DataRejected("a digit is missing")], 1),
    ],
)
def test_runs_that_fail_for_different_reasons_have_exit_code_1(
    errors: Sequence[PipelineError | None], exit_code: int
) -> None:
    runs = [Run(RUN_ID, "mnist", end="failed" if error else "complete", error=error) for error in errors]
    assert tell_runs(runs, as_json=True) == exit_code
