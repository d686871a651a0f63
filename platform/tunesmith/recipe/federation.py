"""``federation:``: how sites fine-tune one model together, without their data leaving them."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tunesmith.recipe.base import Section

METHODS = ("fedavg", "fedavgm", "fedprox", "fedadam", "scaffold", "fedbn", "median")


class PartitionSection(Section):
    """How one data set is dealt out to simulated sites."""

    by: Literal["iid", "dirichlet", "shards", "column", "quantity"] = "iid"
    """``dirichlet`` gives each class its own shares over the sites (arXiv:1905.12022); ``shards`` sorts by class and deals out
    blocks (arXiv:1602.05629); ``column`` makes a site of each value of a column; ``quantity`` varies only how much each has."""

    alpha: float = Field(default=0.5, gt=0)
    """Of the Dirichlet distribution, for ``dirichlet`` and ``quantity``: the smaller, the less alike the sites."""

    shards_per_site: int = Field(default=2, ge=1)
    """Blocks that each site gets (``shards``)."""

    column: str | None = None
    """The column whose values are the sites (``column``)."""

    min_examples: int = Field(default=2, ge=2)
    """Least rows of a site; a random partition is drawn again, at most 100 times, until each site has as many."""

    seed: int = 42
    """Seed of the partition alone."""


class FederationSection(Section):
    """Fine-tuning across sites. Each trains with the recipe's ``training:``; ``training.num_train_epochs`` is the number of
    passes that it makes over its rows in all rounds together.
    """

    sites: int = Field(default=10, ge=1)
    """Simulated sites. Real ones are those that join."""

    partition: PartitionSection = Field(default_factory=PartitionSection)
    """Who has what, in a simulation."""

    rounds: int | None = Field(default=None, ge=1)
    """Exchanges of the model. Null makes as many as ``training.num_train_epochs`` has room for with ``local_epochs`` each."""

    local_epochs: float = Field(default=1.0, gt=0)
    """Passes that a site makes over its rows in a round."""

    method: str = "fedavg"
    """``fedavg`` (arXiv:1602.05629), ``fedavgm`` (arXiv:1909.06335), ``fedprox`` (arXiv:1812.06127), ``fedadam``
    (arXiv:2003.00295), ``scaffold`` (arXiv:1910.06378), ``fedbn`` (arXiv:2102.07623), ``median`` (arXiv:1803.01498), or the
    ``module:Class`` of a method of your own."""

    proximal_mu: float = Field(default=0.01, ge=0)
    """FedProx's μ: half of it times the squared distance from the round's model is added to the loss."""

    server_learning_rate: float | None = Field(default=None, gt=0)
    """The server's step along the sites' mean update. Null is 1.0, and 0.01 for ``fedadam``."""

    server_momentum: float = Field(default=0.9, ge=0, lt=1)
    """FedAvgM's momentum."""

    server_beta1: float = Field(default=0.9, ge=0, lt=1)
    """FedAdam's decay of the first moment."""

    server_beta2: float = Field(default=0.99, ge=0, lt=1)
    """FedAdam's decay of the second moment."""

    server_tau: float = Field(default=1e-3, gt=0)
    """FedAdam's adaptivity: the smaller, the more each parameter has its own rate."""

    fraction_train: float = Field(default=1.0, gt=0, le=1)
    """Share of the sites that a round asks, drawn by ``training.seed``."""

    min_sites: int = Field(default=2, ge=1)
    """Least sites whose update must come in a round. Until then those that are missing are asked again, for
    ``round_timeout_s``; after ``max_failed_rounds`` such rounds in a row the run ends, to be gone on with."""

    max_failed_rounds: int = Field(default=3, ge=1)
    """Rounds without ``min_sites`` in a row before the run ends."""

    round_timeout_s: float = Field(default=3600.0, gt=0)
    """Seconds that a round waits for its sites; then it goes on with those that came."""

    max_norm_ratio: float | None = Field(default=10.0, gt=1)
    """An update longer than so many times the cohort's median is rejected. Null accepts any length."""

    min_examples: int = Field(default=10, ge=1)
    """Rows that a number must rest on before it leaves a site: counts of classes, metrics."""

    holdout: float = Field(default=0.2, ge=0, lt=1)
    """Share of a site's rows that it judges by and never trains on. At a real site its ``site.yaml`` may say otherwise
    (``data.test``, ``data.split``)."""

    dtype: Literal["float32", "bfloat16"] = "float32"
    """What tensors travel in."""

    num_cpus: float = Field(default=1.0, gt=0)
    """CPUs for each simulated site that trains at a time."""

    num_gpus: float = Field(default=0.0, ge=0)
    """GPUs, or a part of one, for each simulated site that trains at a time."""
