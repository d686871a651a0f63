"""The training loop: one for a Ray Train worker, a Tune trial, a Flower client, and a test without any of them.

The training step is :func:`train_step`; :func:`fit` calls it for every update of every epoch, judges the validation split at
its cadence, hands checkpoints to ``context.report``, and can go on from any of them.

The gradient of an update is the sum of the task's losses over all its micro-batches and ranks, divided by the *average* number
of loss units of an update. So it does not matter how an update is cut into micro-batches and ranks, and a unit (an example, a
labelled word) weighs the same in an update of many short examples as in one of few long ones.
"""

from __future__ import annotations

import dataclasses
import functools
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tunesmith.errors import DataError, UserError
from tunesmith.evaluation.predictor import to_device
from tunesmith.tasks.base import Batch, Metrics
from tunesmith.tasks.losses import make_criterion
from tunesmith.training import checkpoint, collective
from tunesmith.training.acceleration import emulated, make_accelerator
from tunesmith.training.adaptation import adapt, described
from tunesmith.training.augmentation import MakeBatch, batch_maker
from tunesmith.training.averaging import Average
from tunesmith.training.batch_plan import Draws, with_copies
from tunesmith.training.composition import compose
from tunesmith.training.feature_cache import cached
from tunesmith.training.groups import example_weights, weighed, with_weights
from tunesmith.training.l2_sp import make_l2_sp
from tunesmith.training.loader import prefetch
from tunesmith.training.memory import explaining_memory, peak_memory
from tunesmith.training.optim import make_optimizer, make_schedule, on_plateau
from tunesmith.training.plain_loss import beside, plain_sum
from tunesmith.training.retention import Watch
from tunesmith.training.spec import Event, FitContext, FitData, FitResult, FitSpec, Tally, Trainee
from tunesmith.training.unfreeze import Freezing
from tunesmith.training.updates import count_updates, make_planner
from tunesmith.training.validation import judge, more_is_better, rehearse, score, tell_retained, validate

__all__ = ["Event", "FitContext", "FitData", "FitResult", "FitSpec", "fit", "train_step", "validate"]


def fit(spec: FitSpec, data: FitData, context: FitContext | None = None) -> FitResult:
    """Fine-tune, from wherever ``context.start`` says, until the recipe's last update or until patience runs out.

    Raises:
        DataError: there is not one update to make.
        UserError: a metric, loss, optimizer or schedule that does not exist; out of memory (the message names what fits).
    """
    context = context or FitContext()
    settings = spec.recipe.training
    composition, weights = compose(spec, data), example_weights(spec, data.train, data.groups)
    total, per_epoch = count_updates(spec, composition.size, context)
    planner = context.planner or make_planner(spec, composition, context)
    trainee = _build(spec, data, context, total, per_epoch, composition.units / per_epoch)
    place = _restore(spec, context, trainee)
    last = total if context.steps is None else min(total, place.step + context.steps)
    if place.step >= last and not place.step:
        raise DataError("training has no update to make\n    → Raise training.num_train_epochs or training.max_steps")
    history: list[Event] = []

    def tell(event: Event) -> None:
        if context.rank == 0:
            history.append(event)
            context.event(event)

    tell({"kind": "start", "step": place.step, "steps": total, "steps_per_epoch": per_epoch, "epoch": place.step / per_epoch})
    if note := emulated(trainee.accelerator):
        tell({"kind": "note", "message": note})
    for event in described(trainee.accelerator.unwrap_model(trainee.model), spec.recipe, trainee.freezing, per_epoch):
        tell(event)
    if data.validation is not None and settings.eval_strategy != "no" and not place.step:
        rehearse(spec, trainee.accelerator.unwrap_model(trainee.model), data.validation, context)
    if trainee.watch is not None and not place.step:
        tell_retained(trainee.watch.before, place, 0.0, tell)
    trainee.model.train()
    trained, train, data = cached(spec, composition.examples, data, trainee, context, tell)
    make = with_weights(batch_maker(trained, train), weights)
    tally, begun, seen = Tally(), time.perf_counter(), 0
    stop = place.stopped_early
    while place.step < last and not stop:
        updates = with_copies(planner(place.epoch))[place.update : place.update + last - place.step]
        for batches in _batches(updates, context.rank, place.epoch, make):
            checkpoint.seed_update(settings.seed, place.step, context.rank, trainee.accelerator.device)
            trainee.model = trainee.freezing.advance(trainee.model, trainee.accelerator, place.step)
            norm = train_step(trained, trainee, batches, context, tally)
            place.step, place.update = place.step + 1, place.update + 1
            seen += sum(_size(batch) for batch in batches)
            epoch = place.epoch + place.update / per_epoch
            if place.step % settings.logging_steps == 0 or place.step in (1, last):
                tell(_log_line(trainee, tally, place.step, total, epoch, norm))
            if place.step % settings.logging_steps == 0:  # the first update counts in the next line too
                tally = Tally()
            if place.update == per_epoch:
                place.epoch, place.update = place.epoch + 1, 0
            paused = time.perf_counter()
            stop = _judge_and_save(trained, data, context, trainee, place, last, epoch, tell)
            paused = time.perf_counter() - paused
            tally.since, begun = tally.since + paused, begun + paused
            if stop:
                break
    seconds = time.perf_counter() - begun
    if trainee.average is not None:
        trainee.average.copy_to(trainee.model)
    done = {"kind": "done", "step": place.step, "steps": total, "best_step": place.best_step, "best": place.best}
    tell({**done, "stopped_by": place.stopped_by} if place.stopped_by else done)
    return FitResult(trainee.accelerator.unwrap_model(trainee.model), place, history, seen / max(seconds, 1e-9))


