"""The criteria against their formulas, their gradients, and PyTorch's own losses; what they refuse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from tunesmith.errors import DataError, UserError
from tunesmith.recipe import Recipe
from tunesmith.recipe.loss_names import LOSSES
from tunesmith.tasks import classes
from tunesmith.tasks.losses import NAMED, Criterion, CrossEntropy, Focal, SymmetricCrossEntropy, check_criterion, make_criterion
from tunesmith.tasks.weights import class_weights

pytestmark = pytest.mark.unit

WEIGHTS = torch.tensor([0.5, 2.0, 1.0, 3.0])
STATE = {"labels": ["a", "b", "c", "d"], "label_counts": [60, 5, 20, 15]}
SEVERAL = {**STATE, "multi_label": True}


def recipe(task: str = "text-classification", base_dir: Path | None = None, **training: Any) -> Recipe:
    values = {"task": task, "model": {"model_name_or_path": "a/b"}, "data": {"train": "hf://a/b"}, "training": training}
    return Recipe.from_dict(values, base_dir=base_dir, check_paths=False)


@pytest.fixture
def logits() -> Tensor:
    return (torch.randn(8, 4, generator=torch.Generator().manual_seed(1)) * 2).requires_grad_()


@pytest.fixture
def one() -> Tensor:
    return torch.tensor([0, 1, 2, 3, 3, 2, 1, 0])


@pytest.fixture
def many() -> Tensor:
    return (torch.rand(8, 4, generator=torch.Generator().manual_seed(2)) < 0.4).float()


def gradient(criterion: Any, logits: Tensor, targets: Tensor) -> Tensor:
    (found,) = torch.autograd.grad(criterion(logits, targets).sum(), logits)
    return found


class TestCrossEntropy:
    def test_it_is_pytorchs(self, logits: Tensor, one: Tensor) -> None:
        for smoothing in (0.0, 0.2):
            for weights in (None, WEIGHTS):
                theirs = torch.nn.CrossEntropyLoss(weights, label_smoothing=smoothing, reduction="none")
                torch.testing.assert_close(CrossEntropy(smoothing, weights)(logits, one), theirs(logits, one))

    def test_any_number_of_classes_is_pytorchs_binary_one_averaged(self, logits: Tensor, many: Tensor) -> None:
        for weights in (None, WEIGHTS):
            theirs = torch.nn.BCEWithLogitsLoss(pos_weight=weights, reduction="none")
            torch.testing.assert_close(CrossEntropy(0.2, weights)(logits, many), theirs(logits, many * 0.8 + 0.1).mean(-1))


class TestFocal:
    @pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0, 5.0])
    def test_it_is_lins_formula(self, logits: Tensor, one: Tensor, gamma: float) -> None:
        """``FL(p_t) = -alpha_t (1 - p_t)^gamma log(p_t)``, with alpha the class's weight."""
        p = logits.softmax(-1).gather(-1, one[:, None])[:, 0]
        torch.testing.assert_close(Focal(gamma)(logits, one), -((1 - p) ** gamma) * p.log())
        torch.testing.assert_close(Focal(gamma, 0.0, WEIGHTS)(logits, one), -WEIGHTS[one] * (1 - p) ** gamma * p.log())

    @pytest.mark.parametrize("gamma", [0.5, 2.0])
    def test_its_gradient_is_that_of_the_formula(self, logits: Tensor, one: Tensor, gamma: float) -> None:
        """dFL/dz_k = gamma (1-p)^(gamma-1) p log(p) (δ - p_k) - (1-p)^gamma (δ - p_k), δ being 1 for the target."""
        q = logits.softmax(-1)
        p = q.gather(-1, one[:, None])
        delta = functional.one_hot(one, 4) - q
        wanted = (gamma * (1 - p) ** (gamma - 1) * p * p.log() - (1 - p) ** gamma) * delta
        torch.testing.assert_close(gradient(Focal(gamma), logits, one), wanted.detach(), atol=1e-6, rtol=1e-4)

    def test_without_gamma_it_is_cross_entropy(self, logits: Tensor, one: Tensor, many: Tensor) -> None:
        for targets in (one, many):
            torch.testing.assert_close(Focal(0.0, 0.2, WEIGHTS)(logits, targets), CrossEntropy(0.2, WEIGHTS)(logits, targets))

    def test_for_any_number_of_classes_each_is_a_choice(self, logits: Tensor, many: Tensor) -> None:
        p = logits.sigmoid()
        right = torch.where(many > 0, p, 1 - p)
        plain = -((1 - right) ** 2) * right.log()
        torch.testing.assert_close(Focal(2.0)(logits, many), plain.mean(-1))
        weighed = plain * torch.where(many > 0, WEIGHTS, torch.ones(4))
        torch.testing.assert_close(Focal(2.0, 0.0, WEIGHTS)(logits, many), weighed.mean(-1))

    def test_what_is_sure_counts_less(self) -> None:
        sure, unsure = torch.tensor([[3.0, 0.0]]), torch.tensor([[0.1, 0.0]])
        target = torch.tensor([0])
        parts = [float(Focal(2.0)(x, target) / CrossEntropy()(x, target)) for x in (sure, unsure)]
        assert parts[0] < 0.01
        assert parts[1] > 0.2


