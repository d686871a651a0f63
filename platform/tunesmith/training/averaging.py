"""An exponential moving average of the weights, judged and kept in place of the last ones.

Polyak averaging as it is used for deep networks: after each update ``average ← d · average + (1 - d) · weights`` with
``d = min(decay, (1 + n) / (10 + n))`` after n updates (the ``num_updates`` rule of TensorFlow's ExponentialMovingAverage), so
that a short training is not mostly its beginning. Floating-point buffers are averaged too, other buffers copied, as timm's
ModelEmaV3 does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch

from tunesmith.training.collective import same_buffers


class Average:
    """The moving average of one model's state, by the names of its state dict without a wrapper's prefix."""

    def __init__(self, model: torch.nn.Module, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        """Updates that are in it."""
        self.values = {name: value.detach().clone() for name, value in _state(model).items()}

    @torch.no_grad()
    def update(self, model: torch.nn.Module) -> None:
        """Take in the weights after one more update."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        for name, value in _state(model).items():
            if value.is_floating_point():
                self.values[name].lerp_(value, 1 - decay)
            else:
                self.values[name].copy_(value)
        self.updates += 1

    def load(self, values: Mapping[str, torch.Tensor], updates: int) -> None:
        """Go on from a saved average after so many updates."""
        for name, value in self.values.items():
            value.copy_(values[name])
        self.updates = updates

    @torch.no_grad()
    def copy_to(self, model: torch.nn.Module) -> None:
        """Give the model the averaged weights for good."""
        for name, value in _state(model).items():
            value.copy_(self.values[name])

    @contextmanager
    def applied(self, model: torch.nn.Module) -> Iterator[dict[str, torch.Tensor]]:
        """The model has the averaged weights inside the block; what it had is given, and put back, to the last bit."""
        kept = {name: value.detach().clone() for name, value in _state(model).items()}
        self.copy_to(model)
        same_buffers(model)
        try:
            yield kept
        finally:
            with torch.no_grad():
                for name, value in _state(model).items():
                    value.copy_(kept[name])


def _state(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Parameters and persistent buffers, not copied."""
    return {name.removeprefix("module."): value for name, value in model.state_dict().items()}
