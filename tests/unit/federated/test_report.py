"""The report's section shows rounds, sites, faults and who has what, of a federation alone, and whatever sites are called."""

from __future__ import annotations

import io
import math
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from support.runs import finished_run
from tunesmith import storage
from tunesmith.evaluation.evaluate import evaluate_run
from tunesmith.evaluation.results import Evaluation
from tunesmith.report.html import render as whole_page
from tunesmith.runs import Run
from tunesmith_federated.report import ROUNDS, render, section
from tunesmith_federated.round_chart import Judged, chart

pytestmark = pytest.mark.unit

KNOWN = {
    "method": "fedprox",
    "rounds": 3,
    "kept_round": 2,
    "judged": {str(k): {"accuracy": 0.5 + 0.1 * k, "loss": 1.0} for k in range(4)},
    "partition": {f"site-{k}": {"cat": 10 + k, "dog": 5} for k in range(6)},
    "rows": {f"site-{k}": {"train": 12 + k, "holdout": 3} for k in range(6)},
}


def rows(sites: int = 6, rounds: int = 3) -> list[dict[str, Any]]:
    """Rounds in which the first site is lost once, and rejected once, and the worst."""
    found: list[dict[str, Any]] = []
    for number in range(1, rounds + 2):
        for site in range(sites):
            row: dict[str, Any] = {
                "round": number,
                "site": f"site-{site}",
                "status": "replied",
                "reason": "",
                "bytes_sent": 1_000_000,
            }
            if site == 0 and number in (1, 2):
                status, reason = ("lost", "Node Unavailable") if number == 1 else ("rejected", "w holds <NaN>")
                found.append({**row, "status": status, "reason": reason})
                continue
            value = 0.4 + 0.05 * number + 0.02 * site
            told = {"examples": 20 + site, "loss": 1 / number, "seconds": 2.0 + site, "bytes_received": 500_000, "judged": 30}
            found.append({**row, **told, "metric/accuracy": value, "metric/f1_macro": math.nan if site == 1 else value})
    return found


def test_the_section_says_what_was_done_and_what_it_cost() -> None:
    shown = render(KNOWN, rows(), "accuracy")
    assert "6 sites trained one model in 3 rounds by fedprox; no row left its site. 35.0 MB of tensors travelled." in shown
    assert "The model after round 2 was kept." in shown
    assert "1 lost, 1 rejected by the server" in shown
    assert "w holds &lt;NaN&gt;" in shown
    assert "Node Unavailable" in shown
    assert "Accuracy of the last model goes from 60.0\u202f% (site-0) to 70.0\u202f% (site-5)" in shown
    assert shown.index('<td class="name">site-0') < shown.index('<td class="name">site-5')
    assert "1 of 3" in shown
    assert "Accuracy by round" in shown
    assert "Rows of each site by class" in shown
    assert "middle eight tenths" in shown


def test_a_metric_that_sites_have_not_judged_by_gives_way_to_one_that_they_have() -> None:
    assert "F1 (macro) by round" in render(KNOWN, rows(), "f1_macro")
    assert "Accuracy by round" in render(KNOWN, rows(), "roc_auc")


def test_a_run_of_real_sites_without_judgements_or_classes_is_shown_too() -> None:
    bare = [{"round": 1, "site": "<b>", "status": "replied", "reason": None, "examples": 5, "loss": None}]
    shown = render({"method": "fedavg", "rows": {"<b>": {"train": 5, "holdout": 0}}}, bare, "accuracy")
    assert "<b></td>" not in shown
    assert "&lt;b&gt;" in shown
    assert "by round" not in shown
    assert "1 site trained one model in 1 round" in shown
    assert "did not count" not in shown


def test_a_thousand_sites_and_rounds_stay_readable() -> None:
    many = [{**row, "site": f"s{k:03}"} for k in range(300) for row in rows(1, 3)]
    shown = render({**KNOWN, "partition": {f"s{k:03}": {"cat": k} for k in range(300)}}, many, "accuracy")
    assert "The 40 worst of 300 sites" in shown
    assert "The 50 last of 600" in shown
    assert len(shown) < 300_000


def test_the_chart_draws_what_is_known() -> None:
    assert chart("accuracy", []) == ""
    assert chart("accuracy", [Judged(0, math.nan)]) == ""
    drawn = chart("accuracy", [Judged(k, 0.5 + k / 10, 0.4, 0.42, 0.7) for k in range(4)], kept=2)
    assert drawn.count("<polyline") == 2
    assert "<polygon" in drawn
    assert "kept" in drawn
    assert "nan" not in drawn
    one = chart("loss", [Judged(1, 3.0)])
    assert "<polygon" not in one
    assert "nan" not in one


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Evaluation]:
    run = finished_run(tmp_path_factory.mktemp("run"), "text-classification", evaluation={"bootstrap_samples": 100})
    return run, evaluate_run(run)


def test_the_report_has_it_of_a_federation_and_of_nothing_else(judged: tuple[Run, Evaluation], tmp_path: Path) -> None:
    run = Run(shutil.copytree(judged[0].path, tmp_path / "run"))
    for step in (1, 2, 3):
        run.log_metrics({"step": step, "split": "train", "loss": 1 / step})
    assert section(run, judged[1]) is None
    assert ">updates</text>" in whole_page(run, judged[1])
    run.update(federation=KNOWN)
    assert section(run, judged[1]) is None
    known = rows()
    names = dict.fromkeys(name for row in known for name in row)
    buffer = io.BytesIO()
    pq.write_table(pa.table({name: [row.get(name) for row in known] for name in names}), buffer)
    storage.write_bytes(run.file(ROUNDS), buffer.getvalue())
    found = section(run, judged[1])
    assert found is not None
    assert found.title == "Federation"
    whole = whole_page(run, judged[1])
    assert found.html in whole
    assert ">rounds</text>" in whole
    assert ">updates</text>" not in whole
