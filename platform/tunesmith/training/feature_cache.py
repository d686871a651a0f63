"""A linear probe's trunk never changes: its outputs are computed once, and the head is trained and judged on them.

What is kept are the outputs of the model's trunk (``base_model_prefix``), in memory, as far as the head reads them. In training
the trunk answers from there, and everything behind it runs as it is: dropout, every module of the head, the loss. Which outputs
the head reads is found by trying: whatever may be replaced by NaN without the loss becoming NaN has no influence.

The loss on cached outputs is held against the real one before the first update. Where they differ, or the trunk is not called
once per loss, or its outputs are too large, the probe runs through the trunk in every update, and says so.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch

from tunesmith.evaluation.predictor import EXAMPLES_PER_BATCH, TOKENS_BESIDE, TOKENS_PER_BATCH, batches_by_length, to_device
from tunesmith.tasks.base import Answer, Batch, Example, Features, Preprocessing, Task
from tunesmith.tasks.losses import Criterion
from tunesmith.training import collective
from tunesmith.training.feature_store import Store, TooLarge, Uncacheable, empty_store
from tunesmith.training.parameters import trunk_name
from tunesmith.training.spec import Event, Examples, FitContext, FitData, FitSpec, Trainee
from tunesmith.training.splits import Chosen, joined

MOST_BYTES = 4 << 30
"""Largest cache of one rank."""

TRIED = 4
"""Examples on which it is found what the head reads, and on which cached and real loss are compared."""

TOLERANCE = 1e-4
"""Largest relative difference of the two: batches of another shape are summed in another order."""

PREFIX = "trunk."
"""Of the cached outputs' names in a batch."""


def cached(
    spec: FitSpec, split: Examples, data: FitData, trainee: Trainee, context: FitContext, tell: Callable[[Event], None]
) -> tuple[FitSpec, Examples, FitData]:
    """Spec, training split and data, whose batches bring the trunk's outputs where only the head is trained; else as they are.

    Of ``data`` the validation split is kept too, where it is judged during training and both have room.
    """
    settings = spec.recipe.training
    if settings.adaptation != "linear-probe":
        return spec, split, data
    model = trainee.accelerator.unwrap_model(trainee.model)
    validation = data.validation if settings.eval_strategy != "no" else None
    model.eval()
    try:
        if settings.torch_compile:
            raise Uncacheable("training.torch_compile is on")
        if spec.recipe.data.augment:
            raise Uncacheable("data.augment changes the examples in every epoch")
        try:
            stores, task = _computed(spec, split, validation, model, trainee, context, tell)
        except TooLarge as error:
            if validation is None:
                raise
            stores, task = _computed(spec, split, None, model, trainee, context, tell)
            validation = None
            tell({"kind": "note", "message": f"The trunk's outputs of the validation split are not cached: with them, {error}"})
    except Uncacheable as error:
        tell({"kind": "note", "message": f"The trunk is run in every update of the probe, its outputs not cached: {error}"})
        return spec, split, data
    finally:
        model.train()
        trainee.freezing.hold()
    size = sum(store.bytes for store in stores.values()) / 1e6
    tell({"kind": "note", "message": f"Training the head on cached outputs ({', '.join(stores)}: {size:,.1f} MB)"})
    if validation is not None:
        data = dataclasses.replace(data, validation=numbered(validation, len(split)))
    return FitSpec(spec.recipe, cast(Task, task), spec.preprocessing), numbered(split), data


def _computed(
    spec: FitSpec,
    split: Examples,
    validation: Examples | None,
    model: torch.nn.Module,
    trainee: Trainee,
    context: FitContext,
    tell: Callable[[Event], None],
) -> tuple[dict[str, Store], OnCachedTrunk]:
    """The outputs of one split or of both. Raises :class:`Uncacheable`."""
    whole = split if validation is None else joined(split, validation)
    tell({"kind": "phase", "message": f"Computing the trunk's outputs of {len(whole):,} examples"})
    return _made(spec, whole, model, trainee, context)


@dataclass(frozen=True)
class NumberedFeatures(Features):
    """Features that know which example they are of."""

    index: int = -1


@dataclass(frozen=True)
class Numbered(Chosen):
    """A split whose features are numbered."""

    begin: int = 0
    """The number of its first example."""

    def features(self, indices: Sequence[int]) -> list[Features]:
        """The features of these examples, numbered."""
        found = zip(super().features(indices), indices, strict=True)
        return [NumberedFeatures(one.values, one.length, one.count, self.begin + int(i)) for one, i in found]


