"""What a recipe may not ask of a federation, also where it has no section for one."""

from __future__ import annotations

import secrets
from pathlib import Path

import pytest

from support.sites import RECIPE
from tunesmith.errors import UserError
from tunesmith.runs import Run
from tunesmith_federated import asked_recipe
from tunesmith_federated.federate import federated, local_folder

pytestmark = pytest.mark.unit

ALONE = "".join(line for line in RECIPE.splitlines(keepends=True) if not line.startswith("federation:"))
ALONE = ALONE.replace("sites://", "rows.csv")


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ("training: {fsdp: true}", "training.fsdp: sites and server exchange whole"),
        ("training: {max_steps: 9}", "training.max_steps: not across sites"),
        ("evaluation: {retention: {data: old.csv, max_drop: 0.1}}", "evaluation.retention.max_drop: not across sites"),
    ],
)
def test_what_does_not_go_across_sites_is_refused(section: str, words: str) -> None:
    assert federated(asked_recipe.read(ALONE)).name.endswith("federated")
    with pytest.raises(UserError, match=words):
        federated(asked_recipe.read(f"{ALONE}{section}\n"))


@pytest.mark.parametrize(
    "override", ["data.groups.columns=[sex]", "data.train=[{name: a, path: a.csv, weight: 2}, {name: b, path: b.csv}]"]
)
def test_what_evens_rows_out_would_be_passed_over_and_is_refused(override: str) -> None:
    recipe = asked_recipe.read(ALONE).override(override, check_paths=False)
    with pytest.raises(UserError, match=r"data\.(groups|train).*: not across sites"):
        federated(recipe)


@pytest.mark.parametrize("section", ["evaluation: {calibrate: temperature}", "training: {wise_ft: [0.5, 0.75]}"])
def test_what_is_chosen_by_validation_rows_is_for_simulated_sites(section: str) -> None:
    recipe = asked_recipe.read(f"{ALONE}{section}\n")
    federated(recipe)
    with pytest.raises(UserError, match="not across sites"):
        federated(recipe, deployed=True)


def test_one_share_of_two_models_needs_test_rows_at_real_sites() -> None:
    recipe = asked_recipe.read(f"{ALONE}training: {{wise_ft: 0.5}}\n")
    federated(recipe)
    with pytest.raises(UserError, match=r"training\.wise_ft: not across(.|\n)*Leave it out(.|\n)*or name data\.test"):
        federated(recipe, deployed=True)
    federated(recipe.override("data.test=rows.csv", check_paths=False), deployed=True)


def test_a_run_at_a_uri_goes_on_from_its_own_rounds_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    recipe, folders = asked_recipe.read(ALONE), []
    for job in ("j1", "j2"):
        run = Run.create(recipe, ["federate"], f"memory://bucket-{secrets.token_hex(4)}/same-name")
        run.update(federation={"job": job})
        with local_folder(run) as folder:
            folders.append(folder)
    assert folders == [tmp_path / "tunesmith/federation" / f"same-name-{job}" for job in ("j1", "j2")]