def train_step(spec: FitSpec, trainee: Trainee, batches: list[Batch], context: FitContext, tally: Tally) -> Any:
    """One update from its micro-batches; returns the gradient's norm before clipping, a tensor.

    Ranks exchange gradients in the last micro-batch's backward pass only. DDP averages over ranks, hence ``world_size``.
    """
    model, accelerator, settings = trainee.model, trainee.accelerator, spec.recipe.training
    for index, whole in enumerate(batches):
        last = index == len(batches) - 1
        batch, criterion = weighed(whole, trainee.criterion)
        criterion = beside(criterion, batch)
        with nullcontext() if last else accelerator.no_sync(model), explaining_memory(spec, trainee, batch):
            loss, units = spec.task.loss(model, to_device(batch, accelerator.device), criterion)
            scaled = loss * (context.world_size / trainee.units_per_update)
            for term in (context.objective, trainee.penalty) if last else ():
                scaled = scaled + term(model) if term is not None else scaled
            accelerator.backward(scaled)
        for sums, added in ((tally, loss.detach()), (trainee.window, plain_sum(criterion, batch, loss))):
            sums.loss = sums.loss + added
            sums.units += units
            sums.examples += _size(batch)
            sums.tokens += _tokens(batch)
    if context.gradient is not None:
        context.gradient(model)
    norm = accelerator.clip_grad_norm_(model.parameters(), settings.max_grad_norm or float("inf"))
    trainee.optimizer.step()
    if not accelerator.optimizer_step_was_skipped and not on_plateau(trainee.schedule):
        trainee.schedule.step()
    trainee.optimizer.zero_grad(set_to_none=True)
    if trainee.average is not None:
        trainee.average.update(model)
    return norm


def _build(spec: FitSpec, data: FitData, context: FitContext, total: int, per_epoch: int, units_per_update: float) -> Trainee:
    """Model, optimizer and schedule, on their device and prepared for all ranks.

    What is compared with the base takes its measure before any other weights are loaded, so that a resumed run compares with
    the same.
    """
    settings = spec.recipe.training
    torch.manual_seed(settings.seed)
    accelerator = make_accelerator(settings)
    build = context.build or functools.partial(spec.task.build_model, spec.recipe, spec.preprocessing.state)
    model = build()
    model.to(accelerator.device)
    penalty = make_l2_sp(spec, model)
    watch = Watch(spec, context, data.retention, model) if data.retention else None
    adapters = adapt(model, spec.recipe, build)
    if context.start.tensors is not None:
        model.load_state_dict(context.start.tensors, strict=False)
    if context.start.checkpoint is not None:
        checkpoint.load_weights(context.start.checkpoint, model, spec.task, adapters)
    average = Average(model, settings.ema_decay) if settings.ema_decay is not None else None
    if context.start.checkpoint is not None and context.start.mode != "weights":
        checkpoint.load_raw_weights(context.start.checkpoint, model)  # the average has what the model folder holds
    if settings.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})  # type: ignore[operator]  # a PreTrainedModel's method
    if settings.torch_compile:
        model.compile()
    optimizer = make_optimizer(model, settings, accelerator.device)
    freezing = Freezing(model, settings, total, per_epoch)
    freezing.begin()  # after the optimizer, which has what will be unfrozen from the start
    model, prepared = accelerator.prepare(model, optimizer)
    collective.leave_buffers(model)
    behind = context.start.place.step if context.start.place is not None else 0
    schedule = make_schedule(optimizer, settings, total, behind, more_is_better=more_is_better(spec))
    criterion = make_criterion(spec.recipe, spec.preprocessing.state, accelerator.device)
    return Trainee(
        accelerator, model, prepared, schedule, units_per_update, criterion, freezing, adapters, penalty, average, watch
    )


def _restore(spec: FitSpec, context: FitContext, trainee: Trainee) -> checkpoint.Place:
    """The place to begin at; the weights are in the model already."""
    start = context.start
    if start.checkpoint is None or start.mode == "weights":
        return dataclasses.replace(start.place) if start.place is not None else checkpoint.Place()
    place = checkpoint.load_progress(
        start.checkpoint, trainee.model, trainee.optimizer, trainee.schedule, trainee.accelerator, start.mode
    )
    if trainee.average is not None:
        trainee.average.updates = place.step
    if context.rank == 0:
        trainee.window.loss, trainee.window.units = place.window_loss, int(place.window_units)
    return place


