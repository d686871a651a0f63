"""The report's part on which parameters were trained: how many, and where they differ, each layer group's begin and rate."""

from __future__ import annotations

from typing import TYPE_CHECKING

from markupsafe import Markup

if TYPE_CHECKING:
    from tunesmith.evaluation.results import Evaluation
    from tunesmith.report.page import Section
    from tunesmith.runs import Run

WAYS = {
    "full": "All parameters were trained.",
    "linear-probe": "Only the head was trained, on the outputs of the pre-trained trunk (linear probe).",
    "bitfit": "Only the biases and the head were trained (BitFit, Ben Zaken et al. 2021).",
    "lora": "Low-rank adapters and the head were trained (LoRA, Hu et al. 2021); the adapters are in model/adapter/.",
}


def section(run: Run, evaluation: Evaluation) -> Section | None:
    """The part, or None where every parameter was trained from the start at one rate."""
    from tunesmith.report.page import Section

    told = run.manifest.get("trained")
    if not told:
        return None
    shares = Markup('<p class="note">{} {:,} of {:,} parameters: {:.2%}.</p>').format(
        WAYS.get(told["adaptation"], told["adaptation"]),
        told["trained"],
        told["parameters"],
        told["trained"] / told["parameters"],
    )
    rows = Markup("").join(
        Markup('<tr><td class="name">{}</td><td class="n">{:,}</td><td class="n">{}</td><td class="n">{:.3g}</td></tr>').format(
            group["name"], group["parameters"], f"{group['step']:,}" if group["step"] else "the start", group["learning_rate"]
        )
        for group in told["groups"]
    )
    head = Markup(
        '<thead><tr><th>Layers, from the head down</th><th class="n">Trained parameters</th>'
        '<th class="n">From update</th><th class="n">Peak learning rate</th></tr></thead>'
    )
    table = Markup('<div class="scroll"><table>{}<tbody>{}</tbody></table></div>').format(head, rows) if rows else Markup("")
    return Section("What was trained", shares + table)
