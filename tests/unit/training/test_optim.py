"""Optimizers and schedules by their names, with Transformers' own as the oracle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification, SchedulerType, Trainer, TrainingArguments

from support.models import tiny_bert
from tunesmith.errors import UserError
from tunesmith.recipe.training import TrainingSection
from tunesmith.training.optim import NAMED, make_optimizer, make_schedule, on_plateau, parameter_groups

pytestmark = pytest.mark.unit

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return AutoModelForSequenceClassification.from_pretrained(tiny_bert(tmp_path_factory.mktemp("bert")))


def settings(**values: Any) -> TrainingSection:
    return TrainingSection.model_validate({"learning_rate": 0.1, **values})


def layer() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Linear(3, 2)


def one_step(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
    torch.autograd.backward(model(torch.ones(4, 3)).square().sum())
    optimizer.step()
    optimizer.zero_grad()


def test_the_parameters_that_decay_are_those_of_the_trainer(bert: Any, tmp_path: Path) -> None:
    theirs = set(Trainer(bert, TrainingArguments(str(tmp_path), report_to=[], use_cpu=True)).get_decay_parameter_names(bert))
    names = {id(parameter): name for name, parameter in bert.named_parameters()}
    decaying, spared = parameter_groups(bert, 0.1)
    assert decaying["weight_decay"] == 0.1
    assert spared["weight_decay"] == 0
    assert {names[id(p)] for p in decaying["params"]} == theirs
    assert {names[id(p)] for p in spared["params"]} == set(names.values()) - theirs


def test_frozen_parameters_are_left_to_themselves(bert: Any) -> None:
    model = torch.nn.Sequential(layer(), layer())
    model[0].requires_grad_(False)
    groups = parameter_groups(model, 0.1)
    assert [[id(p) for p in group["params"]] for group in groups] == [[id(model[1].weight)], [id(model[1].bias)]]


def test_adamw_is_fused_and_takes_the_recipes_numbers() -> None:
    made = make_optimizer(layer(), settings(adam_beta1=0.8, adam_beta2=0.9, adam_epsilon=1e-6, weight_decay=0.3), CPU)
    assert type(made) is torch.optim.AdamW
    for group in made.param_groups:
        assert (group["fused"], group["lr"], group["betas"], group["eps"]) == (True, 0.1, (0.8, 0.9), 1e-6)
    assert [group["weight_decay"] for group in made.param_groups] == [0.3, 0.0]
    assert not make_optimizer(layer(), settings(optim="adamw_torch"), CPU).param_groups[0]["fused"]


def test_more_arguments_reach_the_optimizer() -> None:
    made = make_optimizer(layer(), settings(optim="sgd", optim_args={"momentum": 0.9, "nesterov": True}), CPU)
    assert type(made) is torch.optim.SGD
    assert (made.param_groups[0]["momentum"], made.param_groups[0]["nesterov"]) == (0.9, True)
    with pytest.raises(UserError, match=r"SGD takes no argument 'momentun'\n.*Did you mean 'momentum'\? It takes: lr"):
        make_optimizer(layer(), settings(optim="sgd", optim_args={"momentun": 0.9}), CPU)
    with pytest.raises(UserError, match="Invalid momentum value"):
        make_optimizer(layer(), settings(optim="sgd", optim_args={"momentum": -1}), CPU)


CLASSES = [name for name, value in vars(torch.optim).items() if isinstance(value, type) and name != "Optimizer"]
UNFIT = {"LBFGS", "SparseAdam", "Muon"}


@pytest.mark.parametrize("name", [*NAMED, *(name for name in CLASSES if name not in UNFIT)])
def test_every_optimizer_of_torch_moves_the_parameters(name: str) -> None:
    model = layer()
    before = model.weight.detach().clone()  # type: ignore[operator]
    one_step(model, make_optimizer(model, settings(optim=name), CPU))
    assert not torch.equal(before, model.weight)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", sorted(UNFIT & set(CLASSES)))
def test_an_optimizer_that_does_not_fit_the_loop_is_refused(name: str) -> None:
    with pytest.raises(UserError, match=f"training.optim.*{name}"):
        make_optimizer(layer(), settings(optim=name), CPU)


def test_an_unknown_optimizer_brings_the_nearest_name() -> None:
    with pytest.raises(UserError, match=r"'adamw_tprch' is no optimizer\n.*Did you mean 'adamw_torch'\?.*RMSprop"):
        make_optimizer(layer(), settings(optim="adamw_tprch"), CPU)


KWARGS: dict[str, dict[str, Any]] = {
    "cosine_with_min_lr": {"min_lr": 0.01},
    "cosine_warmup_with_min_lr": {"min_lr_rate": 0.1},
    "warmup_stable_decay": {"num_decay_steps": 4},
    "polynomial": {"power": 2.0, "lr_end": 0.001},
    "cosine_with_restarts": {"num_cycles": 2},
    "inverse_sqrt": {"timescale": 5},
    "reduce_lr_on_plateau": {"patience": 0, "factor": 0.5},
    "greedy": {"patience": 0, "factor": 0.5, "min_lr": 0.001, "max_lr": 0.1},
}


@pytest.mark.parametrize("name", [kind.value for kind in SchedulerType])
def test_every_schedule_of_transformers_can_be_stepped(name: str) -> None:
    model = layer()
    told = settings(lr_scheduler_type=name, lr_scheduler_kwargs=KWARGS.get(name, {}), warmup_steps=3)
    optimizer = make_optimizer(model, told, CPU)
    schedule = make_schedule(optimizer, told, 12)
    assert on_plateau(schedule) == (name in ("reduce_lr_on_plateau", "greedy"))
    rates = []
    for step in range(12):
        one_step(model, optimizer)
        rates.append(float(schedule.get_last_lr()[0]))
        if on_plateau(schedule):
            schedule.step(1.0 + step)
        else:
            schedule.step()
    assert all(0 <= rate <= 0.1 + 1e-9 for rate in rates)
    assert (len(set(rates)) > 1) == (name != "constant")
    if name == "cosine_warmup_with_min_lr":  # its warm-up begins after its first step
        assert rates[:3] == pytest.approx([0.1 / 3, 0.2 / 3, 0.1])
    elif name not in ("constant", "reduce_lr_on_plateau", "greedy"):
        assert rates[:4] == pytest.approx([0, 0.1 / 3, 0.2 / 3, 0.1]), "warmed up in three steps"
    again = make_schedule(make_optimizer(layer(), told, CPU), told, 12)
    again.load_state_dict(schedule.state_dict())


@pytest.mark.parametrize("name", [kind.value for kind in SchedulerType])
def test_a_schedule_goes_on_from_an_offset(name: str) -> None:
    told = settings(lr_scheduler_type=name, lr_scheduler_kwargs=KWARGS.get(name, {}), warmup_steps=3)
    whole = make_schedule(make_optimizer(layer(), told, CPU), told, 12, offset=5)
    assert 0 < whole.get_last_lr()[0] <= 0.1
    if name == "linear":
        assert whole.get_last_lr()[0] == pytest.approx(0.1 * 7 / 9)


@pytest.mark.parametrize("name", ["reduce_lr_on_plateau", "greedy"])
def test_a_plateau_is_one_of_the_metric_that_chooses(name: str) -> None:
    """An accuracy that rises is no plateau, one that falls is."""
    for rising, more_is_better in ((True, True), (False, True), (True, False), (False, False)):
        model = layer()
        told = settings(lr_scheduler_type=name, lr_scheduler_kwargs={"patience": 0, "factor": 0.5, "min_lr": 1e-4})
        optimizer = make_optimizer(model, told, CPU)
        schedule = make_schedule(optimizer, told, 12, more_is_better=more_is_better)
        one_step(model, optimizer)
        for value in (0.5, 0.6, 0.7) if rising else (0.7, 0.6, 0.5):
            schedule.step(value)
        assert (optimizer.param_groups[0]["lr"] < 0.1) == (rising != more_is_better)


@pytest.mark.parametrize(
    ("name", "kwargs", "said"),
    [
        ("lineer", {}, "lineer is not a valid"),
        ("warmup_stable_decay", {}, "num_decay_steps"),
        ("cosine_with_min_lr", {}, "min_lr"),
        ("polynomial", {"lr_end": 1.0}, "lr_end"),
    ],
)
def test_a_schedule_that_cannot_be_made_says_why(name: str, kwargs: dict[str, Any], said: str) -> None:
    told = settings(lr_scheduler_type=name, lr_scheduler_kwargs=kwargs)
    with pytest.raises(UserError, match=f"training.lr_scheduler_type: '{name}'.*{said}"):
        make_schedule(make_optimizer(layer(), told, CPU), told, 12)


@pytest.mark.parametrize(
    ("name", "kwargs", "said"),
    [
        ("cosine", {"num_cycls": 2}, r"'num_cycls'\n    → Did you mean 'num_cycles'\? It takes: num_cycles"),
        ("constant", {"power": 2}, r"'power'\n    → It takes: none"),
        ("constant_with_warmup", {"power": 2}, r"'power'\n    → It takes: none"),
        ("reduce_lr_on_plateau", {"patient": 2}, r"'patient'\n    → Did you mean 'patience'\? It takes: mode, factor"),
        ("greedy", {"factr": 2}, r"'factr'\n    → Did you mean 'factor'\? It takes: mode, factor"),
    ],
)
def test_an_argument_that_a_schedule_does_not_have_brings_those_that_it_has(
    name: str, kwargs: dict[str, Any], said: str
) -> None:
    told = settings(lr_scheduler_type=name, lr_scheduler_kwargs=kwargs)
    with pytest.raises(UserError, match=f"training.lr_scheduler_kwargs: the schedule {name} takes no argument {said}"):
        make_schedule(make_optimizer(layer(), told, CPU), told, 12)


def test_layerwise_decay_lowers_the_rate_from_the_head_down_and_keeps_the_split_of_weight_decay(bert: Any) -> None:
    names = {id(parameter): name for name, parameter in bert.named_parameters()}
    depths = {"classifier": 0, "bert.pooler": 1, "bert.encoder.layer.1": 1, "bert.encoder.layer.0": 2, "bert.embeddings": 3}
    plain = {names[id(p)]: group["weight_decay"] for group in parameter_groups(bert, 0.1) for p in group["params"]}
    wanted = sorted(
        (name, pytest.approx(2e-3 * 0.9**depth), plain[name])
        for name in names.values()
        for start, depth in depths.items()
        if name.startswith(f"{start}.")
    )
    made = make_optimizer(bert, settings(learning_rate=2e-3, weight_decay=0.1, layerwise_lr_decay=0.9), CPU)
    found = sorted((names[id(p)], group["lr"], group["weight_decay"]) for group in made.param_groups for p in group["params"])
    assert found == wanted
    assert len(found) == len(names)
    assert made.param_groups[0]["lr"] == 2e-3, "the head's rate is the one that is logged"


def test_a_schedule_keeps_the_ratio_of_the_layers_rates(bert: Any) -> None:
    told = settings(learning_rate=1e-2, layerwise_lr_decay=0.5, warmup_steps=2, lr_scheduler_type="linear")
    optimizer = make_optimizer(bert, told, CPU)
    schedule = make_schedule(optimizer, told, steps=10)
    for _ in range(4):
        optimizer.step()
        schedule.step()
    rates = [group["lr"] for group in optimizer.param_groups]
    assert sorted(set(rates), reverse=True) == pytest.approx([1e-2 * 0.75 * 0.5**depth for depth in range(4)])
