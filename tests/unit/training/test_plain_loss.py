"""The gap compares the same loss on both sides, whatever the criterion."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from support.data import texts
from support.fits import prepare_in_memory, recipe_for
from support.models import tiny_bert
from tunesmith.tasks import classes
from tunesmith.tasks.losses import CrossEntropy, Focal
from tunesmith.training.fit import FitContext, FitData, fit
from tunesmith.training.groups import Weighed
from tunesmith.training.plain_loss import Beside, beside, plain_sum

pytestmark = pytest.mark.unit


def uneven() -> list[dict[str, Any]]:
    """More texts of one class than of the other."""
    rows = texts(120)
    return [row for row in rows if row["label"] == "low"] + [row for row in rows if row["label"] == "high"][:20]


@pytest.mark.parametrize(
    "settings",
    [
        {"loss": "focal", "loss_args": {"gamma": 3.0}},
        {"label_smoothing_factor": 0.3},
        {"class_weights": "inverse"},
        {"loss": "symmetric_cross_entropy"},
        {},
    ],
    ids=str,
)
def test_a_model_that_does_not_move_has_no_gap_to_its_training_rows(settings: dict[str, Any], tmp_path: Path) -> None:
    base = tiny_bert(tmp_path / "base", dropout=0.0)
    recipe = recipe_for("text-classification", base, tmp_path, learning_rate=1e-12, num_train_epochs=1, **settings)
    spec, data = prepare_in_memory(recipe, uneven())

    def sure_of_itself() -> torch.nn.Module:
        model = spec.task.build_model(recipe, spec.preprocessing.state)
        with torch.no_grad():
            model.classifier.weight.mul_(40)  # type: ignore[operator, union-attr]
        return model

    result = fit(spec, FitData(data.train, data.train), FitContext(build=sure_of_itself))
    (line,) = [event for event in result.history if event["kind"] == "eval"]
    assert line["gap"] == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("several", [False, True])
def test_plain_losses_are_kept_beside_the_criterion(several: bool) -> None:
    logits = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    targets = torch.tensor([[1.0, 0, 1], [0, 0, 0], [0, 1, 0], [1, 1, 1]]) if several else torch.tensor([0, 2, 1, 1])
    batch = {"labels": targets}
    focal = beside(Weighed(Focal(3.0), torch.tensor([1.0, 2, 3, 4])), batch)
    loss = classes.loss(logits, batch, focal)
    assert float(plain_sum(focal, batch, loss)) == pytest.approx(float(CrossEntropy()(logits, targets).sum()))
    plain = beside(CrossEntropy(), batch)
    assert not isinstance(plain, Beside)
    assert float(plain_sum(plain, batch, loss)) == float(loss)


@pytest.mark.parametrize("several", [False, True])
def test_of_mixed_examples_the_unavoidable_does_not_count(several: bool) -> None:
    """Logits that give the mixture of the labels itself cost nothing."""
    share = torch.tensor([0.3, 1.0, 0.6])
    first = torch.tensor([0, 1, 2])
    other = torch.tensor([1, 2, 2])
    one, two = (torch.nn.functional.one_hot(labels, 3).float() for labels in (first, other))
    mixture = (share[:, None] * one + (1 - share[:, None]) * two).clamp(1e-9, 1 - 1e-7)
    logits = mixture.logit() if several else mixture.log()
    batch = {"labels": one if several else first, "mixed_labels": two if several else other, "mix_share": share}
    criterion = beside(CrossEntropy(), batch)
    loss = classes.loss(logits, batch, criterion)
    assert float(loss) > 0.3
    assert float(plain_sum(criterion, batch, loss)) == pytest.approx(0, abs=1e-4)