class TestSymmetricCrossEntropy:
    def test_it_is_wangs_formula(self, logits: Tensor, one: Tensor) -> None:
        """alpha·CE + beta·RCE, RCE being ``-Σ p_k log q_k`` of the one-hot label q with log 0 replaced by A."""
        p, q = logits.softmax(-1), functional.one_hot(one, 4).float()
        reverse = -(p * torch.where(q > 0, torch.zeros(()), torch.tensor(-4.0))).sum(-1)
        wanted = 0.3 * functional.cross_entropy(logits, one, reduction="none") + 0.7 * reverse
        torch.testing.assert_close(SymmetricCrossEntropy(0.3, 0.7, -4.0)(logits, one), wanted)
        torch.testing.assert_close(SymmetricCrossEntropy(0.3, 0.7, -4.0, 0.0, WEIGHTS)(logits, one), wanted * WEIGHTS[one])

    def test_for_any_number_of_classes_each_is_a_choice(self, logits: Tensor, many: Tensor) -> None:
        p = logits.sigmoid()
        reverse = 4 * torch.where(many > 0, 1 - p, p).mean(-1)
        plain = functional.binary_cross_entropy_with_logits(logits, many, reduction="none").mean(-1)
        torch.testing.assert_close(SymmetricCrossEntropy(0.3, 0.7, -4.0)(logits, many), 0.3 * plain + 0.7 * reverse)

    def test_a_wrong_label_costs_no_more_than_a_bound_beside_cross_entropy(self) -> None:
        wrong = torch.tensor([[60.0, 0.0]])
        only_reverse = SymmetricCrossEntropy(0.0, 1.0, -4.0)
        assert float(only_reverse(wrong, torch.tensor([1]))) == pytest.approx(4.0)
        assert float(CrossEntropy()(wrong, torch.tensor([1]))) > 50


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_stays_finite_with_its_gradient_at_the_extremes(name: str) -> None:
    for gamma in ({"gamma": 0.5}, {}) if name == "focal" else ({},):
        criterion: Criterion = NAMED[name](**gamma)
        logits = torch.tensor([[200.0, -200.0], [-200.0, 200.0], [0.0, 0.0]], requires_grad=True)
        for targets in (torch.tensor([0, 0, 1]), torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 0.0]])):
            losses = criterion(logits, targets)
            assert losses.shape == (3,)
            assert losses.isfinite().all()
            assert gradient(criterion, logits, targets).isfinite().all()


@pytest.mark.parametrize("name", LOSSES)
def test_units_do_not_know_of_one_another(name: str, logits: Tensor, one: Tensor, many: Tensor) -> None:
    criterion = NAMED[name](weights=WEIGHTS, smoothing=0.1)
    for targets in (one, many):
        alone = torch.cat([criterion(logits[i : i + 1], targets[i : i + 1]) for i in range(8)])
        torch.testing.assert_close(criterion(logits, targets), alone)


