"""What a federated run writes into its record: the partition, a line for each round, and every site's part in each."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tunesmith.runs.words import span

if TYPE_CHECKING:
    from tunesmith.recipe import Recipe
    from tunesmith.runs import Run
    from tunesmith.training.progress import Progress
    from tunesmith_federated.server_state import Book
    from tunesmith_federated.simulation.parts import Dealt

FOLDER, ROUNDS = "federation", "rounds.parquet"


def record_of(recipe: Recipe, parts: Dealt | None, before: Mapping[str, Any] | None) -> dict[str, Any]:
    """``federation`` of the manifest. The job's id stays what it is when the run is gone on with."""
    told: dict[str, Any] = {
        "job": (before or {}).get("job") or secrets.token_hex(8),
        "method": recipe.federation.method,
        "simulated": parts is not None,
    }
    if parts is not None:
        told["rows"] = {
            name: {"train": len(rows), "holdout": len(parts.holdout[name])} for name, rows in sorted(parts.train.items())
        }
        told["partition"] = {name: dict(counts) for name, counts in parts.counts.items()}
    return told


def tell_round(run: Run, progress: Progress, event: Mapping[str, Any]) -> None:
    """Hand an event of the rounds on: to the run's history, and to whoever watches."""
    if event["kind"] == "round":
        number = int(event["round"])
        if event["loss"] is not None:
            run.log_metrics({"step": number, "split": "train", "loss": event["loss"], "epoch": number})
        if event["metrics"]:
            run.log_metrics({"step": number - 1, "split": "sites", **event["metrics"]})
        progress.handle({"kind": "note", "message": sentence(event, str(run.recipe.training.metric_for_best_model or ""))})
    elif event["kind"] == "judged":
        if event["metrics"]:
            run.log_metrics({"step": int(event["round"]), "split": "sites", **event["metrics"]})
    else:
        progress.handle(dict(event))


def sentence(event: Mapping[str, Any], metric: str = "") -> str:
    """One line for a round.

    >>> sentence({"round": 2, "rounds": 3, "replied": 9, "asked": 10, "loss": 0.41, "metrics": {"accuracy": 0.9},
    ...           "bytes": 2_100_000, "seconds": 4.0})
    'Round 2/3: 9 of 10 sites, loss 0.4100; the model before it: accuracy 0.9000; 2.1 MB, 4 s; 4 s left'
    """
    from tunesmith.training.progress import number

    parts = [f"Round {event['round']}/{event['rounds']}: {event['replied']} of {event['asked']} sites"]
    if event["loss"] is not None:
        parts[0] += f", loss {number(event['loss'])}"
    metrics = dict(event["metrics"])
    first = metric if metric in metrics and metric != "loss" else next((name for name in metrics if name != "loss"), None)
    if first is not None:
        parts.append(f"the model before it: {first} {number(metrics[first])}")
    left = (event["rounds"] - event["round"]) * event["seconds"]
    parts.append(f"{event['bytes'] / 1e6:,.1f} MB, {span(event['seconds'])}")
    return "; ".join([*parts, *([f"{span(left)} left"] if left else [])])


def kept(recipe: Recipe, told: Mapping[str, Any]) -> dict[str, Any]:
    """``kept_round``, whose model is the run's; ``chosen``: as the best by what the sites held back, else it is the last."""
    chosen = recipe.training.load_best_model_at_end and told.get("best_round") is not None
    return {"kept_round": told["best_round"] if chosen else told["rounds"], "chosen": chosen}


def keep_rounds(run: Run, book: Book) -> dict[str, Any]:
    """``rounds.parquet``: a row for each site and round; returns what the manifest tells of them."""
    import io

    import pyarrow as pa
    import pyarrow.parquet as pq

    from tunesmith import storage

    rows = [_flat(row) for row in book.rows()]
    names = dict.fromkeys(name for row in rows for name in row)
    table = pa.table({name: [row.get(name) for row in rows] for name in names})
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    storage.write_bytes(run.file(ROUNDS), buffer.getvalue())
    standing = book.standing
    told = {
        "rounds": standing.round,
        "best_round": standing.best,
        "judged": _named(standing.judged),
        "judged_by": _named(standing.judged_by),
        "sites": standing.sites,
    }
    told |= kept(run.recipe, told)
    run.update(federation=told)
    return told


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    plain = {name: value for name, value in row.items() if name != "metrics"}
    return {**plain, **{f"metric/{name}": value for name, value in row.get("metrics", {}).items()}}


def _named(told: Mapping[int, Mapping[str, Any]]) -> dict[str, Any]:
    return {str(number): dict(values) for number, values in sorted(told.items())}
