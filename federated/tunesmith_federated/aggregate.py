"""Many sites' updates as one: their mean or their coordinate-wise median, in an order that is not that of arrival.

Memory does not grow with the number of sites: tensors are taken in pieces, and a piece is summed up over all sites (mean) or
held for all of them (median) before the next one is begun.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from tunesmith_federated.bundle import Bundle, Layout
from tunesmith_federated.methods.base import Update
from tunesmith_federated.protocol import Tensors

MOST_NUMBERS = 1 << 24
"""Numbers that are held at a time: 128 MiB as float64."""


def mean(updates: Sequence[Update], parameters: Mapping[str, torch.Tensor], most_numbers: int = MOST_NUMBERS) -> Tensors:
    """``Σ n_k Δ_k / Σ n_k`` with each site's examples n, summed in float64, as float32.

    Raises :class:`ValueError` where there is no update, an update has no example, or one lacks a parameter.
    """
    weights = {one.site: one.examples for one in updates}
    if any(weight < 1 for weight in weights.values()):
        raise ValueError(f"updates without an example: {[site for site, weight in weights.items() if weight < 1]}")
    return _mean(updates, parameters, weights, most_numbers)


def mean_of_extras(extras: Sequence[Update], most_numbers: int = MOST_NUMBERS) -> Tensors:
    """The plain mean of what came beside the updates, each site counting once; empty where nothing came.

    Raises :class:`ValueError` where sites have sent different things.
    """
    if not extras:
        return {}
    first = extras[0]
    names = set(first.names())
    other = next((one.site for one in extras if set(one.names()) != names), None)
    if other is not None:
        raise ValueError(f"{first.site} and {other} have not sent the same tensors beside their updates")
    shapes = {name: torch.empty(first.tensor(name).shape, device="meta") for name in names}
    return _mean(extras, shapes, dict.fromkeys((one.site for one in extras), 1), most_numbers) if names else {}


def median(updates: Sequence[Update], parameters: Mapping[str, torch.Tensor], most_numbers: int = MOST_NUMBERS) -> Tensors:
    """Of each coordinate the median over the sites, the mean of the middle two where their number is even; float32.

    Raises :class:`ValueError` where there is no update, or one lacks a parameter.
    """
    ordered = _ordered(updates)
    result = _empty(parameters)
    low, high = (len(ordered) - 1) // 2, len(ordered) // 2
    for group in _groups(ordered, parameters, max(most_numbers // len(ordered), 1)):
        held = np.empty((len(ordered), group.size), dtype=np.float32)
        for row, update in enumerate(ordered):
            held[row] = group.of(update)
        held.partition((low, high), axis=0)
        middle = ((held[low].astype(np.float64) + held[high]) / 2).astype(np.float32)
        _put(result, group, middle)
    return result


def _mean(
    updates: Sequence[Update], parameters: Mapping[str, torch.Tensor], weights: Mapping[str, int], most_numbers: int
) -> Tensors:
    ordered, result = _ordered(updates), _empty(parameters)
    total = sum(weights.values())
    for group in _groups(ordered, parameters, most_numbers):
        sums = np.zeros(group.size, dtype=np.float64)
        for update in ordered:
            sums += weights[update.site] * group.of(update).astype(np.float64)
        _put(result, group, (sums / total).astype(np.float32))
    return result


@dataclass(frozen=True)
class _Piece:
    """A part of a tensor, as a range of its flattened numbers."""

    name: str
    shape: torch.Size
    start: int
    stop: int

    @property
    def size(self) -> int:
        return self.stop - self.start

    def of(self, update: Update) -> npt.NDArray[np.float32]:
        """This part of a site's update."""
        try:
            tensor = update.tensor(self.name)
        except KeyError:
            raise ValueError(f"the update of {update.site} has no {self.name}") from None
        if tensor.shape != self.shape:
            raise ValueError(f"{self.name} of {update.site} is {list(tensor.shape)}, and should be {list(self.shape)}")
        found: npt.NDArray[np.float32] = tensor.detach().reshape(-1)[self.start : self.stop].float().numpy()
        return found


@dataclass(frozen=True)
class _Group:
    """Numbers that are taken at a time: of some tensors, or parts of them, one after the other."""

    pieces: list[_Piece]
    start: int | None
    """Where they begin in every update, where all updates lie alike; else None."""

    @property
    def size(self) -> int:
        return sum(piece.size for piece in self.pieces)

    def of(self, update: Update) -> npt.NDArray[np.float32]:
        """These of a site's update, in one row."""
        if self.start is not None and isinstance(update, Bundle):
            return update.numbers(self.start, self.start + self.size)
        return np.concatenate([piece.of(update) for piece in self.pieces])


def _ordered(updates: Sequence[Update]) -> list[Update]:
    """By site, so that sums do not depend on who came first."""
    ordered = sorted(updates, key=lambda one: one.site)
    if not ordered:
        raise ValueError("there is no update to aggregate")
    if len({one.site for one in ordered}) < len(ordered):
        raise ValueError("a site is there twice")
    return ordered


def _empty(parameters: Mapping[str, torch.Tensor]) -> Tensors:
    return {name: torch.empty(tensor.shape, dtype=torch.float32) for name, tensor in parameters.items()}


def _groups(updates: Sequence[Update], parameters: Mapping[str, torch.Tensor], most: int) -> Iterator[_Group]:
    """All tensors in groups of at most ``most`` numbers; in the order in which they lie in all updates, where there is one."""
    alike = _alike(updates, parameters)
    pieces: list[_Piece] = []
    done, room = 0, most
    for name in alike.about if alike is not None else parameters:
        start, whole = 0, parameters[name].numel()
        while start < whole:
            stop = min(start + room, whole)
            pieces.append(_Piece(name, parameters[name].shape, start, stop))
            start, room = stop, room - (stop - start)
            if not room:
                yield _Group(pieces, None if alike is None else done)
                done, pieces, room = done + most, [], most
    if pieces:
        yield _Group(pieces, None if alike is None else done)


def _alike(updates: Sequence[Update], parameters: Mapping[str, torch.Tensor]) -> Layout | None:
    """The layout of all updates, where all have the same, and it is of these parameters and nothing else."""
    layouts = [one.layout if isinstance(one, Bundle) else None for one in updates]
    first = layouts[0]
    if first is None or not first.kind or any(one != first for one in layouts):
        return None
    shapes = {name: tensor.shape for name, tensor in parameters.items()}
    return first if {name: tensor.shape for name, tensor in first.about.items()} == shapes else None


def _put(result: Tensors, group: _Group, values: npt.NDArray[np.float32]) -> None:
    """Write the numbers of a group where they belong."""
    at = 0
    for piece in group.pieces:
        result[piece.name].view(-1)[piece.start : piece.stop] = torch.from_numpy(values[at : at + piece.size])
        at += piece.size
