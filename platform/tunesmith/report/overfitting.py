"""The report's section on the gap between training and validation, and on calibration: is the model as good as it looks?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from markupsafe import Markup

from tunesmith.evaluation.calibration import sentence as calibration_sentence
from tunesmith.evaluation.results import Evaluation
from tunesmith.report import plots
from tunesmith.report.page import Section
from tunesmith.report.plots import Series
from tunesmith.training.overfitting import IN_A_ROW, overfitting

if TYPE_CHECKING:
    from tunesmith.runs import Run


def section(run: Run, evaluation: Evaluation) -> Section | None:
    """The gap's curve with the verdict on it, and what calibration did; None where there is neither."""
    lines = [line for line in run.history if line.get("split") == "validation" and isinstance(line.get("gap"), int | float)]
    calibrated = run.manifest.get("calibration")
    if len(lines) < 2 and not calibrated:
        return None
    parts = []
    if len(lines) >= 2:
        found = overfitting(lines)
        if found is not None:
            parts.append(Markup('<p class="warning">{}</p>').format(found.sentence()))
        else:
            said = f"No overfitting: in no {IN_A_ROW} evaluations in a row did the gap grow while the validation loss worsened."
            parts.append(Markup("<p>{}</p>").format(said))
        points = [(float(line["step"]), float(line["gap"])) for line in lines]
        best = (run.manifest.get("best") or {}).get("step")
        parts.append(plots.curves("Validation loss minus training loss", [Series("gap", points)], best))
    if calibrated:
        parts.append(Markup("<p>{}</p>").format(calibration_sentence(calibrated)))
    return Section("Fit and calibration", Markup("").join(parts))
