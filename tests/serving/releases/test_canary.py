"""Canary, promotion and rollback by labels, in `models.config`; read back with TF Serving's own messages."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from google.protobuf import text_format
from tensorflow_serving.config.model_server_config_pb2 import ModelConfig, ModelServerConfig

from mnist_tfx.contract.errors import PipelineError, UsageError
from mnist_tfx.contract.models_config import ModelsConfig, Pin
from mnist_tfx.pipeline.commands.release_view import notes_on
from mnist_tfx.serving.releases import plans
from mnist_tfx.serving.releases.apply import Released, release
from mnist_tfx.serving.releases.state import read_state
from tests.fixtures.served_home import seen_by_a_server, store


@pytest.fixture
def serving(tmp_path: Path) -> Path:
    """Versions 1 to 4 of mnist, and another model."""
    store(tmp_path, "mnist", 1, 2, 3, 4)
    store(tmp_path, "fashion_mnist", 7)
    return tmp_path


def promote(serving: Path, version: int | None = None, model: str = "mnist") -> Released:
    return release(serving, model, lambda state: plans.promote(state, version))


def canary(serving: Path, version: int | None = None) -> Released:
    return release(serving, "mnist", lambda state: plans.canary(state, version))


def roll_back(serving: Path, to: int | None = None) -> Released:
    return release(serving, "mnist", lambda state: plans.rollback(state, to))


def follow_latest(serving: Path) -> Released:
    return release(serving, "mnist", plans.follow_latest)


def entry(serving: Path, model: str = "mnist") -> ModelConfig:
    config = text_format.Parse((serving / "models.config").read_text(), ModelServerConfig())
    [found] = [one for one in config.model_config_list.config if one.name == model]
    return found


def pinned(serving: Path) -> tuple[list[int], dict[str, int]]:
    one = entry(serving)
    return list(one.model_version_policy.specific.versions), dict(one.version_labels)


def test_the_first_promotion_pins_and_lists_every_model(serving: Path) -> None:
    promote(serving, 3)
    assert pinned(serving) == ([3], {"stable": 3})
    assert entry(serving).base_path == str(serving / "mnist")
    other = entry(serving, "fashion_mnist")
    assert (other.base_path, other.HasField("model_version_policy")) == (str(serving / "fashion_mnist"), False)
    assert read_state(serving, "mnist").live == 3
    assert read_state(serving, "fashion_mnist").live == 7
    assert (serving / "models.config").stat().st_mode & 0o044, "a server of another user has to read it"


def test_a_folder_that_holds_no_version_is_not_listed(serving: Path) -> None:
    """A server waits for a version of each model that it is told of, and says until then that it does not serve."""
    (serving / "lost+found").mkdir(mode=0)
    (serving / "backup" / "mnist").mkdir(parents=True)
    (serving / "kmnist" / ".incoming-1").mkdir(parents=True)  # the first push, which goes on
    promote(serving, 3)
    assert ModelsConfig.read(serving).models == ["fashion_mnist", "mnist"]
    assert notes_on(read_state(serving, "backup")) == ["backup has no version that a server could serve."]
    path = serving / "models.config"
    path.write_text(path.read_text().rstrip().removesuffix("}") + 'config { name: "kmnist" base_path: "/k" } }')
    promote(serving, 4)
    assert ModelsConfig.read(serving).models == ["fashion_mnist", "mnist", "kmnist"], "what a person listed stays"


def test_a_canary_is_served_beside_the_stable_version_and_promoted(serving: Path) -> None:
    promote(serving, 3)
    assert canary(serving).plan.after == 4
    assert pinned(serving) == ([3, 4], {"stable": 3, "canary": 4})
    state = read_state(serving, "mnist")
    assert (state.live, state.served) == (3, [3, 4])
    assert any("no label or version get version 4" in note for note in notes_on(state))
    assert promote(serving).plan.before == 3
    assert pinned(serving) == ([4], {"stable": 4, "canary": 4})
    store(serving, "mnist", 5)
    assert read_state(serving, "mnist").live == 4
    assert any("version 5 is stored, but not served" in note for note in notes_on(read_state(serving, "mnist")))
    canary(serving)
    assert pinned(serving) == ([4, 5], {"stable": 4, "canary": 5})
    assert seen_by_a_server(serving, "mnist") == ["1", "2", "3", "4", "5"]


def test_a_rollback_withdraws_the_canary_first_then_the_stable_version(serving: Path) -> None:
    promote(serving, 1)
    promote(serving, 3)
    canary(serving)
    assert (roll_back(serving).plan.before, read_state(serving, "mnist").live) == (4, 3)
    assert pinned(serving) == ([3], {"stable": 3, "canary": 3})
    with pytest.raises(PipelineError, match="no version of mnist is newer than the live one, 3, and was not rolled"):
        canary(serving)
    assert roll_back(serving).plan.after == 1, "what was stable before, not the next lower number"
    with pytest.raises(PipelineError, match="the last one is not removed"):
        roll_back(serving)
    assert pinned(serving) == ([1], {"stable": 1, "canary": 1})
    roll_back(serving, to=4)
    assert pinned(serving) == ([4], {"stable": 4, "canary": 4})
    assert [one.action for one in read_state(serving, "mnist").releases] == [
        "promote", "promote", "canary", "rollback", "rollback", "rollback",
    ]  # fmt: skip


def test_a_rollback_from_what_was_pinned_while_it_was_live_goes_to_the_version_below(serving: Path) -> None:
    promote(serving, 4)
    assert roll_back(serving).plan.after == 3
    assert pinned(serving) == ([3], {"stable": 3})


def test_a_rollback_passes_over_what_was_rolled_back_while_versions_were_pinned(serving: Path) -> None:
    promote(serving, 2)
    promote(serving, 3)
    roll_back(serving)
    promote(serving, 4)
    follow_latest(serving)
    assert seen_by_a_server(serving, "mnist") == ["1", "2", "3", "4"]
    assert roll_back(serving).after.live == 2


def test_a_rollback_that_was_undone_can_be_made_again(serving: Path) -> None:
    promote(serving, 2)
    promote(serving, 4)
    assert roll_back(serving).plan.after == 2
    assert roll_back(serving, to=4).plan.before == 2
    assert roll_back(serving).plan.after == 2


@contextmanager
def unwritable(serving: Path) -> Iterator[None]:
    """What is done inside fails: `models.config` cannot be replaced."""
    in_the_way = serving / ".models.container.config.incoming"
    in_the_way.mkdir()
    with pytest.raises(PipelineError, match=r"cannot change .*: Is a directory"):
        yield
    in_the_way.rmdir()


def test_a_rollback_that_failed_withdraws_nothing(serving: Path) -> None:
    promote(serving, 2)
    promote(serving, 3)
    with unwritable(serving):
        roll_back(serving)
    state = read_state(serving, "mnist")
    assert (state.releases[-1].outcome, state.live, state.withdrawn) == ("failed", 3, frozenset())
    promote(serving, 4)
    assert roll_back(serving).plan.after == 3


def test_a_promotion_that_failed_is_no_way_back(serving: Path) -> None:
    promote(serving, 1)
    with unwritable(serving):
        promote(serving, 4)
    promote(serving, 2)
    roll_back(serving, to=4)
    assert roll_back(serving).plan.after == 3, "the version below: 4 never took the place of 1"


def test_what_was_moved_aside_comes_back_under_a_pin(serving: Path) -> None:
    roll_back(serving)
    promote(serving, 2)
    with pytest.raises(UsageError, match="Bring it back: mnist-tfx rollback mnist --to 4"):
        promote(serving, 4)
    roll_back(serving, to=4)
    assert pinned(serving) == ([4], {"stable": 4})
    assert seen_by_a_server(serving, "mnist") == ["1", "2", "3", "4"]


def test_following_the_latest_again_changes_nothing_of_what_is_live(serving: Path) -> None:
    with pytest.raises(UsageError, match="follows its newest version already"):
        follow_latest(serving)
    promote(serving, 3)
    canary(serving)
    with pytest.raises(UsageError, match="version 4 of mnist is on trial"):
        follow_latest(serving)
    roll_back(serving)
    follow_latest(serving)
    assert not entry(serving).HasField("model_version_policy") and not entry(serving).version_labels
    assert seen_by_a_server(serving, "mnist") == ["1", "2", "3"]
    store(serving, "mnist", 5)
    assert read_state(serving, "mnist").live == 5


def test_what_cannot_be_meant_is_refused_in_words(serving: Path) -> None:
    with pytest.raises(PipelineError, match=r"Each push goes live at once\. .* mnist-tfx promote mnist 4"):
        canary(serving)
    with pytest.raises(UsageError, match="Make another one stable first: mnist-tfx promote mnist 3"):
        canary(serving, 4)
    with pytest.raises(UsageError, match="has no canary to promote"):
        promote(serving)
    with pytest.raises(UsageError, match="unknown version of mnist '40'"):
        canary(serving, 40)
    store(serving, "mnist", 5, whole=False)
    with pytest.raises(UsageError, match="no server can load it"):
        promote(serving, 5)
    assert not (serving / "models.config").exists()
    promote(serving, 4)
    with pytest.raises(UsageError, match="stable already"):
        promote(serving, 4)


BY_HAND = """\
# our two models
model_config_list: {  # TF Serving reads this
  config {
    name: 'fash' "ion_mnist", base_path: "/models/fashion_mnist"; model_platform: "tensorflow"
    model_version_policy < all {} >  # every version
  }
  config { name: "mnist" base_path: "/models/mnist" # as the container sees it
    logging_config { sampling_config { sampling_rate: 0.5 } }
    version_labels { key: "oldest" value: 1 }
    # pinned since the incident {
    model_version_policy: {
      specific { versions: [1, 3] }
    }
    version_labels { key: "stable", value: 3 }
  }
}
"""


def test_settings_that_a_person_wrote_stay_and_the_file_is_kept(serving: Path) -> None:
    path = serving / "models.config"
    path.write_text(BY_HAND)
    path.chmod(0o640)
    assert canary(serving, 4).before.config.kept_as == serving / "models.config.by-hand"
    assert (serving / "models.config.by-hand").read_text() == BY_HAND
    assert pinned(serving) == ([1, 3, 4], {"oldest": 1, "stable": 3, "canary": 4})
    promote(serving)
    assert pinned(serving) == ([1, 4], {"oldest": 1, "stable": 4, "canary": 4})
    assert path.read_text().startswith("# Written by mnist-tfx canary, promote and rollback")
    assert (entry(serving).base_path, entry(serving).logging_config.sampling_config.sampling_rate) == (
        "/models/mnist",
        0.5,
    )
    assert entry(serving, "fashion_mnist").model_version_policy.HasField("all")
    assert path.stat().st_mode & 0o777 == 0o640
    follow_latest(serving)
    assert pinned(serving) == ([], {})

    again = BY_HAND.replace("our two models", "the incident is over")
    path.write_text(again)
    canary(serving, 4)
    kept = {one.name: one.read_text() for one in serving.glob("models.config.by-hand*")}
    assert kept == {"models.config.by-hand": BY_HAND, "models.config.by-hand-2": again}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model_config_list {", "is no ModelServerConfig"),
        ("no: text proto", "is no ModelServerConfig"),
        ("custom_model_config { }", "has a custom_model_config"),
        ('model_config_list { config { name: "mnist" } config { name: "mnist" } }', "lists a model twice: mnist"),
        (
            'model_config_list { config { name: "mnist" version_labels { key: "stable" value: 3 } } }',
            "need a model_version_policy `specific`",
        ),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_and_left_alone(serving: Path, text: str, message: str) -> None:
    (serving / "models.config").write_text(text)
    with pytest.raises(PipelineError, match=message):
        promote(serving, 3)
    assert (serving / "models.config").read_text() == text


@pytest.mark.parametrize("text", ["", "# nothing yet", "model_config_list {}", "model_config_list {\n}\n"])
def test_a_file_without_models_is_seen_and_only_a_named_version_mends_it(serving: Path, text: str) -> None:
    """An editor or a full disk leaves it so. What was pinned is lost, and no server takes the file."""
    (serving / "models.config").write_text(text)
    [note] = [note for note in notes_on(read_state(serving, "mnist")) if "models.config" in note]
    assert "lists no model. A server that runs keeps what it has" in note
    for change in (roll_back, canary):
        with pytest.raises(
            PipelineError, match=r"lists no model: what was pinned is lost.*promote mnist VERSION\. Sto"
        ):
            change(serving)
    assert (serving / "models.config").read_text() == text
    promote(serving, 3)
    assert pinned(serving) == ([3], {"stable": 3})
    assert entry(serving, "fashion_mnist").model_platform == "tensorflow"


def test_a_plain_rollback_leaves_a_file_of_another_policy_alone(serving: Path) -> None:
    text = 'model_config_list { config { name: "mnist" model_version_policy { latest { num_versions: 2 } } } }'
    (serving / "models.config").write_text(text)
    assert roll_back(serving).after.served == [2, 3]
    assert seen_by_a_server(serving, "mnist") == ["1", "2", "3"]
    assert (serving / "models.config").read_text() == text
    promote(serving, 2)
    assert pinned(serving) == ([2], {"stable": 2})


def test_a_promotion_takes_the_place_of_a_policy_that_serves_all(serving: Path) -> None:
    text = 'model_config_list { config { name: "mnist" model_version_policy { all {} } } }'
    (serving / "models.config").write_text(text)
    assert read_state(serving, "mnist").served == [1, 2, 3, 4]
    promote(serving, 2)
    assert pinned(serving) == ([2], {"stable": 2})
    assert (serving / "models.config.by-hand").read_text() == text


def test_a_container_that_mounts_the_folder_has_a_file_of_its_own(serving: Path) -> None:
    promote(serving, 3)
    here, there = ((serving / name).read_text() for name in ("models.config", "models.container.config"))
    assert f'base_path: "{serving}/mnist"' in here
    assert 'base_path: "/models/mnist"' in there and str(serving) not in there
    unpinned = text_format.Parse(there, ModelServerConfig()).model_config_list.config[0]
    assert (unpinned.name, unpinned.model_version_policy.latest.num_versions) == ("fashion_mnist", 2)
    canary(serving)
    assert "versions: 4" in (serving / "models.container.config").read_text()


def test_a_pin_on_what_is_gone_or_a_model_that_is_not_listed_is_told(serving: Path) -> None:
    promote(serving, 3)
    (serving / "mnist" / "3" / "saved_model.pb").unlink()
    assert any(
        note.startswith("version 3 is pinned, but is not there") for note in notes_on(read_state(serving, "mnist"))
    )
    store(serving, "kmnist", 1)
    assert any("does not list kmnist" in note for note in notes_on(read_state(serving, "kmnist")))
    promote(serving, 4)
    assert notes_on(read_state(serving, "kmnist")) == []


def test_a_link_stays_a_link_and_a_cut_off_write_is_written_over(serving: Path) -> None:
    real = serving / "real.config"
    real.write_text("")
    (serving / ".real.config.incoming").write_text("half a fi")
    (serving / "models.config").symlink_to(real)
    promote(serving, 3)
    assert (serving / "models.config").is_symlink()
    assert ModelsConfig.read(serving).pin("mnist") == Pin((3,), {"stable": 3})
    assert not (serving / ".real.config.incoming").exists()
