"""Gradual unfreezing against its definition: which parameters change at which update, on one rank and two, and resumed."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook

from support.data import pictures, texts
from support.fits import Fitted, fitted, on_ranks, prepare_in_memory, recipe_for
from support.models import tiny_bert, tiny_resnet
from tunesmith.errors import UserError
from tunesmith.recipe.adaptation import UnfreezeSection
from tunesmith.recipe.training import TrainingSection
from tunesmith.training import fit as loop
from tunesmith.training.checkpoint import Start
from tunesmith.training.fit import FitContext, fit
from tunesmith.training.parameters import LayerGroup, layer_groups
from tunesmith.training.unfreeze import Freezing, stages

pytestmark = pytest.mark.unit

SETTINGS: dict[str, Any] = {
    "learning_rate": 1e-3,
    "logging_steps": 1,
    "weight_decay": 0.1,
    "per_device_train_batch_size": 8,
    "batching": "fixed",
    "num_train_epochs": 3,
    "unfreeze": {"every_epochs": 0.5},
}
ROWS = texts(80)  # 64 to train on: 8 updates an epoch
FROM = [0, 4, 8, 12]
"""First updates of the head, layer 1 with the pooler, layer 0, the embeddings."""


def groups(n: int) -> list[LayerGroup]:
    return [LayerGroup(f"g{i}", (f"g{i}.weight",), (f"g{i}",)) for i in range(n)]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"every_epochs": 1}, [(0, "g0"), (10, "g1"), (20, "g2"), (30, "g3"), (40, "g4")]),
        ({"every_epochs": 0.25}, [(0, "g0"), (3, "g1"), (5, "g2"), (8, "g3"), (10, "g4")]),
        ({"every_steps": 7, "groups_at_once": 3}, [(0, "g0"), (7, "g1 g2 g3"), (14, "g4")]),
        ({"every_epochs": 0.001}, [(0, "g0"), (1, "g1"), (2, "g2"), (3, "g3"), (4, "g4")]),
    ],
)
def test_the_schedule(settings: dict[str, Any], expected: list[tuple[int, str]]) -> None:
    found = stages(groups(5), UnfreezeSection.model_validate(settings), steps=50, per_epoch=10)
    assert [(stage.step, " ".join(group.name for group in stage.groups)) for stage in found] == expected


@pytest.mark.parametrize("settings", [{"every_epochs": 1}, {"every_steps": 10}, {"every_steps": 9, "groups_at_once": 2}])
def test_a_schedule_longer_than_training_is_refused_with_one_that_fits(settings: dict[str, Any]) -> None:
    with pytest.raises(
        UserError, match=r"9 layer groups.*the last \(g8\) would begin after step \d+, and there are 30"
    ) as caught:
        stages(groups(9), UnfreezeSection.model_validate(settings), steps=30, per_epoch=10)
    told = str(caught.value).partition("Write ")[2].partition(", or train")[0]
    for one in told.split(" or "):
        key, _, value = one.removeprefix("training.unfreeze.").partition("=")
        mended = UnfreezeSection.model_validate({**settings, key: float(value) if "epochs" in key else int(value)})
        assert stages(groups(9), mended, steps=30, per_epoch=10)[-1].step < 30


def watched(context: FitContext, recipe: Any, rows: Any) -> tuple[list[set[str]], list[set[str]], Fitted]:
    """The parameters that changed in each update, those that have moments after it, and what came out."""
    spec, data = prepare_in_memory(recipe, rows)
    changed: list[set[str]] = []
    moved: list[set[str]] = []
    step = loop.train_step

    def spy(spec: Any, trainee: Any, *rest: Any) -> Any:
        model = trainee.accelerator.unwrap_model(trainee.model)
        before = {name: value.clone() for name, value in model.named_parameters()}
        norm = step(spec, trainee, *rest)
        changed.append({name for name, value in model.named_parameters() if not torch.equal(value, before[name])})
        state = trainee.optimizer.optimizer.state
        moved.append({name for name, value in model.named_parameters() if value in state})
        return norm

    loop.train_step = spy
    try:
        result = fit(spec, data, context)
    finally:
        loop.train_step = step
    told = [event["loss"] for event in result.history if event["kind"] == "step"]
    return changed, moved, (told, {name: value.numpy().copy() for name, value in result.model.state_dict().items()})


def expected_each(model: torch.nn.Module) -> list[set[str]]:
    parts = [set(group.parameters) for group in layer_groups(model)]
    assert len(parts) == len(FROM)
    return [set().union(*(part for part, first in zip(parts, FROM, strict=True) if first <= step)) for step in range(24)]


def test_each_update_changes_the_unfrozen_groups_and_nothing_else(tmp_path: Path) -> None:
    recipe = recipe_for("text-classification", tiny_bert(tmp_path / "base"), tmp_path / "a", **SETTINGS)
    spec, _ = prepare_in_memory(recipe, ROWS)
    wanted = expected_each(spec.task.build_model(recipe, spec.preprocessing.state))
    changed, moved, _ = watched(FitContext(), recipe, ROWS)
    # Rows of an embedding that no text used stay, but some row changes: sets of tensors are equal all the same.
    assert changed == wanted
    assert moved == wanted, "weight decay and moments come with the first gradient, not before"


def watched_on_rank(context: FitContext, recipe: Any, rows: Any) -> Any:
    torch.manual_seed(context.rank)
    return watched(context, recipe, rows)


def test_two_ranks_equal_one_and_send_only_what_is_trained(tmp_path: Path) -> None:
    base = tiny_bert(tmp_path / "base")
    alone = recipe_for(
        "text-classification",
        base,
        tmp_path / "a",
        **{**SETTINGS, "per_device_train_batch_size": 16, "unfreeze": {"every_steps": 3}},
    )
    shared = recipe_for("text-classification", base, tmp_path / "b", **{**SETTINGS, "unfreeze": {"every_steps": 3}})
    one = watched(FitContext(), alone, ROWS)
    first, second = on_ranks(2, watched_and_sent, shared, ROWS)
    assert first[0][0] == one[0] == second[0][0]
    np.testing.assert_allclose(first[0][2][0], one[2][0], atol=2e-5)
    for name, value in one[2][1].items():
        np.testing.assert_allclose(value, first[0][2][1][name], atol=4e-4, err_msg=name)
        np.testing.assert_array_equal(first[0][2][1][name], second[0][2][1][name])
    spec, _ = prepare_in_memory(shared, ROWS)
    sizes = {name: 4 * p.numel() for name, p in spec.task.build_model(shared, spec.preprocessing.state).named_parameters()}
    assert first[1] == [sum(sizes[name] for name in changed) for changed in one[0]], "bytes of gradients in each update"


def watched_and_sent(context: FitContext, recipe: Any, rows: Any) -> Any:
    """What was watched, and the bytes of gradients that DDP exchanged in each update."""
    sent: list[int] = []
    rewrapped, step = Freezing.advance, loop.train_step

    def counting(state, bucket):  # DDP checks annotations of its hooks, and does not know them as text
        sent[-1] += bucket.buffer().numel() * bucket.buffer().element_size()
        return allreduce_hook(None, bucket)

    hooked: list[Any] = []

    def advance(self: Any, model: Any, accelerator: Any, at: int) -> Any:
        model = rewrapped(self, model, accelerator, at)
        sent.append(0)
        if not any(model is one for one in hooked):
            model.register_comm_hook(None, counting)
            hooked.append(model)
        return model

    Freezing.advance = advance  # type: ignore[method-assign]
    try:
        return watched(context, recipe, rows), sent
    finally:
        Freezing.advance, loop.train_step = rewrapped, step  # type: ignore[method-assign]


class Interrupted(Exception):
    """Stands for the death of the process."""


def interrupted_and_resumed(context: FitContext, recipe: Any, rows: Any, folder: str, at: int) -> tuple[Fitted, Fitted]:
    """An uninterrupted fit, and one that ended after ``at`` updates and went on from the checkpoint there."""
    kept = Path(folder, "kept")

    def report(metrics: dict[str, float], place: Path | None) -> None:
        if metrics["step"] == at and place is not None:
            shutil.copytree(place, kept)
        if metrics["step"] > at:
            raise Interrupted

    def fresh(**values: Any) -> FitContext:
        return FitContext(rank=context.rank, world_size=context.world_size, **values)

    whole = fitted(fresh(report=lambda *_: None), recipe, rows)
    with pytest.raises(Interrupted):
        fitted(fresh(report=report), recipe, rows)
    if context.world_size > 1:
        torch.distributed.barrier()
    return whole, fitted(fresh(start=Start(kept), report=lambda *_: None), recipe, rows)


def assert_goes_on_exactly(whole: Fitted, resumed: Fitted, at: int) -> None:
    assert resumed[0] == whole[0][at:]
    for name, value in whole[1].items():
        np.testing.assert_array_equal(value, resumed[1][name], err_msg=name)


def resumable(tmp_path: Path, **settings: Any) -> Any:
    base = tiny_bert(tmp_path / "base", dropout=0.1)
    return recipe_for("text-classification", base, tmp_path / "a", **{**SETTINGS, "save_steps": 2, **settings})


@pytest.mark.parametrize("at", [2, 4, 6, 10])
def test_a_run_resumed_within_a_stage_equals_an_uninterrupted_one(at: int, tmp_path: Path) -> None:
    recipe = resumable(tmp_path, num_train_epochs=2)
    assert_goes_on_exactly(*interrupted_and_resumed(FitContext(), recipe, ROWS, str(tmp_path), at), at)


def test_two_ranks_resume_within_a_stage_to_the_last_bit(tmp_path: Path) -> None:
    recipe = resumable(tmp_path, unfreeze={"every_steps": 3}, per_device_train_batch_size=4, num_train_epochs=2)
    first, second = on_ranks(2, interrupted_and_resumed, recipe, ROWS, str(tmp_path), 4)
    assert_goes_on_exactly(*first, 4)
    for name, value in first[1][1].items():
        np.testing.assert_array_equal(value, second[1][1][name])


def test_running_statistics_stand_still_until_their_group_is_unfrozen(tmp_path: Path) -> None:
    recipe = recipe_for(
        "image-classification", tiny_resnet(tmp_path / "base"), tmp_path / "a", **{**SETTINGS, "unfreeze": {"every_steps": 4}}
    )
    spec, data = prepare_in_memory(recipe, pictures(80))
    seen: list[dict[str, Any]] = []
    step = loop.train_step

    def spy(spec: Any, trainee: Any, *rest: Any) -> Any:
        norm = step(spec, trainee, *rest)
        seen.append({name: value.clone() for name, value in trainee.model.named_buffers() if "running_mean" in name})
        return norm

    loop.train_step = spy
    try:
        result = fit(spec, data, FitContext())
    finally:
        loop.train_step = step
    order = [group.modules for group in layer_groups(result.model)]
    for name in seen[0]:
        first = 4 * next(i for i, modules in enumerate(order) if name.rpartition(".")[0] in modules)
        moved = [i for i in range(1, len(seen)) if not torch.equal(seen[i][name], seen[i - 1][name])]
        assert moved == list(range(first, len(seen))), name


def test_the_schedule_is_told_before_the_first_update(tmp_path: Path) -> None:
    recipe = recipe_for("text-classification", tiny_bert(tmp_path / "base"), tmp_path / "a", **SETTINGS)
    spec, data = prepare_in_memory(recipe, ROWS)
    history = fit(spec, data, FitContext(steps=1)).history
    first = next(i for i, event in enumerate(history) if event["kind"] == "step")
    notes = [event["message"] for event in history[:first] if event["kind"] == "note"]
    assert notes == [
        "Unfreezing head (2 tensors) from the start",
        "Unfreezing bert.encoder.layer.1, bert.pooler (18 tensors) from update 4 on (epoch 0.5)",
        "Unfreezing bert.encoder.layer.0 (16 tensors) from update 8 on (epoch 1)",
        "Unfreezing bert.embeddings (5 tensors) from update 12 on (epoch 1.5)",
    ]


def test_what_the_model_itself_has_frozen_stays_so() -> None:
    import transformers

    config = transformers.DistilBertConfig(vocab_size=50, dim=16, n_layers=1, n_heads=2, hidden_dim=16)
    model = transformers.DistilBertForSequenceClassification(config)
    still = model.distilbert.embeddings.position_embeddings.weight.requires_grad_(False)
    settings = TrainingSection.model_validate({"unfreeze": {"every_steps": 1}})
    freezing = Freezing(model, settings, 10, 10)
    freezing.begin()
    freezing.advance(model, None, 9)  # type: ignore[arg-type]
    assert not still.requires_grad
    assert all(p.requires_grad for p in model.parameters() if p is not still)