def numbered(split: Examples, begin: int = 0) -> Numbered:
    """The split with its examples numbered from ``begin`` on."""
    return Numbered(joined(split).parts, begin)


class OnCachedTrunk:
    """A task whose batches bring the trunk's outputs, and whose loss and answers take them from there; else the task itself.

    Examples that are not numbered have none, and go through the trunk.
    """

    def __init__(self, task: Task, trunk: torch.nn.Module, stores: dict[str, Store], rebuild: Callable[..., Any]) -> None:
        self._task, self._trunk, self._stores, self._rebuild = task, trunk, stores, rebuild

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task, name)

    def collate(self, features: Sequence[Features], preprocessing: Preprocessing) -> Batch:
        """The batch with the trunk's outputs in it."""
        batch = self._task.collate(features, preprocessing)
        indices = [one.index for one in features if isinstance(one, NumberedFeatures)]
        if len(indices) < len(features):
            return batch
        return batch | {PREFIX + name: store.take(indices) for name, store in self._stores.items()}

    def loss(self, model: torch.nn.Module, batch: Batch, *arguments: Any, **named: Any) -> tuple[torch.Tensor, int]:
        """The task's loss, the trunk answering from the batch."""
        with self._trunk_answers(batch) as rest:
            return self._task.loss(model, rest, *arguments, **named)

    def answers(self, model: torch.nn.Module, batch: Batch, *arguments: Any, **named: Any) -> list[Answer]:
        """The task's answers, the trunk answering from the batch."""
        with self._trunk_answers(batch) as rest:
            return self._task.answers(model, rest, *arguments, **named)

    @contextmanager
    def _trunk_answers(self, batch: Batch) -> Iterator[Batch]:
        """The batch without the trunk's outputs, which the trunk gives inside the block."""
        outputs = {name.removeprefix(PREFIX): value for name, value in batch.items() if name.startswith(PREFIX)}
        with _answering(self._trunk, self._rebuild(**outputs)) if outputs else nullcontext():
            yield {name: value for name, value in batch.items() if not name.startswith(PREFIX)}


def _made(
    spec: FitSpec, split: Examples, model: torch.nn.Module, trainee: Trainee, context: FitContext
) -> tuple[dict[str, Store], OnCachedTrunk]:
    """The filled stores, and the task on top of them. Raises :class:`Uncacheable`, on all ranks or on none."""
    name = trunk_name(model)
    if name is None:
        raise Uncacheable(f"{type(model).__name__} has no base_model_prefix")
    trunk, device = model.get_submodule(name), trainee.accelerator.device
    few = list(range(min(TRIED, len(split))))

    def batch_of(indices: Sequence[int]) -> Batch:
        return to_device(spec.task.collate(split.features(list(indices)), spec.preprocessing), device)

    with torch.no_grad():
        sample = batch_of(few)
        outputs, (loss, _) = _outputs(trunk, lambda: spec.task.loss(model, sample, trainee.criterion))
        wanted = float(loss)
        stores = {
            key: empty_store(split, value, spec.task.ragged, few, place == "first")
            for key, value in outputs.items()
            if (place := _read(spec, trainee.criterion, model, trunk, sample, outputs, key)) != "nothing"
        }
        size = sum(store.bytes for store in stores.values())
        if size > MOST_BYTES:
            raise TooLarge(f"they take {size / 2**30:.1f} GiB, more than {MOST_BYTES / 2**30:.3g}")
        problem = ""
        budget = TOKENS_PER_BATCH.get(device.type, TOKENS_PER_BATCH["cpu"]) if spec.task.ragged else EXAMPLES_PER_BATCH
        beside = TOKENS_BESIDE.get(device.type, TOKENS_BESIDE["cpu"])
        for indices in batches_by_length(split.lengths, budget, EXAMPLES_PER_BATCH, beside)[context.rank :: context.world_size]:
            try:
                # By its answers: a model's own loss may wait for the other ranks, which may have fewer batches.
                run = functools.partial(spec.task.answers, model, batch_of(indices.tolist()), spec.preprocessing)
                found, _ = _outputs(trunk, run)
                for key, store in stores.items():
                    store.put(indices, found[key])
            except Uncacheable as error:
                problem = str(error)
                break
        if collective.sum_over_ranks([float(bool(problem))], device)[0]:
            raise Uncacheable(problem or "another rank could not")
        for store in stores.values():
            store.exchange(device)
        kind, shapes = type(outputs), {key: value for key, value in outputs.items() if key not in stores}
        task = OnCachedTrunk(spec.task, trunk, stores, lambda **kept: _rebuilt(kind, list(outputs), kept, shapes))
        with_cache = to_device(task.collate(numbered(split).features(few), spec.preprocessing), device)
        given = _loss(cast(Task, task), trainee.criterion, model, with_cache)
        _check_close("the loss on them", given, wanted)
        judged = [
            _judged(one, spec, model, batch, split.examples(few)) for one, batch in ((task, with_cache), (spec.task, sample))
        ]
        _check_close("the loss of the answers from them", *judged)
    return stores, task


