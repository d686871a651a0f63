"""What a site computes: judge the model that came, and train it. In one process, or together on the ranks of several.

:func:`perform` is all of it: the platform's loop with its rounds behind it, so that schedules, unfreezing and the order of
examples run through the rounds as through one training. :class:`Worker` is the seam: where a site has this done.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import torch

from tunesmith.errors import UserError
from tunesmith_federated import asked_recipe, sums
from tunesmith_federated.methods import make_method
from tunesmith_federated.models import Base, put, tensors_of
from tunesmith_federated.protocol import Ask, Tensors

if TYPE_CHECKING:
    from tunesmith.recipe import Recipe
    from tunesmith.tasks.base import Task
    from tunesmith.training.spec import FitContext, FitSpec
    from tunesmith_federated.holdings import Held


ONCE = 10**9
"""Updates between two lines of a site's log: one at the round's end, over all of it."""


@dataclass(frozen=True)
class Job:
    """One recipe at one process: what is the same for every site of a simulation, kept between messages."""

    text: str

    @cached_property
    def recipe(self) -> Recipe:
        """With the whole of the training, all rounds together, and without what only the server does.

        A real site's owner has looked at the text before (:mod:`tunesmith_federated.deployment.policy`).
        """
        return asked_recipe.read(self.text, bounded=False).override(f"training.logging_steps={ONCE}", check_paths=False)

    @cached_property
    def task(self) -> Task:
        """The recipe's."""
        from tunesmith.tasks import load_task

        return load_task(self.recipe.task)

    @cached_property
    def _bases(self) -> dict[str, Base]:
        return {}

    def base(self, state: Mapping[str, Any]) -> Base:
        """The pre-trained model with a head for these classes."""
        key = repr(state.get("labels"))
        if key not in self._bases:
            self._bases[key] = Base(self.recipe, self.task, state)
        return self._bases[key]

    @cached_property
    def processor(self) -> Any:
        """The tokenizer, image processor or feature extractor."""
        return self.task.load_processor(self.recipe)

    def spec(self, held: Held) -> FitSpec:
        """What is trained, on these rows."""
        from tunesmith.tasks.base import Preprocessing
        from tunesmith.training.spec import FitSpec

        return FitSpec(self.recipe, self.task, Preprocessing(held.state, self.processor))


@dataclass(frozen=True)
class Order:
    """What is to be done in a round. All of it has been checked before."""

    ask: Ask
    """``train``, or ``evaluate`` to judge alone."""
    model: Tensors
    """As the server sent it."""
    sent: Tensors
    """What came beside it."""
    own: Tensors
    """What this site kept of the rounds before."""


@dataclass(frozen=True)
class Done:
    """What came of it."""

    sums: Mapping[str, Any]
    """Of the judgement; empty where there are too few rows to tell anything of."""
    update: Tensors = field(default_factory=dict)
    """What training has added, as it travels."""
    extras: Tensors = field(default_factory=dict)
    """What the method sends beside the update, as it travels."""
    own: Tensors = field(default_factory=dict)
    """What the method keeps at the site."""
    steps: int = 0
    loss: float | None = None


class Worker(Protocol):
    """Who computes for a site."""

    @property
    def size(self) -> int:
        """Processes that share each update's examples."""

    def perform(self, job: Job, held: Held, order: Order) -> Done:
        """Do it. Raises :class:`UserError` for what the recipe's or the rows' owner can mend."""


@dataclass(frozen=True)
class Here:
    """This process."""

    size: int = 1
    left: Callable[[str], float] = lambda job: math.inf
    """Seconds that a job may still take of this site."""

    def perform(self, job: Job, held: Held, order: Order) -> Done:
        """In this thread."""
        return perform(job, held, order, within=self.left(order.ask.job))


