"""What the command line says of an evaluation is refused by its key, never with a traceback."""

from __future__ import annotations

import pytest

from tunesmith.errors import UserError
from tunesmith.verbs.evaluation_settings import settings_alone

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["evaluation.fairness.groups=[sex"], r"evaluation\.fairness\.groups: '\[sex' is no value in YAML\n    → Close its"),
        (
            ["evaluation.behaviour=a", "evaluation.behaviour.x=1"],
            r"behaviour\.x: evaluation\.behaviour is 'a', which has no",
        ),
        (["evaluation.confidense=0.9"], r"evaluation\.confidense"),
        (["training.seed=1"], "only keys of evaluation can be set"),
    ],
)
def test_an_override_that_cannot_be_is_refused_by_its_key(overrides: list[str], words: str) -> None:
    with pytest.raises(UserError, match=words):
        settings_alone([], overrides)
