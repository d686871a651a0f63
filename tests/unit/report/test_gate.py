"""What a gate writes is read by CI systems, by people, and by the Hub."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
import yaml
from huggingface_hub import parse_eval_result_entries

from tunesmith import storage
from tunesmith.evaluation.gate import Check, GateResult, Outcome, judge
from tunesmith.evaluation.results import Evaluation, SuiteResult, plain
from tunesmith.evaluation.statistics import Estimate
from tunesmith.recipe.gate import load_gate
from tunesmith.report import eval_results, gate_example, gate_page, gate_words, junit
from tunesmith.report.card import card
from tunesmith.runs import Run

GOOD = Check("accuracy", "min", 0.9, Estimate(0.95, 0.92, 0.97, 400, "wilson"), status="passed")
OPEN = Check("f1/<b>|x", "min", 0.9, Estimate(0.91, 0.85, 0.95, 100, "wilson"), status="not settled", needed=2345)
BAD = Check("ece", "max", 0.01, Estimate(0.1, 0.08, 0.12, 400, "basic-squared"), status="failed")


@pytest.fixture
def found() -> GateResult:
    outcomes = [
        Outcome("accuracy ≥ 0.9", "passed", False, [GOOD]),
        Outcome("f1 \x00\x1b[31m <b>|x", "not settled", True, [OPEN, GOOD], ["f1/few"], 10),
        Outcome("let through", "not settled", False, [OPEN]),
        Outcome("ece ≤ 0.01", "failed", True, [BAD]),
    ]
    return GateResult(
        "run \ud800 & co", "base", "gate.yaml", False, outcomes, 400, "test", "abc", date="2026-11-26T00:00:00+00:00"
    )


def test_junit_has_a_test_case_for_each_rule_and_is_legal_xml(found: GateResult) -> None:
    root = ET.fromstring(junit.render(found).encode())
    (suite,) = root
    assert {key: suite.get(key) for key in ("tests", "failures", "errors", "skipped")} == {
        "tests": "4",
        "failures": "2",
        "errors": "0",
        "skipped": "1",
    }
    cases = suite.findall("testcase")
    assert [case.get("name") for case in cases] == ["accuracy ≥ 0.9", "f1 [31m <b>|x", "let through", "ece ≤ 0.01"]
    assert [[child.tag for child in case] for case in cases] == [["system-out"], ["failure"], ["skipped"], ["failure"]]
    failure = cases[1].find("failure")
    assert failure is not None
    assert failure.get("type") == "not-settled"
    assert "about 2,400 examples would" in str(failure.get("message"))
    assert len(str(failure.text).splitlines()) == 2


def test_markdown_keeps_its_table_whatever_a_name_holds(found: GateResult) -> None:
    lines = gate_words.markdown(found).splitlines()
    rows = [line for line in lines if line.startswith("|")]
    assert len(rows) == 2 + len(found.outcomes)
    assert all(row.count("|") == 4 for row in rows)
    assert "<b>" not in "\n".join(lines)
    assert lines[0].startswith("### ❌ The gate did not pass")


def test_the_page_says_what_holds_and_escapes_the_rest(found: GateResult) -> None:
    page = gate_page.render(replace(found, target="run"))
    assert "<b>|x" not in page
    assert "let through" in page
    assert "not judged, for want of 10 examples: f1/few" in page


def test_a_passed_gate_says_how_many_are_open(found: GateResult) -> None:
    passed = replace(found, passed=True, outcomes=[found.outcomes[0], found.outcomes[2]])
    assert gate_words.sentence(passed) == "The gate passed: 1 of 2 rules hold, 1 not settled"


def test_the_hubs_results_are_what_its_library_reads(judged: tuple[Run, Evaluation]) -> None:
    run, evaluation = judged
    place = eval_results.write(run, evaluation, "2026-11-26T00:00:00+00:00")
    entries = parse_eval_result_entries(yaml.safe_load(Path(place).read_text()))
    assert entries[0].task_id == f"test/{evaluation.headline}"
    assert entries[0].value == pytest.approx(evaluation.metrics[evaluation.headline].value, abs=1e-6)
    assert "not a data set of the Hub" in str(entries[0].notes)


def test_the_card_says_that_a_gate_was_passed_and_keeps_its_model_index(judged: tuple[Run, Evaluation]) -> None:
    run, evaluation = judged
    storage.write_json(
        run.file("gate/gate.json"), plain({"passed": True, "date": "2026-11-26T", "baseline": None, "outcomes": []})
    )
    text = card(run, evaluation, "image-classification")
    assert "It passed on 2026-11-26" in text
    assert "model-index:" in text


def test_an_example_gate_is_one_that_its_run_passes(judged: tuple[Run, Evaluation], tmp_path: Path) -> None:
    (tmp_path / "gate.yaml").write_text(gate_example.render(judged[1]))
    outcomes = judge(load_gate(tmp_path / "gate.yaml"), judged[1])
    assert len(outcomes) >= 4
    assert {one.status for one in outcomes if one.checks} == {"passed"}


def test_an_example_gate_offers_a_floor_where_more_of_a_suites_measure_is_better(judged: tuple[Run, Evaluation]) -> None:
    told = {name: Estimate(0.8, 0.7, 0.9, 100, "wilson") for name in ("worst_case", "drop")}
    text = gate_example.render(replace(judged[1], suites={"robustness": SuiteResult("Robustness", n=100, measures=told)}))
    floor, ceiling = text.split("robustness/worst_case")[1].split("\n")[1], text.split("robustness/drop")[1].split("\n")[1]
    assert (floor, ceiling) == ("#   min: 0.8", "#   max: 0.8")
