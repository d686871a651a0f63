"""Every key that mends something works for every kind of task: two ranks train as one, and a killed training as another.

What each key does is tested against its definition elsewhere; here, that it does it everywhere. Where a task has no use for a
key, that is said before anything is started.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.cases import CASES
from support.fits import on_ranks
from support.remedies import CLASSES, KEPT, REMEDIES, TASKS, Trained, parts, recipe_with, trained, trained_twice
from tunesmith.data.old import OldPlaces
from tunesmith.data.prepare import prepare
from tunesmith.errors import UserError
from tunesmith.tasks import load_task
from tunesmith.training.base_weights import base_weights
from tunesmith.training.finish import finish
from tunesmith.training.fit import FitContext
from tunesmith.verbs.train import train

pytestmark = [pytest.mark.unit, pytest.mark.timeout(600)]


@pytest.mark.parametrize("case", TASKS)
def test_every_remedy_trains_on_two_ranks_as_on_one_and_survives_a_kill(
    case: str, tmp_path: Path, subtests: pytest.Subtests
) -> None:
    """All of a task in one group of processes."""
    remedies = [remedy for remedy, (_, cases) in REMEDIES.items() if case in cases]
    recipes = {remedy: recipe_with(remedy, case, tmp_path / remedy) for remedy in remedies}
    zero, one = on_ranks(2, trained_twice, list(recipes.values()), timeout=300)
    found = {remedy: whole for remedy, (whole, _) in zip(remedies, zero, strict=True)}
    for remedy, (whole, resumed), (other, _) in zip(remedies, zero, one, strict=True):
        with subtests.test(remedy=remedy, task=case):
            same(whole.tensors, other.tensors, 0, "between the ranks")
            assert resumed.losses == whole.losses[KEPT:]
            same(whole.tensors, resumed.tensors, 0, "after the kill")
            assert remedy == "plain" or differs(whole, found["plain"]), "it has an effect"
            if CASES[case].cut_freely:
                alone = trained(recipes[remedy].override("training.per_device_train_batch_size=8"), FitContext())
                np.testing.assert_allclose(whole.losses, alone.losses, atol=5e-5, rtol=1e-4)
                same(whole.tensors, alone.tensors, 2e-5, "from one rank")
                assert told(whole) == pytest.approx(told(alone), abs=1e-3, rel=1e-3, nan_ok=True)


def same(one: dict[str, Any], other: dict[str, Any], tolerance: float, what: str) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        np.testing.assert_allclose(value, other[name], rtol=10 * tolerance, atol=tolerance, err_msg=f"{name} differs {what}")


def differs(one: Trained, other: Trained) -> bool:
    """Whether they ended with other weights, or had other ones all along."""
    return one.tensors.keys() != other.tensors.keys() or any(
        not np.allclose(value, other.tensors[name], rtol=1e-4, atol=1e-6) for name, value in one.tensors.items()
    )


def told(one: Trained) -> list[float]:
    """The losses of every evaluation and the drops of every retention set."""
    return [event["loss" if event["kind"] == "eval" else "drop"] for event in one.told]


@pytest.mark.parametrize("case", TASKS)
def test_what_is_kept_is_mixed_and_calibrated(case: str, tmp_path: Path) -> None:
    recipe = recipe_with("plain", case, tmp_path)
    trained_twice(FitContext(), [recipe])
    asked = recipe.override("training.wise_ft=0.25", "evaluation.calibrate=temperature")
    (spec, _), kept = parts(asked), Path(recipe.training.output_dir, "step-5", "model")
    task = load_task(recipe.task)
    tuned = task.load_model(str(kept)).state_dict()
    prepared = prepare(asked, task, output_dir=recipe.training.output_dir)
    records = finish(asked, spec.task, prepared, OldPlaces(), kept, {}).records

    base, mixed = base_weights(task, asked, prepared.state), task.load_model(str(kept)).state_dict()
    calibration = records["calibration"]
    moved = 0
    for name, value in tuned.items():
        if name in base and name != f"{calibration.get('layer')}.weight" and name != f"{calibration.get('layer')}.bias":
            np.testing.assert_allclose(mixed[name], 0.75 * base[name] + 0.25 * value, atol=1e-6, err_msg=name)
            moved += not np.array_equal(base[name], value)
    assert moved, "training changed what is mixed"
    if case in CLASSES:
        assert calibration.get("folded") or "cannot tell a temperature" in calibration["skipped"]
    else:
        assert calibration["skipped"] == "this task's outputs are not one logit for each class"


@pytest.mark.parametrize("case", [name for name in TASKS if name not in CLASSES])
@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("training.loss=focal", "training.loss has no effect on the task"),
        ("training.class_weights=inverse", "training.class_weights has no effect on the task"),
        ("training.label_smoothing_factor=0.1", "training.label_smoothing_factor has no effect on the task"),
        ("training.sampling=balanced", "has no classes to draw by"),
        ("data.augment=[{name: hflip}]", "data.augment: the task .* cannot augment its examples"),
    ],
)
def test_what_a_task_has_no_use_for_is_refused_before_anything_is_started(
    case: str, setting: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tunesmith.cluster.connect.connect", lambda *_, **__: pytest.fail("Ray was started"))
    recipe = CASES[case].recipe(tmp_path / case).override(setting)
    with pytest.raises(UserError, match=said) as caught:
        train(recipe)
    assert "→" in str(caught.value)
    assert caught.value.exit_code == 2
    shutil.rmtree(tmp_path / case)