def _batches(updates: list[list[tuple[Draws, ...]]], rank: int, epoch: int, make: MakeBatch) -> Iterator[list[Batch]]:
    """The tensors of this rank's micro-batches, update by update, built ahead in a thread."""

    def built(update: list[tuple[Draws, ...]]) -> list[Batch]:
        return [make(epoch, draws.indices.tolist(), draws.copies.tolist()) for draws in update[rank]]

    return prefetch(built, updates)


def _judge_and_save(
    spec: FitSpec,
    data: FitData,
    context: FitContext,
    trainee: Trainee,
    place: checkpoint.Place,
    last: int,
    epoch: float,
    tell: Callable[[Event], None],
) -> bool:
    """At their cadence: judge the validation split, remember the best, write and report a checkpoint.

    Returns whether patience has run out.
    """
    settings = spec.recipe.training
    at_end = place.step == last
    due = data.validation is not None and settings.eval_strategy != "no" and (at_end or _due(settings, place))
    if not (due or at_end or (settings.save_steps and place.step % settings.save_steps == 0)):
        return False
    collective.same_buffers(trainee.model)
    with trainee.average.applied(trainee.model) if trainee.average is not None else nullcontext() as raw:
        metrics, excess = judge(spec, data, context, trainee, place, epoch, tell) if due else ({}, 0.0)
        if context.report is not None:
            scored = {"score": score(spec, metrics, excess)} if metrics else {}
            _save(spec, context, trainee, place, {**_plain(metrics), **scored}, raw)
            tell({"kind": "checkpoint", "step": place.step, **scored})
    return place.stopped_early


def _save(
    spec: FitSpec,
    context: FitContext,
    trainee: Trainee,
    place: checkpoint.Place,
    told: Metrics,
    raw: dict[str, torch.Tensor] | None,
) -> None:
    """Write a checkpoint and report it with what is ``told`` of it.

    ``raw`` are the weights that training goes on with, where an average is saved.
    """
    assert context.report is not None
    place.window_loss, place.window_units = collective.sum_over_ranks(
        [float(trainee.window.loss), float(trainee.window.units)], trainee.accelerator.device
    )
    with tempfile.TemporaryDirectory(prefix="tunesmith-checkpoint-") as folder:
        checkpoint.save(
            Path(folder),
            trainee.accelerator,
            trainee.model,
            trainee.optimizer,
            trainee.schedule,
            place,
            spec.task,
            spec.preprocessing,
            raw,
            trainee.adapters,
        )
        context.report({"step": place.step, **told}, Path(folder) if context.rank == 0 else None)


def _due(settings: Any, place: checkpoint.Place) -> bool:
    if settings.eval_strategy == "steps":
        return bool(place.step % settings.eval_steps == 0)
    return place.update == 0


def _log_line(trainee: Trainee, tally: Tally, step: int, steps: int, epoch: float, norm: Any) -> Event:
    """One line of the log, over all ranks; the memory is rank 0's."""
    seconds = time.perf_counter() - tally.since
    loss, units, examples, tokens = collective.sum_over_ranks(
        [float(tally.loss), float(tally.units), float(tally.examples), float(tally.tokens)], trainee.accelerator.device
    )
    if not np.isfinite(loss):
        raise UserError(
            f"the training loss is {loss} at step {step}: training has diverged (gradient norm {float(norm):.3g})\n"
            "    → Lower training.learning_rate, or set training.warmup_ratio=0.1 and training.max_grad_norm=1.0; "
            "with fp16 try bf16"
        )
    return {
        "kind": "step",
        "split": "train",
        "step": step,
        "steps": steps,
        "epoch": epoch,
        "loss": loss / max(units, 1.0),
        "learning_rate": trainee.schedule.get_last_lr()[0],
        "grad_norm": float(norm),
        "examples_per_second": examples / max(seconds, 1e-9),
        **({"tokens_per_second": tokens / max(seconds, 1e-9)} if tokens else {}),
        "peak_memory_mb": peak_memory(trainee.accelerator.device) / 1e6,
    }


def _size(batch: Batch) -> int:
    """Examples in a batch: the first dimension of its first tensor."""
    return next((len(value) for value in batch.values() if isinstance(value, torch.Tensor)), 0)


def _tokens(batch: Batch) -> int:
    """Tokens in a batch without its padding; 0 where it has no tokens."""
    mask = batch.get("attention_mask")
    return int(mask.sum()) if isinstance(mask, torch.Tensor) else 0


def _plain(metrics: Mapping[str, float]) -> Metrics:
    """Headline metrics as plain numbers: what goes through Ray's report."""
    return {name: float(value) for name, value in metrics.items() if "/" not in name}
