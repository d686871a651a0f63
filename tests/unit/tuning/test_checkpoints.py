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


def whole(trial: Trial, run: Path, *steps: int) -> None:
    for step in steps:
        place = Path(checkpoints.place_of(folder_of(str(run), trial.number), step))
        place.mkdir(parents=True)
        (place / checkpoints.WHOLE).touch()


def test_a_trial_is_worth_its_best_checkpoint_that_is_still_there(tmp_path: Path) -> None:
    trial = Trial(3, {}, reports=(Report(5, 0.9), Report(10, 0.9), Report(15, 0.5)))
    assert checkpoints.best_of(str(tmp_path), trial) is None
    whole(trial, tmp_path, 10, 15)
    found = checkpoints.best_of(str(tmp_path), trial)
    assert found is not None
    assert found[0].endswith("step-00000010"), "Ray Train keeps the later one of two that are equal"
    assert found[1] == Report(10, 0.9)
    whole(trial, tmp_path, 5)
    assert checkpoints.best_of(str(tmp_path), trial) == (checkpoints.place_of(folder_of(str(tmp_path), 3), 5), trial.best)
    checkpoints.drop(str(tmp_path), trial)
    assert checkpoints.best_of(str(tmp_path), trial) is None


def test_a_checkpoint_of_ray_train_is_whole_once_that_is_noted(tmp_path: Path) -> None:
    place = Path(checkpoints.place_of(str(tmp_path), 5))
    assert checkpoints.note_whole(str(tmp_path), 5) == 0, "it was dropped meanwhile"
    assert not place.exists()
    (place / "inner").mkdir(parents=True)
    (place / "inner" / "weights").write_bytes(b"12345")
    assert checkpoints.steps_of(str(tmp_path)) == []
    assert checkpoints.note_whole(str(tmp_path), 5) == 5
    assert checkpoints.steps_of(str(tmp_path)) == [5]
