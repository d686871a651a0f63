"""A model sharded over ranks (FSDP2) is judged: each of its forward passes is a collective, so all ranks make as many."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from support.data import MemorySplit, texts
from support.fits import on_ranks, prepare_in_memory, recipe_for
from support.models import tiny_bert
from tunesmith.recipe import Recipe
from tunesmith.tasks.base import Metrics
from tunesmith.training.fit import FitContext
from tunesmith.training.retention import Watch
from tunesmith.training.spec import OldData
from tunesmith.training.validation import predictor_for, rehearse, validate

pytestmark = pytest.mark.unit

ROWS = texts(60)
HELD_OUT = 24


def judged(context: FitContext, recipe: Recipe, sharded: bool) -> tuple[int, Metrics, dict[str, Metrics]]:
    """The number of batches, the validation metrics and the drift of a model that is sharded over all ranks, or whole."""
    spec, data = prepare_in_memory(recipe, ROWS, HELD_OUT)
    assert data.validation is not None
    torch.manual_seed(0)
    model = spec.task.build_model(recipe, spec.preprocessing.state)
    old = OldData(MemorySplit(spec.task, ROWS[:HELD_OUT], spec.preprocessing), "drift")
    watch = Watch(spec, context, {"old": old}, model)
    if sharded:
        shard(model)
    rehearse(spec, model, data.validation, context)
    batches = len(predictor_for(spec, model).batches(data.validation.lengths))
    return batches, validate(spec, model, data.validation, context), watch.judge(model)


def shard(model: torch.nn.Module) -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh("cpu", (torch.distributed.get_world_size(),))
    for layer in model.get_submodule("bert.encoder.layer").children():
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)


def test_batches_that_do_not_come_out_even_are_no_mismatch(tmp_path: Path) -> None:
    settings = {"per_device_eval_batch_size": 8, "metric_for_best_model": "accuracy"}
    recipe = recipe_for("text-classification", tiny_bert(tmp_path / "base", spread=0.2), tmp_path / "a", **settings)
    batches, *alone = judged(FitContext(), recipe, sharded=False)
    assert batches == 3

    found = on_ranks(2, judged, recipe, True, timeout=60)

    assert [one[0] for one in found] == [3, 3]
    for _, *together in found:
        for one, other in zip(together, alone, strict=True):
            assert_close(one, other)


def assert_close(one: object, other: object) -> None:
    if isinstance(one, dict) and isinstance(other, dict):
        assert one.keys() == other.keys()
        for key, value in one.items():
            assert_close(value, other[key])
    else:
        assert one == pytest.approx(other, abs=1e-5, nan_ok=True)
