from __future__ import annotations

from pathlib import Path

import pytest

from mnist_tfx.pipeline.text_files import replace_text


def test_a_link_stays_and_what_it_leads_to_is_written(tmp_path: Path) -> None:
    (tmp_path / "served").mkdir()
    (tmp_path / "page.html").symlink_to("served/drift.html")
    for text in ("first", "second"):
        replace_text(tmp_path / "page.html", text)
        assert (tmp_path / "page.html").is_symlink() and (tmp_path / "served" / "drift.html").read_text() == text
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["drift.html", "page.html", "served"]


def test_what_cannot_be_put_in_place_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "page.html").mkdir()
    with pytest.raises(IsADirectoryError):
        replace_text(tmp_path / "page.html", "text")
    assert [path.name for path in tmp_path.rglob("*")] == ["page.html"]


def test_another_process_may_write_at_the_same_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replace = Path.replace

    def after_another(partial: Path, target: Path) -> Path:
        monkeypatch.setattr(Path, "replace", replace)
        with monkeypatch.context() as other:
            other.setattr("os.getpid", lambda: 1)
            replace_text(target, "the other's")
        return replace(partial, target)

    monkeypatch.setattr(Path, "replace", after_another)
    replace_text(tmp_path / "page.html", "ours")
    assert (tmp_path / "page.html").read_text() == "ours"
