"""``tunesmith gate`` as it is typed, and as CI sees it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from click.testing import CliRunner, Result

import tunesmith
from support.models import WORDS
from support.runs import finished_run
from tunesmith.cli import main
from tunesmith.evaluation.evaluate import evaluate_run
from tunesmith.runs import Run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run that is well trained and judged."""
    run = finished_run(tmp_path_factory.mktemp("gate"), "text-classification", steps=30, evaluation={"bootstrap_samples": 100})
    evaluate_run(run)
    return run


def typed(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["gate", *arguments])


def gate_file(folder: Path, rules: str) -> str:
    (folder / "gate.yaml").write_text(f"rules:\n{rules}")
    return str(folder / "gate.yaml")


def test_a_gate_that_passes_ends_with_0_and_leaves_its_files(run: Run, tmp_path: Path) -> None:
    done = typed(run.path, "--gate", gate_file(tmp_path, "  - {measure: accuracy, min: 0.3}\n"))
    assert done.exit_code == 0, done.output
    assert "The gate passed: 1 of 1 rules hold" in done.output
    folder = Path(run.path, "gate")
    assert json.loads((folder / "gate.json").read_text())["passed"] is True
    assert ET.parse(folder / "junit.xml").getroot().get("failures") == "0"
    assert "✅" in (folder / "gate.md").read_text()
    assert "The gate passed" in (folder / "gate.html").read_text()
    assert "## Release gate" in Path(run.path, "README.md").read_text()
    assert Path(run.path, "model", ".eval_results", "tunesmith.yaml").exists()


def test_a_gate_that_does_not_pass_ends_with_3(run: Run, tmp_path: Path) -> None:
    done = typed(
        run.path, "--gate", gate_file(tmp_path, "  - {measure: log_loss, max: 0.0001}\n"), "--out", str(tmp_path / "o")
    )
    assert done.exit_code == 3, done.output
    assert "did not pass: log_loss ≤ 0.0001" in done.output
    assert ET.parse(tmp_path / "o" / "junit.xml").getroot().get("failures") == "1"


def test_mistakes_end_with_2(run: Run, tmp_path: Path) -> None:
    rules = gate_file(tmp_path, "  - {measure: acuracy, min: 0.3}\n  - {measure: accuracy, margin: 0.1}\n")
    done = typed(run.path, "--gate", rules)
    assert done.exit_code == 2
    assert f"{rules}:2: rules[0].measure" in done.output
    assert "a margin needs a baseline" in done.output
    assert typed(run.path).exit_code == 2
    assert typed(run.path, "--gate", gate_file(tmp_path, "  - {measure: n, min: 1}\n"), "--baseline", "gone").exit_code == 2


def test_what_answers_as_the_baseline_is_not_worse_and_json_says_so(run: Run, tmp_path: Path) -> None:
    rules = gate_file(tmp_path, "  - {measure: accuracy, margin: 0.3}\n")
    (tmp_path / "before").mkdir()
    for name in ("predictions.parquet", "metrics.json"):
        shutil.copy(Path(run.path, name), tmp_path / "before" / name)
    before = str(tmp_path / "before")
    done = typed(run.path, "--gate", rules, "--baseline", before, "--json", "--out", str(tmp_path / "o"))
    found = json.loads(done.output)
    assert (found["passed"], found["baseline"]) == (True, "before")


def test_a_run_is_no_baseline_of_itself(run: Run, tmp_path: Path) -> None:
    rules = gate_file(tmp_path, "  - {measure: accuracy, margin: 0.3}\n")
    for itself in (run.path, f"{run.path}/", f"{run.path}/predictions.parquet"):
        done = typed(run.path, "--gate", rules, "--baseline", itself, "--out", str(tmp_path / "o"))
        assert done.exit_code == 2, done.output
        assert "the judged evaluation itself" in " ".join(done.output.split())


def test_an_example_is_printed_and_can_be_used_at_once(run: Run, tmp_path: Path) -> None:
    done = typed("--example", run.path)
    assert done.exit_code == 0, done.output
    (tmp_path / "gate.yaml").write_text(done.output)
    assert typed(run.path, "--gate", str(tmp_path / "gate.yaml"), "--out", str(tmp_path / "o")).exit_code == 0


def test_it_is_a_function_too_and_does_not_raise(run: Run, tmp_path: Path) -> None:
    found = tunesmith.gate(run.path, {"rules": [{"measure": "accuracy", "min": 1.1}]}, out=str(tmp_path))
    assert not found.passed


def test_suites_that_have_not_run_are_said_and_run_when_asked_for(tmp_path: Path) -> None:
    run = finished_run(tmp_path, "text-classification", steps=8, evaluation={"bootstrap_samples": 100})
    evaluate_run(run)
    file = gate_file(tmp_path, "  - {measure: fairness/scanner/accuracy_difference, max: 1}\n")
    refused = typed(run.path, "--gate", file)
    assert (refused.exit_code, "gate RUN --evaluate" in refused.output) == (2, True)
    groups = ["evaluation.fairness.groups=scanner", "evaluation.fairness.min_group=5"]
    done = typed(run.path, "--gate", file, "--evaluate", *groups)
    assert done.exit_code == 0, done.output
    assert "--evaluate" in typed(run.path, "--gate", file, *groups).output


def test_an_unfair_group_is_stopped_and_the_sound_model_passes(tmp_path: Path) -> None:
    """In the training rows of one group every label is flipped; the rules and the test rows are the same."""
    file = gate_file(
        tmp_path,
        "  - {measure: fairness/group/accuracy_difference, max: 0.2}\n  - {measure: fairness/worst_group_accuracy, min: 0.8}\n",
    )
    codes = {}
    for name, flipped in (("sound", False), ("unfair", True)):
        run = trained_on_groups(tmp_path / name, flipped)
        evaluate_run(run)
        codes[name] = typed(run.path, "--gate", file).exit_code
    assert codes == {"sound": 0, "unfair": 3}


def trained_on_groups(folder: Path, flipped: bool) -> Run:
    """A text classifier of two groups, each with words of its own; half of them tell one label."""
    folder.mkdir()
    for split, seed in (("train", 1), ("test", 2)):
        rng, lines = np.random.default_rng(seed), []
        for k in range(300):
            group, label = k % 2, int(rng.integers(2))
            words = [WORDS[30 * group + 15 * label + int(one)] for one in rng.integers(0, 15, 6)]
            wrong = flipped and group == 1 and split == "train"
            lines.append(json.dumps({"text": " ".join(words), "label": "ny"[label != wrong], "group": "ab"[group]}))
        (folder / f"groups-{split}.jsonl").write_text("\n".join(lines))
    data = {"train": str(folder / "groups-train.jsonl"), "test": str(folder / "groups-test.jsonl")}
    settings = {"fairness": {"groups": ["group"]}, "bootstrap_samples": 100}
    return finished_run(folder, "text-classification", steps=20, data=data, evaluation=settings)
