"""What the workers would refuse is refused on the driver, in the same words, on a model without weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from support.cases import CASES, Case
from support.data import texts
from support.fits import prepare_in_memory, recipe_for
from support.forgetting import with_old
from support.models import tiny_bert, tiny_resnet
from support.runs import finished_run
from tunesmith.data.old import OldPlaces
from tunesmith.data.prepare import prepare
from tunesmith.errors import DataError, ModelError, UserError
from tunesmith.tasks import load_task
from tunesmith.tasks.base import Outlines
from tunesmith.training.composition import epoch_size
from tunesmith.training.fit import FitContext, FitData, FitSpec, fit
from tunesmith.training.precheck import check_model, check_training
from tunesmith.training.updates import count_updates

pytestmark = pytest.mark.unit

ROWS = texts(48)  # 32 to train on: 4 updates an epoch


def made(tmp_path: Path, **training: Any) -> tuple[FitSpec, FitData]:
    base = tmp_path / "base"
    if not base.exists():
        tiny_bert(base)
    recipe = recipe_for("text-classification", base, tmp_path / "a", batching="fixed", num_train_epochs=2, **training)
    return prepare_in_memory(recipe, ROWS)


def check(spec: FitSpec, data: FitData, world_size: int = 1) -> None:
    size = epoch_size(data, spec.recipe.training.replay.share)
    check_model(spec, *count_updates(spec, size, FitContext(world_size=world_size)))


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_an_outline_is_the_model_without_its_weights(case: Case, tmp_path: Path) -> None:
    recipe = case.recipe(tmp_path, adaptation="full")
    task = load_task(recipe.task)
    assert isinstance(task, Outlines)
    rows = [{role: row[role] for role in task.columns if role in row} for row in case.rows(32)]
    state = task.freeze(task.merge([task.collect(rows)]), recipe)
    outline, model = task.outline(recipe, state), task.build_model(recipe, state)
    assert type(outline) is type(model)
    assert {name: p.shape for name, p in outline.named_parameters()} == {name: p.shape for name, p in model.named_parameters()}
    assert {name for name, _ in outline.named_modules()} == {name for name, _ in model.named_modules()}
    assert all(parameter.is_meta for parameter in outline.parameters())


def test_an_attention_that_only_the_workers_have_is_no_mistake(tmp_path: Path) -> None:
    spec, data = made(tmp_path, adaptation="lora")
    recipe = spec.recipe.override("model.attn_implementation=flash_attention_2")
    check(FitSpec(recipe, spec.task, spec.preprocessing), data)


@pytest.mark.parametrize(
    ("training", "kind", "words"),
    [
        ({"unfreeze": {"every_epochs": 1}}, UserError, "the schedule is longer than the training.*there are 8 steps"),
        ({"unfreeze": {"every_steps": 3}}, UserError, r"the last \(bert.embeddings\) would begin after step 9"),
        (
            {"adaptation": "lora", "lora": {"target_modules": ["qeury"]}},
            ModelError,
            r"matches no module of BertForSequenceClassification's trunk(.|\n)*such as query",
        ),
        ({"adaptation": "lora", "lora": {"target_modules": ["query", "nothing"]}}, ModelError, "'nothing'"),
        (
            {"adaptation": "lora", "lora": {"merge": False, "target_modules": ["x"]}},
            ModelError,
            "matches no module",
        ),
    ],
)
def test_it_says_what_the_workers_would(training: dict[str, Any], kind: type[Exception], words: str, tmp_path: Path) -> None:
    spec, data = made(tmp_path, **training)
    with pytest.raises(kind, match=words) as before:
        check(spec, data)
    if training.get("lora", {}).get("merge") is not False:  # of that one the workers look at the weights first
        with pytest.raises(kind) as later:
            fit(spec, data)
        assert str(before.value) == str(later.value)


class Ungrouped(torch.nn.Module):
    """A trunk without layers of one kind."""

    base_model_prefix = "trunk"

    def __init__(self) -> None:
        super().__init__()
        self.trunk = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.ReLU(), torch.nn.Linear(4, 4))
        self.classifier = torch.nn.Linear(4, 2)


@pytest.mark.parametrize("training", [{"unfreeze": {"every_steps": 1}}, {"layerwise_lr_decay": 0.9}])
def test_layers_that_cannot_be_grouped_are_refused(
    training: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, data = made(tmp_path, **training)
    monkeypatch.setattr(type(spec.task), "outline", lambda *_: Ungrouped())
    with pytest.raises(ModelError, match=r"Ungrouped cannot be grouped.*trunk \(Sequential"):
        check(spec, data)


def test_a_trunk_without_biases_is_refused_for_bitfit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec, data = made(tmp_path, adaptation="bitfit")
    bare = Ungrouped()
    for layer in (bare.trunk[0], bare.trunk[2]):
        layer.register_parameter("bias", None)
    monkeypatch.setattr(type(spec.task), "outline", lambda *_: bare)
    with pytest.raises(ModelError, match="no biases outside its head"):
        check(spec, data)


@pytest.mark.parametrize(
    "training",
    [
        {"adaptation": "lora"},
        {"adaptation": "lora", "lora": {"merge": False}, "unfreeze": {"every_steps": 2}},
        {"adaptation": "linear-probe"},
        {"adaptation": "bitfit", "layerwise_lr_decay": 0.5},
        {"unfreeze": {"every_steps": 2}, "layerwise_lr_decay": 0.9},
    ],
)
def test_what_can_be_trained_is_let_through_without_loading_weights(
    training: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, data = made(tmp_path, **training)
    monkeypatch.setattr(type(spec.task), "build_model", lambda *_: pytest.fail("the weights were loaded"))
    check(spec, data)


def test_a_task_that_has_no_outline_is_left_to_the_workers(tmp_path: Path) -> None:
    class Other:
        """A task of someone's own."""

    spec, data = made(tmp_path, unfreeze={"every_steps": 1})
    steps = count_updates(spec, len(data.train), FitContext())
    check_model(FitSpec(spec.recipe, Other(), spec.preprocessing), *steps)  # type: ignore[arg-type]