def perform(job: Job, held: Held, order: Order, rank: int = 0, size: int = 1, within: float = math.inf) -> Done:
    """This rank's part; what it returns is whole on rank 0 alone.

    Raises :class:`UserError` where training is not done ``within`` so many seconds.
    """
    deadline = time.monotonic() + within
    from tunesmith.training.checkpoint import Start
    from tunesmith.training.fit import FitData, fit

    base, method, spec = job.base(held.state), make_method(job.recipe.federation), job.spec(held)
    stays = base.stays(method) if order.own else ()
    start = {**order.model, **{name: order.own[name] for name in stays if name in order.own}}
    context = together(rank, size)
    judged = _judged(job, held, spec, start, context)
    if order.ask.kind != "train":
        return Done(judged)
    place, steps = stretch(spec, len(held.train), order.ask, size)
    local = method.local(order.model, order.sent, order.own)
    context.start = Start(tensors=start, place=place)
    context.steps, context.build = steps, base.build
    context.objective, context.gradient = local.objective, _until(deadline, local.gradient)
    made = fit(spec, FitData(held.train), context)
    end = tensors_of(made.model, {*order.model, *method.stays(made.model)})
    finished = local.finish(end, steps)
    travels = getattr(torch, job.recipe.federation.dtype)
    return Done(
        judged,
        {name: (end[name].float() - tensor.float()).to(travels) for name, tensor in order.model.items()},
        {name: tensor.to(travels) for name, tensor in finished.extras.items()},
        finished.own,
        steps,
        next((event["loss"] for event in reversed(made.history) if event["kind"] == "step"), None),
    )


def _until(deadline: float, gradient: Callable[[torch.nn.Module], None] | None) -> Callable[[torch.nn.Module], None] | None:
    """The hook of each update, which ends training once the time is up."""
    if math.isinf(deadline):
        return gradient

    def looking(model: torch.nn.Module) -> None:
        if time.monotonic() >= deadline:
            raise UserError("the job has had its time of this site (limits.seconds), and training was ended")
        if gradient is not None:
            gradient(model)

    return looking


def together(rank: int = 0, size: int = 1) -> FitContext:
    """A rank of a site. An update has the examples that it has with one worker: a site's size is no matter of the recipe."""
    from tunesmith.training.spec import FitContext

    return FitContext(rank=rank, world_size=size, batches_of=1)


def check_shared(spec: FitSpec, examples: int, size: int) -> None:
    """So many workers make the updates that one makes.

    Raises :class:`UserError` where an update has too few examples for each to have one: there would be fewer and larger ones.
    """
    from tunesmith.training.updates import count_updates

    if count_updates(spec, examples, together(size=size)) != count_updates(spec, examples, together()):
        raise UserError(
            f"the updates are too small for the site's {size} workers to share (training.per_device_train_batch_size is "
            f"{spec.recipe.training.per_device_train_batch_size}): they would train otherwise than one does\n"
            "    → The site's owner may lower resources.num_workers, the recipe's author raise the batch size"
        )


def stretch(spec: FitSpec, examples: int, ask: Ask, size: int = 1) -> tuple[Any, int]:
    """Where this round begins in the whole training, and how many updates it makes: at least one."""
    from tunesmith.training.checkpoint import Place
    from tunesmith.training.updates import count_updates

    total, per_epoch = count_updates(spec, examples, together(size=size))
    epochs = spec.recipe.federation.local_epochs
    first = min(math.ceil((ask.round - 1) * epochs * per_epoch), total - 1)
    last = min(max(math.ceil(ask.round * epochs * per_epoch), first + 1), total)
    return Place(step=first, epoch=first // per_epoch, update=first % per_epoch), last - first


def _judged(job: Job, held: Held, spec: FitSpec, tensors: Tensors, context: FitContext) -> dict[str, Any]:
    """Sums over the rows held back; empty where there are too few to tell anything of. Ranks share the work."""
    from tunesmith.training.validation import answered

    if held.holdout is None or len(held.holdout) < job.recipe.federation.min_examples:
        return {}
    model, _ = job.base(held.state).adapted()
    put(model, tensors)
    if torch.cuda.is_available() and job.recipe.training.use_gpu is not False:
        model.cuda()
    model.eval()
    records = answered(spec, model, held.holdout, context)
    return sums.sums_of(records, job.task, held.state) if records is not None else {}
