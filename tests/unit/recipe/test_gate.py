"""A gate is read as a recipe is: every mistake at once, with its line and what to write."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from tunesmith.errors import RecipeError, UserError
from tunesmith.recipe.gate import Gate, load_gate


def mistakes(tmp_path: Path, text: str) -> list[str]:
    (tmp_path / "gate.yaml").write_text(text)
    with pytest.raises(RecipeError) as caught:
        load_gate(tmp_path / "gate.yaml")
    return [str(one) for one in caught.value.mistakes]


def test_a_gate_is_its_rules_with_their_lines(tmp_path: Path) -> None:
    (tmp_path / "gate.yaml").write_text(
        "undecided: warn\nrules:\n  - measure: accuracy\n    min: 0.9\n  - {measure: ece, max: 0.05}\n"
    )
    gate = load_gate(tmp_path / "gate.yaml")
    assert [rule.measure for rule in gate.rules] == ["accuracy", "ece"]
    assert str(gate.mistake(1, "no", "yes")).startswith(f"{tmp_path}/gate.yaml:5: rules[1].measure: no")


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("rule: []\nrules: [{measure: a, min: 1}]", 1, "did you mean rules"),
        ("rules: [{measure: a}]", 1, "no limit: add min, max or margin"),
        ("rules:\n  - {measure: a, minimum: 1}", 2, "did you mean min?"),
        ("rules:\n  - {measure: a, min: much}", 2, "not a number"),
        ("rules:\n  - {measure: a, margin: -1}", 2, "number of at least 0"),
        ("rules:\n  - {measure: a, min: 2, max: 1}", 2, "nothing can be both"),
        ("rules:\n  - {measure: a, min: 1, by: valeu}", 2, "did you mean value"),
        ("rules:\n  - {min: 1}", 2, "has no measure"),
        ("rules: []", 1, "rules"),
        ("baseline: x", None, "rules"),
        ("", 1, "tunesmith gate --example"),
        ("rules: [", 1, "not YAML"),
    ],
)
def test_a_mistake_is_told_with_its_line(tmp_path: Path, text: str, line: int | None, said: str) -> None:
    (told,) = mistakes(tmp_path, text)
    assert said in told
    assert line is None or f"gate.yaml:{line}: " in told


def test_all_mistakes_are_told_at_once_and_survive_a_process(tmp_path: Path) -> None:
    assert len(mistakes(tmp_path, "rules:\n  - {measure: a}\n  - {measure: b, min: x}\n  - {measure: c, max: 1, foo: 1}")) == 3
    error = RecipeError([], of="gate")
    assert str(pickle.loads(pickle.dumps(error))) == str(error) == "0 mistakes in the gate"


def test_a_file_that_is_not_there_is_told_with_those_that_are(tmp_path: Path) -> None:
    (tmp_path / "gates.yaml").write_text("")
    with pytest.raises(UserError, match=r"gates\.yaml"):
        load_gate(tmp_path / "gate.yaml")


def test_a_gate_is_also_taken_as_plain_values() -> None:
    gate = load_gate({"rules": [{"measure": "accuracy", "min": 0.9}]})
    assert isinstance(gate, Gate)
    assert load_gate(gate) is gate
