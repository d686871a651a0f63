"""FedBN leaves every normalisation layer at its site, and nothing else."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tunesmith.recipe.federation import FederationSection
from tunesmith_federated.methods import make_method

pytestmark = pytest.mark.unit

FEDBN = make_method(FederationSection(method="fedbn"))


class LlamaRMSNorm(nn.Module):
    """As Transformers names its own."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2))


class Normaliser(nn.Module):
    """No normalisation layer, whatever it says."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2))


def test_parameters_and_statistics_of_all_kinds_of_normalisation_stay() -> None:
    model = nn.ModuleDict(
        {
            "bn": nn.BatchNorm2d(2),
            "ln": nn.LayerNorm(2),
            "gn": nn.GroupNorm(1, 2),
            "no": nn.InstanceNorm1d(2, affine=True, track_running_stats=True),
            "rms": LlamaRMSNorm(),
            "linear": nn.Linear(2, 2),
            "other": Normaliser(),
        }
    )
    stays = FEDBN.stays(model)
    assert stays == {name for name in model.state_dict() if name.split(".")[0] not in ("linear", "other")}
    assert {"bn.running_mean", "bn.num_batches_tracked", "no.running_var", "rms.weight"} <= stays
    assert make_method(FederationSection()).stays(model) == frozenset()


def test_a_site_keeps_what_was_not_sent() -> None:
    start = {"linear.weight": torch.zeros(2)}
    end = {"linear.weight": torch.ones(2), "bn.weight": torch.full((2,), 3.0)}
    finished = FEDBN.local(start, {}, {}).finish(end, 5)
    assert list(finished.own) == ["bn.weight"]
    assert finished.extras == {}
