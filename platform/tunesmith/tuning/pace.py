"""How long a training takes, roughly, before anything is trained: by the size of the model and the speed of this machine.

An order of magnitude is enough: it decides whether whole epochs fit into the time that was given, or some updates of one.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from tunesmith.tuning.looking import Seen

MEASURED = 0.2
"""Seconds for which the machine's speed is measured."""

SLOWER = 2.0
"""Times as long as its products alone an update takes on one core (a BERT of 3 million parameters: 1.6)."""

OPTIMIZER = 1e-8
"""Seconds of AdamW for a parameter on one core."""

LEAST = 0.02
"""Seconds of an update of a model of no size."""

TOKENS_OF_A_WORD = 1.3

TRIALS = 4
"""So many trials, one after another, must go to their end in the time; most are stopped before."""

EVALUATIONS = 8
"""Of a trial whose time is short: the first comes early."""

FEWEST_JUDGED = 100
"""Rows that judge a model at least."""

UNKNOWN_WEIGHTS, UNKNOWN_POSITIONS = 85_000_000, 196
"""Of a model that cannot be outlined: those of BERT-base without its embeddings, and the patches of a ViT-base."""


@dataclass(frozen=True)
class Size:
    """Of a model for one task."""

    layers: int | None
    """Layer groups, the head among them; None is unknown."""
    weights: int = UNKNOWN_WEIGHTS
    """Parameters that every position passes."""
    parameters: int = UNKNOWN_WEIGHTS
    positions: int = UNKNOWN_POSITIONS
    """Places of a picture that pass the weights."""


def size_of(model: torch.nn.Module, layers: int | None) -> Size:
    """The size of a model, or of its outline."""
    named = [(name, one.numel()) for name, one in model.named_parameters()]
    every = sum(count for _, count in named)
    config = getattr(model, "config", None)
    picture, patch = getattr(config, "image_size", 224), getattr(config, "patch_size", None)
    # A convolutional network shrinks a picture 32 times in each direction, and its lower layers pass more places than those.
    positions = (picture // patch) ** 2 if isinstance(picture, int) and isinstance(patch, int) else UNKNOWN_POSITIONS
    return Size(layers, every - sum(count for name, count in named if "embed" in name), every, max(1, positions))


@dataclass(frozen=True)
class Pace:
    """Seconds of a training, told before it."""

    update: float
    """Of an update, in one trial."""
    judged: float
    """Of a judged example."""

    @property
    def first_verdict(self) -> float:
        """Seconds until a trial is judged at the earliest."""
        return self.update + FEWEST_JUDGED * self.judged

    @classmethod
    def of(cls, seen: Seen, sizes: Sequence[Size], batch: int, speed: float) -> Pace:
        """The pace of the slowest of some models; ``speed`` in products and sums a second, see :func:`machine_speed`."""
        tokens = min(512, 2 + TOKENS_OF_A_WORD * sum(seen.words) / 2)
        each = max(6 * one.weights * (tokens if seen.words[1] else one.positions) for one in sizes) * SLOWER / speed
        update = LEAST + each * batch + OPTIMIZER * max(one.parameters for one in sizes)
        return cls(update, each / 3)


@dataclass(frozen=True)
class Part:
    """What of a training fits into the time that is short."""

    rows: int | None
    """To train on; None is all."""
    epochs: int
    updates: int
    eval_steps: int
    judged: int
    """Validation rows, at most."""


def part(pace: Pace, rows: int, judged: int, epochs: int, batch: int, seconds: float) -> Part | None:
    """What of a training a trial is given; None where the whole fits.

    Args:
        rows: to train on.
        judged: validation rows, after each epoch.
        epochs: of the whole training.
        batch: examples of an update.
        seconds: of the search.

    >>> part(Pace(update=0.01, judged=0.001), rows=1000, judged=100, epochs=3, batch=10, seconds=60) is None
    True
    >>> part(Pace(update=1.0, judged=0.1), rows=1000, judged=400, epochs=3, batch=10, seconds=400)
    Part(rows=750, epochs=1, updates=75, eval_steps=9, judged=100)
    """
    each, within = max(1, math.ceil(rows / batch)), seconds / TRIALS
    if epochs * (each * pace.update + judged * pace.judged) <= within:
        return None
    updates = min(epochs * each, max(EVALUATIONS, int(0.75 * within / pace.update)))
    whole = max(1, updates // each)
    updates = min(updates, whole * each)
    fits = max(FEWEST_JUDGED, int(0.25 * within / EVALUATIONS / pace.judged))
    few = updates * batch if updates < each else None
    return Part(few, whole, updates, max(1, updates // EVALUATIONS), min(judged, fits))


def machine_speed() -> float:
    """Products and sums a second of what a trial trains on: a GPU where there is one, else one core."""
    import torch

    on = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        side = 4096 if on.type == "cuda" else 512
        one = torch.ones(side, side, device=on)
        for _ in range(3):
            one @ one
        begun, count = time.perf_counter(), 0
        while time.perf_counter() - begun < MEASURED:
            (one @ one)[0, 0].item()  # waits for it
            count += 1
        return 2.0 * side**3 * count / (time.perf_counter() - begun)
    finally:
        torch.set_num_threads(threads)
