"""``.eval_results/tunesmith.yaml`` beside the model: its results as the Hugging Face Hub shows them on a model's page.

The format is that of ``huggingface_hub.EvalResultEntry`` (https://huggingface.co/docs/hub/eval-results): a list, each with a
data set, a value and notes. The Hub knows data sets by their ids; of others the run's name stands there, and the notes say so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tunesmith import storage
from tunesmith.evaluation.results import Evaluation
from tunesmith.recipe import yaml_tree
from tunesmith.report import words
from tunesmith.report.card import hub_name, listed

if TYPE_CHECKING:
    from tunesmith.runs import Run

FILE = ".eval_results/tunesmith.yaml"


def write(run: Run, found: Evaluation, date: str) -> str:
    """Write the file into the run's ``model/``, and return its place."""
    place = storage.join(run.file("model"), FILE)
    # A list of its own at the root: that of a mapping, two spaces less.
    text = yaml_tree.dump({"results": entries(run, found, date)}).removeprefix("results:\n")
    storage.write_text(place, text)
    return place


def entries(run: Run, found: Evaluation, date: str) -> list[dict[str, Any]]:
    """One entry for each metric of the card, its interval and number of examples in the notes; ``date`` is ISO 8601."""
    from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml

    dataset, known = _dataset(run, found)
    rows = f", rows {found.data_hash}" if found.data_hash else ""
    local = "" if known else "; not a data set of the Hub"
    made = [
        EvalResultEntry(
            dataset_id=dataset,
            task_id=f"{found.split}/{hub_name(name)}",
            value=round(found.metrics[name].value, 6),
            date=date,
            notes=f"{words.metric_title(name)}{_ends(name, found)}, n = {found.metrics[name].n}{rows}{local}",
        )
        for name in listed(found)
    ]
    return eval_result_entries_to_yaml(made)


def _ends(name: str, found: Evaluation) -> str:
    ends = words.interval(name, found.metrics[name])
    return f", {100 * found.confidence:g} % interval {ends}" if ends else ""


def _dataset(run: Run, found: Evaluation) -> tuple[str, bool]:
    """The data set's id at the Hub, and whether it is one."""
    data = run.recipe_values.get("data", {})
    source = found.source or data.get("test") or data.get("train")
    if isinstance(source, str) and (data.get("format") == "hub" or source.startswith("hf://")):
        return source.removeprefix("hf://").partition(":")[0].partition("@")[0], True
    return str(run.manifest.get("name") or run.name), False