def _check_close(what: str, given: float, wanted: float) -> None:
    """Raises :class:`Uncacheable` where what came from the cache is not what comes from the trunk."""
    if not abs(given - wanted) <= TOLERANCE * max(1.0, abs(wanted)):
        raise Uncacheable(f"{what} is {given:.6g}, and {wanted:.6g} without")


def _judged(task: Any, spec: FitSpec, model: torch.nn.Module, batch: Batch, examples: Sequence[Example]) -> float:
    """The loss of the model's answers, as a verdict has it, summed; NaN where the model or the task refuses the outputs."""
    try:
        answers = task.answers(model, batch, spec.preprocessing)
    except (ValueError, RuntimeError, AssertionError, TypeError, IndexError):
        return float("nan")
    state = spec.preprocessing.state
    return sum(float(spec.task.score(a, e, state)["loss"]) for a, e in zip(answers, examples, strict=True))


def _loss(task: Task, criterion: Criterion, model: torch.nn.Module, batch: Batch) -> float:
    """The loss as a number; NaN where the model or the task refuses the outputs."""
    try:
        return float(task.loss(model, batch, criterion)[0])
    except (ValueError, RuntimeError, AssertionError, TypeError, IndexError):
        return float("nan")


def _outputs(trunk: torch.nn.Module, run: Callable[[], Any]) -> tuple[Any, Any]:
    """The trunk's outputs by name while ``run`` runs the model, and what that gave."""
    from transformers.utils.generic import ModelOutput

    heard: list[Any] = []
    handle = trunk.register_forward_hook(lambda _module, _inputs, output: heard.append(output))
    try:
        given = run()
    finally:
        handle.remove()
    if len(heard) != 1 or not isinstance(heard[0], ModelOutput):
        raise Uncacheable(f"{type(trunk).__name__} was called {len(heard)} times for one batch, or gives no ModelOutput")
    if not all(isinstance(value, torch.Tensor) for value in heard[0].values()):
        raise Uncacheable(f"{type(trunk).__name__} gives more than tensors")
    return heard[0], given


def _read(
    spec: FitSpec, criterion: Criterion, model: torch.nn.Module, trunk: torch.nn.Module, batch: Batch, outputs: Any, name: str
) -> str:
    """What the head reads of one output: ``nothing``, the ``first`` position, or the ``whole``."""
    value = outputs[name]
    spoilt = torch.full_like(value, float("nan")) if value.is_floating_point() else None
    if spoilt is None:
        return "whole"
    for place, tried in (("nothing", spoilt), ("first", torch.cat([value[:, :1], spoilt[:, 1:]], dim=1))):
        if place == "first" and (value.dim() != 3 or value.shape[1] < 2):
            continue
        with _answering(trunk, type(outputs)(**{**outputs, name: tried})):
            if np.isfinite(_loss(spec.task, criterion, model, batch)):
                return place
    return "whole"


def _rebuilt(kind: type, names: list[str], kept: dict[str, torch.Tensor], unread: dict[str, torch.Tensor]) -> Any:
    """The trunk's output as it was, with NaN for what is not read."""
    (size, device) = next((len(value), value.device) for value in kept.values())
    nan = torch.full((1,), float("nan"), device=device)
    return kind(**{name: kept[name] if name in kept else nan.expand(size, *unread[name].shape[1:]) for name in names})


@contextmanager
def _answering(trunk: torch.nn.Module, output: Any) -> Iterator[None]:
    """The trunk gives this output, whatever it is asked, for the time of the block."""
    own = trunk.__dict__.get("forward")
    trunk.__dict__["forward"] = lambda *_arguments, **_named: output
    try:
        yield
    finally:
        del trunk.__dict__["forward"]
        if own is not None:
            trunk.__dict__["forward"] = own