@pytest.mark.parametrize("name", LOSSES)
def test_half_precision_is_computed_in_full(name: str, logits: Tensor, one: Tensor) -> None:
    assert NAMED[name]()(logits.bfloat16(), one).dtype == torch.float32


def test_a_mixed_batch_is_both_losses_by_their_shares(logits: Tensor, one: Tensor) -> None:
    share, other = torch.tensor([1.0, 0.0, 0.3, 0.5, 0.9, 0.1, 0.6, 0.2]), one.flip(0).roll(1)
    criterion = Focal(2.0, 0.0, WEIGHTS)
    mixed = {"labels": one, "mixed_labels": other, "mix_share": share, "input_ids": logits}
    wanted = share * criterion(logits, one) + (1 - share) * criterion(logits, other)
    torch.testing.assert_close(classes.loss(logits, mixed, criterion), wanted.sum())
    assert list(classes.inputs_of(mixed)) == ["input_ids"]


class TestMaking:
    def test_names_and_arguments_are_those_of_the_recipe(self) -> None:
        assert set(NAMED) == set(LOSSES)
        assert make_criterion(recipe(), STATE) == CrossEntropy()
        assert make_criterion(recipe(label_smoothing_factor=0.1), STATE) == CrossEntropy(0.1)
        assert make_criterion(recipe(loss="focal"), STATE) == Focal(2.0)
        assert make_criterion(recipe(loss="focal", loss_args={"gamma": 3}), STATE) == Focal(3)
        made = make_criterion(recipe(loss="symmetric_cross_entropy", loss_args={"alpha": 6, "beta": 0.1}), STATE)
        assert made == SymmetricCrossEntropy(6, 0.1, LOSSES["symmetric_cross_entropy"]["log_zero"])
        for name, arguments in LOSSES.items():
            criterion = NAMED[name]()
            assert {key: getattr(criterion, key) for key in arguments} == arguments

    def test_weights_are_those_of_the_training_labels(self) -> None:
        made = make_criterion(recipe(class_weights="inverse"), STATE)
        wanted = class_weights(recipe(class_weights="inverse").training, STATE)
        assert isinstance(made, CrossEntropy)
        assert made.weights is not None
        assert made.weights.tolist() == pytest.approx(wanted)

    def test_the_mean_weight_of_a_unit_of_training_is_one(self) -> None:
        targets = torch.repeat_interleave(torch.arange(4), torch.tensor(STATE["label_counts"]))
        for kind in ("inverse", "effective", {"b": 9}):
            losses = make_criterion(recipe(class_weights=kind), STATE)(torch.zeros(100, 4), targets)
            assert float(losses.mean()) == pytest.approx(float(torch.tensor(4.0).log()), rel=1e-5)

    def test_it_is_tried_before_training(self) -> None:
        for state in (STATE, SEVERAL):
            for name in LOSSES:
                check_criterion(recipe(loss=name, class_weights="effective"), state)
        with pytest.raises(DataError, match="there is no class e in the training data"):
            check_criterion(recipe(class_weights={"e": 2}), STATE)

    @pytest.mark.parametrize(
        "training",
        [{"loss": "focal"}, {"class_weights": "inverse"}, {"class_weights": {"a": 2}}, {"label_smoothing_factor": 0.1}],
    )
    def test_a_task_with_a_loss_of_its_own_refuses_settings_without_effect(self, training: dict[str, Any]) -> None:
        (key,) = training
        with pytest.raises(UserError, match=rf"training.{key} has no effect on the task .*loss of its own"):
            check_criterion(recipe("support.tasks_ctc:SpeechToText", **training), {"vocabulary": ["a"]})
        check_criterion(recipe("support.tasks_ctc:SpeechToText"), {"vocabulary": ["a"]})
