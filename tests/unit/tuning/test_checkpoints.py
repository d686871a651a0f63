"""A trial keeps its best and its latest checkpoint; half of one is none."""

from __future__ import annotations

from pathlib import Path

from tunesmith.tuning import checkpoints
from tunesmith.tuning.trials import Report, Trial, folder_of


def kept(folder: Path, source: Path, scores: dict[int, float]) -> list[int]:
    for step in scores:
        checkpoints.keep(source, str(folder), step, {one: score for one, score in scores.items() if one <= step})
    return checkpoints.steps_of(str(folder))


def test_the_best_and_the_latest_are_kept(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "weights").write_bytes(b"12345")
    assert kept(tmp_path / "a", source, {1: 0.5, 2: 0.9, 3: 0.7, 4: 0.8}) == [2, 4]
    assert kept(tmp_path / "b", source, {1: 0.5, 2: 0.9}) == [2]
    assert checkpoints.keep(source, str(tmp_path / "c"), 1, {1: 0.1}) == 5


def test_half_a_checkpoint_is_none(tmp_path: Path) -> None:
    half = Path(checkpoints.place_of(str(tmp_path), 7))
    half.mkdir(parents=True)
    assert checkpoints.latest(str(tmp_path)) is None
    (half / checkpoints.WHOLE).touch()
    assert checkpoints.latest(str(tmp_path)) == str(half)


def test_a_trial_is_worth_its_best_checkpoint_or_the_last_that_is_left(tmp_path: Path) -> None:
    trial = Trial(3, {}, reports=(Report(5, 0.9), Report(10, 0.5)))
    assert checkpoints.best_of(str(tmp_path), trial) is None
    for step in (5, 10):
        place = Path(checkpoints.place_of(folder_of(str(tmp_path), 3), step))
        place.mkdir(parents=True)
        (place / checkpoints.WHOLE).touch()
    found = checkpoints.best_of(str(tmp_path), trial)
    assert found is not None
    assert found.endswith("step-00000005")
    checkpoints.drop(str(tmp_path), trial)
    assert checkpoints.best_of(str(tmp_path), trial) is None