@pytest.mark.parametrize("training", [{}, {"max_steps": 5}, {"gradient_accumulation_steps": 2}, {"num_train_epochs": 1.5}])
def test_the_updates_are_counted_as_the_loop_counts_them(training: dict[str, Any], tmp_path: Path) -> None:
    base = tiny_bert(tmp_path / "base", labels=["high", "low"])
    replay = {"share": 0.3, "data": str(base)}  # the rows are in memory
    settings = {"num_train_epochs": 2, "batching": "fixed", "replay": replay, "eval_strategy": "no", **training}
    spec, data = with_old(recipe_for("text-classification", base, tmp_path / "a", **settings), ROWS, texts(20, seed=5))
    start = fit(spec, data).history[0]
    counted = count_updates(spec, epoch_size(data, 0.3), FitContext())
    assert counted == (start["steps"], start["steps_per_epoch"])


def test_too_few_rows_for_the_workers_are_refused(tmp_path: Path) -> None:
    spec, data = made(tmp_path)
    with pytest.raises(DataError, match=r"32 training examples cannot fill 33 workers × 1"):
        check(spec, data, world_size=33)


def test_convolutions_take_adapters_where_they_are_named(tmp_path: Path) -> None:
    from support.data import pictures

    base = tiny_resnet(tmp_path / "base")
    lora = {"adaptation": "lora", "lora": {"target_modules": ["convolution"]}}
    check(*prepare_in_memory(recipe_for("image-classification", base, tmp_path / "a", **lora), pictures(40)))
    auto = {"adaptation": "lora"}
    spec, data = prepare_in_memory(recipe_for("image-classification", base, tmp_path / "b", **auto), pictures(40))
    with pytest.raises(ModelError, match="matches no module of ResNetForImageClassification's trunk"):
        check(spec, data)


@pytest.mark.parametrize("evaluation", [{"slices": ["scaner"]}, {"fairness": {"groups": ["scaner"]}}])
def test_columns_that_the_verdict_needs_are_looked_for_before_training(tmp_path: Path, evaluation: dict[str, Any]) -> None:
    run = finished_run(tmp_path, "text-classification", steps=1, rows=60)
    task = load_task(run.recipe.task)
    data = prepare(run.recipe, task, output_dir=run.recipe.training.output_dir)
    check_training(run.recipe, task, data, OldPlaces())
    (key, value), *_ = evaluation.items()
    wrong = run.recipe.override(f"evaluation.{key}={json.dumps(value)}", check_paths=False)
    with pytest.raises(DataError, match="Did you mean 'scanner'"):
        check_training(wrong, task, data, OldPlaces())


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("training.metric_for_best_model=acuracy", "has no metric 'acuracy'(.|\n)*Did you mean 'accuracy'"),
        ("training={optim: sgd, optim_args: {momentumm: 0.9}}", "takes no argument 'momentumm'(.|\n)*Did you mean 'momentum'"),
        (
            "training={lr_scheduler_type: cosine, lr_scheduler_kwargs: {num_cycls: 2}}",
            "takes no argument 'num_cycls'(.|\n)*Did you mean 'num_cycles'",
        ),
    ],
)
def test_names_that_the_loop_would_refuse_are_refused_before_it(tmp_path: Path, override: str, words: str) -> None:
    run = finished_run(tmp_path, "text-classification", steps=1, rows=60)
    task = load_task(run.recipe.task)
    data = prepare(run.recipe, task, output_dir=run.recipe.training.output_dir)
    with pytest.raises(UserError, match=words):
        check_training(run.recipe.override(override, check_paths=False), task, data, OldPlaces())


def test_a_metric_that_nothing_goes_by_is_no_mistake(tmp_path: Path) -> None:
    run = finished_run(tmp_path, "text-classification", steps=1, rows=60)
    task = load_task(run.recipe.task)
    data = prepare(run.recipe, task, output_dir=run.recipe.training.output_dir)
    unjudged = "training={eval_strategy: no, load_best_model_at_end: false, metric_for_best_model: acuracy}"
    check_training(run.recipe.override(unjudged, check_paths=False), task, data, OldPlaces())
