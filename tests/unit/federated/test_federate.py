"""What a recipe may not ask of a federation, also where it has no section for one."""

from __future__ import annotations

import pytest

from support.sites import RECIPE
from tunesmith.errors import UserError
from tunesmith_federated import asked_recipe
from tunesmith_federated.federate import federated

pytestmark = pytest.mark.unit

ALONE = "".join(line for line in RECIPE.splitlines(keepends=True) if not line.startswith("federation:"))
ALONE = ALONE.replace("sites://", "rows.csv")


@pytest.mark.parametrize(
    ("training", "words"),
    [
        ("fsdp: true", "training.fsdp: sites and server exchange whole"),
        ("max_steps: 9", "training.max_steps: not across sites"),
    ],
)
def test_what_does_not_go_across_sites_is_refused(training: str, words: str) -> None:
    assert federated(asked_recipe.read(ALONE)).name.endswith("federated")
    with pytest.raises(UserError, match=words):
        federated(asked_recipe.read(f"{ALONE}training: {{{training}}}\n"))
