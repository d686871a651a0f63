"""Contradictions in ``federation:`` are refused, each with the way out; a recipe without the section hears nothing of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tunesmith.recipe import Recipe
from tunesmith.recipe.federation_checks import OWN_KEYS, OWN_PARTITION_KEYS

pytestmark = pytest.mark.unit

Write = Callable[..., Path]
TAGS = "task: token-classification\nmodel: {model_name_or_path: google-bert/bert-base-cased}\ndata: {train: train.csv}\n"


@pytest.mark.parametrize(
    ("overrides", "key", "words"),
    [
        (["federation.method=fedavgn"], "federation.method", "there is no method fedavgn\n    → did you mean fedavg"),
        (["federation.method=Fed-Prox"], "federation.method", "did you mean fedprox?"),
        (["federation.method=zzz"], "federation.method", "write one of fedavg, fedavgm"),
        (["federation.server_momentum=0.5"], "federation.server_momentum", "setting of fedavgm, and the method is fedavg"),
        (["federation={method: fedavgm, proximal_mu: 1}"], "federation.proximal_mu", "set federation.method: fedprox"),
        (["federation={method: scaffold, server_tau: 1}"], "federation.server_tau", "setting of fedadam"),
        (["federation.method=scaffold", "training.fp16=true"], "federation.method", "set training.bf16: true"),
        (["federation.method=fedprox", "training.fsdp=true"], "training.fsdp", "fsdp shards them"),
        (["federation.sites=5", "training.fsdp=true"], "training.fsdp", "sites and server exchange whole parameters"),
        (["federation.partition.by=column"], "federation.partition.by", "add federation.partition.column: NAME"),
        (["federation.partition.column=clinic"], "federation.partition.column", "set federation.partition.by: column"),
        (["federation.partition.alpha=0.1"], "federation.partition.alpha", "goes with partition.by: dirichlet or quantity"),
        (["federation.partition={by: dirichlet, shards_per_site: 3}"], "federation.partition.shards_per_site", "by is diri"),
        (["federation.sites=5", "training.max_steps=100"], "training.max_steps", "set training.num_train_epochs"),
        (["federation.local_epochs=5"], "federation.local_epochs", "a round makes 5 passes, and training makes 3 in all"),
        (["federation.rounds=20"], "federation.rounds", "20 rounds of 1 are 20 passes, and training.num_train_epochs is 3"),
        (
            ["federation={rounds: 4, local_epochs: 0.5}"],
            "federation.rounds",
            "num_train_epochs: 2, or leave rounds out, which makes 6",
        ),
        (["federation={sites: 4, min_sites: 5}"], "federation.min_sites", "a round needs 5 sites, and there are 4"),
        (["federation={sites: 20, min_sites: 5, fraction_train: 0.1}"], "federation.min_sites", "a round asks 2 of 20"),
    ],
)
def test_contradictions_are_refused(mistakes: Callable[..., list[str]], overrides: list[str], key: str, words: str) -> None:
    found = mistakes("", *overrides)
    assert len(found) == 1, found
    assert f"{key}: " in found[0]
    assert words in found[0]


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["training.max_steps=100"],
        ["training.fsdp=true"],
        ["federation.sites=10", "training.max_steps=100"],
        ["federation.rounds=3"],
        ["federation={rounds: 6, local_epochs: 0.5}"],
        ["federation={rounds: 2, local_epochs: 2}"],
        ["federation={rounds: 30, local_epochs: 0.1}"],
        ["federation.min_sites=50"],
        ["federation={sites: 20, min_sites: 2, fraction_train: 0.1}"],
        ["federation={method: fedprox, proximal_mu: 1}"],
        ["federation={method: fedadam, server_tau: 0.1, server_beta1: 0, server_beta2: 0.5}"],
        ["federation={method: 'my.package:Method', server_tau: 0.1, proximal_mu: 1}"],
        ["federation.partition={by: column, column: clinic}", "federation.sites=1", "federation.min_sites=5"],
        ["federation.partition={by: quantity, alpha: 0.1}"],
    ],
)
def test_what_fits_together_passes_and_is_read_back(write: Write, overrides: list[str]) -> None:
    recipe = Recipe.load(write(), overrides)
    assert recipe.resolved().override("training.seed=7").federation == recipe.federation


def test_classes_to_deal_out_by_are_those_of_one_class_each(mistakes: Callable[..., list[str]]) -> None:
    (found,) = mistakes("federation: {partition: {by: shards}}\n", head=TAGS)
    assert "an example of token-classification has more than one" in found
    assert "iid, quantity or column" in found


def test_the_tables_name_keys_that_exist() -> None:
    section = Recipe.model_fields["federation"].get_default(call_default_factory=True)
    assert set(OWN_KEYS) < set(type(section).model_fields)
    assert set(OWN_PARTITION_KEYS) < set(type(section.partition).model_fields)
