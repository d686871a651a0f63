"""The coordinate-wise median of the sites' updates, each site counting once (Yin et al. 2018, arXiv:1803.01498, algorithm 1).

Fewer than half of the sites, whatever they send, cannot move a coordinate out of the range of the others.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tunesmith_federated.methods.fedavg import FedAvg


@dataclass(frozen=True)
class Median(FedAvg):
    """``w ← w + η · median_k(Δ_k)``."""

    name: str = "median"
    combine: Literal["mean", "median"] = "median"
