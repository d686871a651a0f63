"""``README.md``: the model card, with a ``model-index`` that the Hugging Face Hub and its tools read."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import yaml

from tunesmith import storage
from tunesmith.evaluation.results import Evaluation
from tunesmith.report import self_training, words
from tunesmith.report.page import stored
from tunesmith.tasks.metrics import greater_is_better

if TYPE_CHECKING:
    from tunesmith.runs import Run

CARD = "README.md"
GATE = "gate/gate.json"
"""Where a run keeps what became of its release gate."""

LISTED_CLASSES = 50
"""Labels named in the card; of more, the count is given."""

_CONFIDENT = 0.05
"""Calibration error from which the card warns against taking probabilities at their word."""

_HUB_METRICS = {"f1_macro": "f1", "precision_macro": "precision", "recall_macro": "recall"}
"""What the Hub calls a metric, where it is not our name."""


def write_card(run: Run, evaluation: Evaluation, pipeline: str | None = None) -> str:
    """Write the model card into the run and beside the model, and return the first one's path or URI.

    ``pipeline`` is the ``transformers.pipeline`` task; None takes the task's name.
    """
    text = card(run, evaluation, pipeline or evaluation.task)
    for place in (run.file("model"), run.path):
        storage.write_text(storage.join(place, CARD), text)
    return run.file(CARD)


def card(run: Run, found: Evaluation, pipeline: str) -> str:
    """The card as Markdown with its YAML head."""
    base = _base(run)
    head = {
        "library_name": "transformers",
        "pipeline_tag": pipeline,
        **({"base_model": base} if _is_hub_id(base) else {}),
        "tags": ["tunesmith"],
        "metrics": list(dict.fromkeys(hub_name(name) for name in listed(found))),
        "model-index": [{"name": run.manifest.get("name") or run.name, "results": [_result(run, found, pipeline)]}],
    }
    sections = [
        f"# {run.manifest.get('name') or run.name}",
        words.verdict(found).sentence,
        "## What it is for",
        _purpose(run, found, base),
        f'```python\nfrom transformers import pipeline\n\nmodel = pipeline("{pipeline}", model="path/to/this/folder")\n```',
        "## Results",
        words.verdict(found).detail,
        _results(found),
        *(["Class by class:", _classes(found)] if found.per_class else []),
        *_slices(found),
        *_domains(found),
        *_gate(run),
        "## Training",
        _training(run),
        "## Limits",
        "\n".join(f"- {line}" for line in _limits(found)),
        "## Record",
        _record(run, found),
    ]
    return f"---\n{yaml.safe_dump(head, sort_keys=False, allow_unicode=True)}---\n\n" + "\n\n".join(sections) + "\n"


def _base(run: Run) -> str:
    said = run.manifest.get("base_model", {}).get("name_or_path")
    return str(said or run.recipe_values.get("model", {}).get("model_name_or_path", ""))


def _is_hub_id(name: str) -> bool:
    return name.count("/") <= 1 and not name.startswith((".", "/", "~")) and "://" not in name and bool(name)


def listed(found: Evaluation) -> list[str]:
    """The metrics of the card: the headline first, no weighted averages."""
    names = [name for name in found.metrics if name not in (found.headline, "loss") and not name.endswith("_weighted")]
    return [name for name in (found.headline, *names) if math.isfinite(found.metrics[name].value)]


def hub_name(name: str) -> str:
    """What the Hub calls a metric."""
    return _HUB_METRICS.get(name, name)


def _result(run: Run, found: Evaluation, pipeline: str) -> dict[str, Any]:
    """One entry of ``model-index``, as ``huggingface_hub.EvalResult`` has it."""
    named = run.manifest.get("name") or run.name
    dataset: dict[str, Any] = {"name": str(found.source or named), "type": str(found.source or named), "split": found.split}
    if found.data_hash:
        dataset["revision"] = found.data_hash
    metrics = [
        {
            "type": hub_name(name),
            "value": round(found.metrics[name].value, 6),
            "name": words.metric_title(name),
            "args": {
                f"{100 * found.confidence:g} % interval": [
                    _rounded(found.metrics[name].low),
                    _rounded(found.metrics[name].high),
                ],
                "n": found.metrics[name].n,
            },
        }
        for name in listed(found)
    ]
    return {"task": {"type": pipeline, "name": pipeline.replace("-", " ").capitalize()}, "dataset": dataset, "metrics": metrics}


def _rounded(value: float) -> float | None:
    return round(value, 6) if math.isfinite(value) else None


def _purpose(run: Run, found: Evaluation, base: str) -> str:
    labels = list(found.per_class)
    text = f"A model for {found.task.replace('-', ' ')}, fine-tuned from `{base}`"
    if labels:
        shown = ", ".join(f"`{_inline(label)}`" for label in labels[:LISTED_CLASSES])
        rest = len(labels) - LISTED_CLASSES
        text += f". It tells {len(labels)} classes apart: {shown}" + (f" and {rest} more" if rest > 0 else "")
    return text + ". Use it on inputs like those it was trained and judged on; it knows no other class than these."


def _results(found: Evaluation) -> str:
    judged = {key: one for key, one in found.baselines.items() if not one.skipped}
    header = ["Metric", "Value", f"{100 * found.confidence:g} % interval", "n", *(f"Difference from {key}" for key in judged)]
    rows = []
    for name in listed(found):
        one = found.metrics[name]
        title = words.metric_title(name) + ("" if greater_is_better(name) else " (lower is better)")
        beside = [_difference(name, b.differences.get(name)) for b in judged.values()]
        rows.append([title, words.number(name, one.value), words.interval(name, one) or "–", f"{one.n:,}", *beside])
    return _table(header, rows)


def _difference(name: str, one: Any) -> str:
    if one is None:
        return "–"
    ends = words.change_interval(name, one)
    return words.change(name, one) + (f" ({ends})" if ends else "")


def _classes(found: Evaluation) -> str:
    rows = []
    for label, result in list(found.per_class.items())[:LISTED_CLASSES]:
        cells = [
            f"{words.number(key, one.value)} ({words.interval(key, one)})"
            if math.isfinite(one.low)
            else words.number(key, one.value)
            for key, one in result.metrics.items()
        ]
        rows.append([f"`{_inline(label)}`", f"{result.support:,}", *cells])
    first = next(iter(found.per_class.values()))
    return _table(["Class", "Examples", *(words.metric_title(key) for key in first.metrics)], rows)


def _slices(found: Evaluation) -> list[str]:
    name, parts = found.headline, []
    for column, values in found.slices.items():
        rows = [
            [_inline(value), f"{one.n:,}", words.number(name, one.metrics[name].value), words.interval(name, one.metrics[name])]
            for value, one in values.items()
        ]
        header = [_inline(column), "Examples", words.metric_title(name), f"{100 * found.confidence:g} % interval"]
        parts += [f"By `{_inline(column)}`:", _table(header, rows)]
    return parts


def _domains(found: Evaluation) -> list[str]:
    name = found.headline
    named = {domain + (" (not in training)" if one.unseen else ""): one for domain, one in found.domains.items()}
    rows = [
        [_inline(domain), f"{one.n:,}", words.number(name, one.metrics[name].value), words.interval(name, one.metrics[name])]
        for domain, one in named.items()
    ]
    header = ["Domain", "Examples", words.metric_title(name), f"{100 * found.confidence:g} % interval"]
    return ["By domain:", _table(header, rows)] if rows else []


def _gate(run: Run) -> list[str]:
    """That the model has passed a release gate, or not, and its rules; nothing where none was run."""
    found = stored(run, GATE)
    if not found:
        return []
    held = "passed" if found["passed"] else "did not pass"
    rows = [[_inline(one["name"]), one["status"]] for one in found["outcomes"]]
    against = f" against `{_inline(found['baseline'])}`" if found["baseline"] else ""
    return ["## Release gate", f"It {held} on {found['date'][:10]}{against}:", _table(["Rule", "Outcome"], rows)]


def _training(run: Run) -> str:
    manifest, settings = run.manifest, run.recipe_values.get("training", {})
    rows = [
        f"{name}: {one.get('rows', 0):,} rows (hash `{one.get('hash', '')}`)" for name, one in manifest.get("data", {}).items()
    ]
    lines = [f"- Data: {'; '.join(rows)}"] if rows else []
    kept = (
        "learning_rate",
        "lr_scheduler_type",
        "num_train_epochs",
        "max_steps",
        "per_device_train_batch_size",
        "num_workers",
        "seed",
    )
    said = [f"`{key}` {settings[key]}" for key in kept if settings.get(key) not in (None, -1)]
    if said:
        lines.append(f"- Settings: {', '.join(said)}")
    best = manifest.get("best") or {}
    if manifest.get("steps"):
        chosen = (
            f"; the checkpoint of update {best['step']} was kept, for its {words.in_sentence(best['metric'])}"
            if best.get("step")
            else ""
        )
        lines.append(f"- {manifest['steps']:,} updates{chosen}")
    lines += [f"- {line}" for line in self_training.sentences(run)]
    if manifest.get("durations", {}).get("train") is not None:
        lines.append(f"- Time: {words.duration(manifest['durations']['train'])}")
    return "\n".join(lines) or "See `manifest.json`."


def _limits(found: Evaluation) -> list[str]:
    """What the numbers do not cover, from the numbers."""
    lines = list(found.warnings)
    weakest = sorted(
        (one.metrics["f1"].value, label)
        for label, one in found.per_class.items()
        if "f1" in one.metrics and math.isfinite(one.metrics["f1"].value)
    )
    if len(weakest) > 1:
        lines.append(f"It is weakest on `{_inline(weakest[0][1])}` (F1 {words.number('f1', weakest[0][0])}).")
    ece = found.metrics.get("ece")
    if ece and ece.value >= _CONFIDENT:
        lines.append(
            f"Its probabilities are off by {words.number('ece', ece.value)} on average: do not take them at their word."
        )
    if found.n:
        lines.append(
            "It was judged on data from the source it was trained on; on inputs of another origin, judge it again first."
        )
    return lines


def _record(run: Run, found: Evaluation) -> str:
    packages = run.manifest.get("packages", {})
    kept = ("tunesmith", "torch", "transformers", "accelerate", "datasets", "ray")
    lines = [
        f"- Run `{run.name}`, recipe `{run.manifest.get('recipe_fingerprint', '')}`",
        *([f"- Judged rows: hash `{found.data_hash}`"] if found.data_hash else []),
        f"- Versions: {', '.join(f'{name} {packages[name]}' for name in kept if name in packages)}",
        "- The whole verdict, with figures and examples, is in `report.html` of the run",
    ]
    git = run.manifest.get("git")
    if git:
        lines.insert(1, f"- Git commit `{git['commit']}`{', with changes' if git.get('dirty') else ''}")
    return "\n".join(lines)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _inline(value: Any) -> str:
    """A name from the data inside Markdown: one line, without what would end a cell, a code span, or begin HTML."""
    text = " ".join(str(value).split())
    replaced: Mapping[str, str] = {"|": "/", "`": "'", "<": "‹", ">": "›"}
    return "".join(replaced.get(letter, letter) for letter in text)
