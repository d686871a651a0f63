"""Outputs of a model's trunk for all examples, in memory: what :mod:`tunesmith.training.feature_cache` trains a head on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from tunesmith.training import collective
from tunesmith.training.spec import Examples

EXCHANGED = 1 << 24
"""Numbers that ranks exchange at a time."""


class Uncacheable(Exception):
    """Why the outputs cannot be kept."""


class TooLarge(Uncacheable):
    """They are too many: fewer examples might do."""


@dataclass
class Store:
    """One output of the trunk for all examples: rows of one shape, or a stretch of rows for each."""

    values: torch.Tensor
    """``[n, …]``, or ``[sum of lengths, …]`` for a ragged one."""
    lengths: npt.NDArray[np.int32] | None
    """Of each example where it is ragged."""
    first: bool
    """Whether only the first position of each is kept, the one that the head reads."""

    def __post_init__(self) -> None:
        self._starts = None if self.lengths is None else np.cumsum(self.lengths, dtype=np.int64) - self.lengths

    @property
    def bytes(self) -> int:
        """Memory that it takes."""
        return self.values.numel() * self.values.element_size()

    def put(self, indices: npt.NDArray[np.int64], output: torch.Tensor) -> None:
        """Keep the output of these examples. Raises :class:`Uncacheable` where it is not shaped like the others."""
        rows = (output[:, :1] if self.first else output).to(self.values)
        if self._starts is None or self.lengths is None:
            if rows.shape[1:] != self.values.shape[1:]:
                raise Uncacheable(f"outputs differ in shape, {tuple(rows.shape[1:])} and {tuple(self.values.shape[1:])}")
            self.values[torch.from_numpy(indices)] = rows
            return
        if rows.shape[1] != self.lengths[indices].max():
            raise Uncacheable(f"inputs of {self.lengths[indices].max()} steps have outputs of {rows.shape[1]}")
        for row, index in zip(rows, indices, strict=True):
            start, length = int(self._starts[index]), int(self.lengths[index])
            self.values[start : start + length] = row[:length]

    def take(self, indices: Sequence[int]) -> torch.Tensor:
        """The output of these examples, ragged ones padded with zeros."""
        if self._starts is None or self.lengths is None:
            return self.values[torch.tensor(indices)]
        rows = [self.values[self._starts[i] : self._starts[i] + self.lengths[i]] for i in indices]
        return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)

    def exchange(self, device: torch.device) -> None:
        """Give every rank all rows: each has its own, and zeros elsewhere."""
        if not collective.together():
            return
        for part in torch.split(self.values.view(-1), EXCHANGED):
            moved = part.to(device, torch.float32)
            torch.distributed.all_reduce(moved)
            part.copy_(moved)


def empty_store(split: Examples, value: torch.Tensor, ragged: bool, few: list[int], first: bool) -> Store:
    """An empty store for an output of which ``value`` is an example. Zeros, which ranks add up."""
    if first:
        return Store(torch.zeros(len(split), 1, *value.shape[2:], dtype=value.dtype), None, True)
    if ragged and value.dim() > 1 and value.shape[1] == split.lengths[few].max():
        lengths = np.asarray(split.lengths)
        return Store(torch.zeros(int(lengths.sum()), *value.shape[2:], dtype=value.dtype), lengths, False)
    return Store(torch.zeros(len(split), *value.shape[1:], dtype=value.dtype), None, False)
