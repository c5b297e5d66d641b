from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from mnist_tfx.contract.errors import UsageError
from mnist_tfx.pipeline.runs.seeds import each_seed, spread
from mnist_tfx.pipeline.runs.store import load_run
from mnist_tfx.pipeline.runs.views import tell_runs
from tests.fixtures.pages import by_id, parse, table
from tests.fixtures.tiny_run import TinyRun


def test_a_recipe_with_several_seeds_is_summed_up_and_compared(tiny_run: TinyRun) -> None:
    before = tiny_run.versions()
    answer = tiny_run.again("--seeds", "2", "--set", "min_accuracy=1.0")
    told = json.loads(answer.out)
    plans = [load_run(tiny_run.home.metadata_db, run["run"]).plan for run in told["runs"]]
    assert [plan.recipe["training"]["seed"] for plan in plans] == [0, 1]
    [study] = told["seeds"]
    accuracies = [run["accuracy"] for run in told["runs"]]
    assert len(set(accuracies)) == 2 and study["accuracies"] == accuracies
    assert study["mean"] == pytest.approx(sum(accuracies) / 2)
    assert study["deviation"] == pytest.approx(abs(accuracies[0] - accuracies[1]) / 2**0.5)
    assert answer.code == 4 and [run["exit_code"] for run in told["runs"]] == [4, 4]
    assert tiny_run.versions() == before
    assert f"comparison of kmnist: {study['report']}" in answer.err
    changes = table(by_id(parse(Path(study["report"]).read_text()), "changes"))
    assert ["training.seed", "0", "1"] in changes


@pytest.mark.slow
def test_each_seed_is_pushed_by_the_ordinary_rules(tiny_run: TinyRun) -> None:
    before = tiny_run.versions()
    answer = tiny_run.again("--seeds", "2", "--set", "learning_rate=0.0011")
    try:
        told = json.loads(answer.out)
        pushed = [run["pushed_version"] for run in told["runs"]]
        assert answer.code == 0 and set(tiny_run.versions()) - set(before) == set(pushed)
        assert [run["baseline_version"] for run in told["runs"]] == [before[-1], pushed[0]]
    finally:
        for version in set(tiny_run.versions()) - set(before):
            shutil.rmtree(tiny_run.home.serving("kmnist") / version)


def test_runs_that_all_fail_are_told_and_compared_nevertheless(tiny_run: TinyRun) -> None:
    answer = tiny_run.again("--seeds", "2", "--set", "training.learning_rate=1e30")
    [study] = json.loads(answer.out)["seeds"]
    assert (answer.code, study["accuracies"], study["mean"], study["deviation"]) == (1, [], None, None)
    page = Path(study["report"]).read_text()
    assert page.count("Failed") == 2 and "cannot be compared by accuracy" in page


def test_people_are_told_mean_and_deviation(capsys: pytest.CaptureFixture[str]) -> None:
    study = {"dataset": "mnist", "report": "/reports/mnist.html", **spread((0.91, 0.93, 0.92))}
    assert tell_runs([], as_json=False, seeds=[study]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[-1] == "mnist: accuracy 0.9200 ± 0.0100 over 3 seeds"
    assert err == "comparison of mnist: /reports/mnist.html\n"


def test_a_deviation_takes_two_and_a_mean_one() -> None:
    measured = (0.91, 0.93, 0.92)
    assert spread(measured) == {"accuracies": measured, "mean": pytest.approx(0.92), "deviation": pytest.approx(0.01)}
    assert spread((0.91,)) == {"accuracies": (0.91,), "mean": 0.91, "deviation": None}
    assert spread(()) == {"accuracies": (), "mean": None, "deviation": None}


def test_seeds_that_make_no_sense_are_wrong_usage() -> None:
    assert each_seed(None, ["training.seed=7"]) == [()]
    with pytest.raises(UsageError, match="2 seeds or more"):
        each_seed(1, [])
    with pytest.raises(UsageError, match="leave it out of --set"):
        each_seed(3, ["training.seed = 7"])
