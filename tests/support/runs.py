"""Finished runs with real models and real data, made by hand in a second or two: what evaluation and the report need."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from support.data import pictures, sentences, texts
from support.models import tiny_bert, tiny_resnet
from tunesmith import storage
from tunesmith.data.prepare import prepare
from tunesmith.recipe import Recipe
from tunesmith.runs import Artefact, Run
from tunesmith.tasks import load_task
from tunesmith.tasks.base import Preprocessing
from tunesmith.tasks.losses import CrossEntropy


def finished_run(
    folder: Path, task: str, *, steps: int = 12, rows: int = 120, base_labels: bool = False, **sections: Any
) -> Run:
    """A run of ``task`` over generated data, trained for a few updates; ``sections`` go into its recipe.

    ``base_labels`` gives the base model a head for the data's own classes, so that it can be judged too.
    """
    values = {
        "name": "made",
        "task": task,
        "model": {"model_name_or_path": str(_base(folder / "base", task, base_labels))},
        "data": {"train": str(_data(folder, task, rows)), "split": {"validation": 0.2, "test": 0.3}},
        "training": {"output_dir": str(folder / "runs")},
        **sections,
    }
    recipe = Recipe.from_dict(values)
    run = Run.create(recipe, ["tunesmith", "train", "recipe.yaml"])
    try:
        _train(run, steps)
    finally:
        run.lock().release()
    return run


def _base(folder: Path, task: str, with_labels: bool) -> Path:
    if task == "image-classification":
        return tiny_resnet(folder, labels=_labels(task) if with_labels else None)
    return tiny_bert(folder, labels=_labels(task) if with_labels else None)


def _labels(task: str) -> list[str]:
    makers = {"image-classification": pictures, "text-classification": texts}
    return sorted({str(row["label"]) for row in makers[task](200)})


def _data(folder: Path, task: str, rows: int) -> Path:
    if task == "image-classification":
        from PIL import Image

        place = folder / "images"
        place.mkdir()
        lines = []
        for k, row in enumerate(pictures(rows)):
            Image.fromarray(row["image"]).save(place / f"{k}.png")
            lines.append(json.dumps({"file_name": f"{k}.png", "label": row["label"], "scanner": "ab"[k % 2]}))
        (place / "metadata.jsonl").write_text("\n".join(lines))
        return place
    made = texts(rows) if task == "text-classification" else sentences(rows)
    place = folder / "train.jsonl"
    place.write_text("\n".join(json.dumps({**row, "scanner": "ab"[k % 2], "size": k}) for k, row in enumerate(made)))
    return place


def _train(run: Run, steps: int) -> None:
    """A few updates on the whole training split, and everything that a run keeps of it."""
    recipe = run.recipe
    task = load_task(recipe.task)
    data = prepare(recipe, task, output_dir=recipe.training.output_dir)
    preprocessing = Preprocessing(data.state, task.load_processor(recipe))
    torch.manual_seed(0)
    model = task.build_model(recipe, data.state)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    train = data.splits["train"]
    batch = task.collate(train.features(range(len(train))), preprocessing)
    for step in range(1, steps + 1):
        total, count = task.loss(model, batch, CrossEntropy())
        optimizer.zero_grad()
        (total / count).backward()
        optimizer.step()
        loss = float(total.detach() / count)
        run.log_metrics({"step": step, "epoch": float(step), "split": "train", "loss": loss})
        if step % 4 == 0:
            run.log_metrics(
                {"step": step, "epoch": float(step), "split": "validation", "loss": loss, task.metric: step / steps}
            )
    folder = Path(run.file("model"))
    model.save_pretrained(folder)
    preprocessing.processor.save_pretrained(folder)
    Artefact(task=task.name, state=data.state, run=run.name).write(folder)
    storage.write_json(run.file("data/report.json"), data.manifest)
    run.update(
        data={
            name: {"hash": split.hash, "rows": len(split), "source": split.source}
            | ({"domains": data.manifest["splits"][name]["domains"]} if split.domains is not None else {})
            for name, split in data.splits.items()
        },
        split_hash=data.manifest["split_hash"],
        best={"step": steps, "metric": task.metric, "value": 1.0},
        base_model={"name_or_path": recipe.model.model_name_or_path, "revision": None, "hash": "0" * 32},
        steps=steps,
        durations={"train": 1.5, "prepare": 0.5},
    )
    run.set_status("done")
