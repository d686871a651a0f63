"""The report's section on a federation: rounds, sites, what was lost or rejected, bytes and time, and who has what."""

from __future__ import annotations

import io
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup

from tunesmith.report import plots, words
from tunesmith.tasks.metrics import greater_is_better
from tunesmith_federated import sums
from tunesmith_federated.picture import picture
from tunesmith_federated.report_compared import compared
from tunesmith_federated.round_chart import Judged, chart

if TYPE_CHECKING:
    from tunesmith.evaluation.results import Evaluation
    from tunesmith.report.page import Section
    from tunesmith.runs import Run

Row = Mapping[str, Any]

ROUNDS = "rounds.parquet"
METRIC = "metric/"
"""Begins the name of a column that holds a metric."""
MOST_SITES, MOST_FAULTS = 40, 50
"""Lines of the two tables."""
LEAST_FOR_A_BAND = 5
"""Sites from which on a tenth of them means something."""

SAID = {
    "replied": "replied",
    "refused": "refused by the site",
    "rejected": "rejected by the server",
    "lost": "lost",
    "late": "late",
}
"""How a site's part in a round can end."""


def section(run: Run, evaluation: Evaluation) -> Section | None:
    """The section; None of a run that is no federation."""
    from tunesmith.report.page import Section

    known = run.manifest.get("federation")
    if not known:
        return None
    rows = read_rounds(run)
    if not rows:
        return None
    return Section("Federation", render(known, rows, evaluation.headline))


def read_rounds(run: Run) -> list[dict[str, Any]]:
    """A mapping for each site and round; none where the run has no such file."""
    import pyarrow.parquet as pq

    from tunesmith import storage

    try:
        content = storage.read_bytes(run.file(ROUNDS))
    except FileNotFoundError:
        return []
    found: list[dict[str, Any]] = pq.read_table(io.BytesIO(content)).to_pylist()
    return found


def render(known: Mapping[str, Any], rows: Sequence[Row], metric: str) -> Markup:
    """The section's content.

    Args:
        known: ``federation`` of the manifest: ``method``, ``rounds``, ``kept_round``, ``judged`` (round → metrics of the model
            after it), ``partition`` (site → class → rows), ``rows`` (site → ``train`` and ``holdout``).
        rows: of ``rounds.parquet``. What a site says in a round of a metric is of the model that it was sent, the one after
            the round before.
        metric: the headline; where sites have not judged by it, another that they have.
    """
    from importlib.resources import files

    from tunesmith.report import page

    metric = _metric(metric, rows)
    text = files("tunesmith_federated").joinpath("templates", "federation.html.j2").read_text(encoding="utf-8")
    faults = [row for row in rows if row.get("status") != "replied"]
    sites = _sites(known, rows, metric)
    shown = page.environment().from_string(text)
    html = shown.render(
        sentence=_sentence(known, rows),
        chart=chart(metric, _judged(known, rows, metric), known.get("kept_round")),
        banded=len(sites) >= LEAST_FOR_A_BAND,
        metric=metric,
        apart=_apart(sites, metric),
        sites=sites[:MOST_SITES],
        all_sites=len(sites),
        rounds=_rounds(rows, _last(known, rows)),
        faults=[{**row, "said": SAID.get(str(row.get("status")), row.get("status"))} for row in reversed(faults)][:MOST_FAULTS],
        all_faults=len(faults),
        picture=picture(_partition(known)),
        compared=compared(known),
        duration=words.duration,
        size=megabytes,
    )
    return Markup(html)  # noqa: S704  # the template has escaped what comes from data


def megabytes(count: float | None) -> str:
    """Bytes for people.

    >>> megabytes(1_234_567), megabytes(12_000), megabytes(2.5e9), megabytes(None)
    ('1.2 MB', '12 kB', '2.5 GB', '–')
    """
    if count is None:
        return "–"
    for unit, least in (("GB", 1e9), ("MB", 1e6)):
        if count >= least:
            return f"{count / least:,.1f} {unit}"
    return f"{count / 1e3:,.0f} kB"


def _sentence(known: Mapping[str, Any], rows: Sequence[Row]) -> str:
    """What was done and what it cost, in words."""
    sites = len({row["site"] for row in rows})
    rounds = _last(known, rows)
    total = sum(_sent(row) for row in rows)
    said = f"{sites:,} site{'s' if sites != 1 else ''} trained one model in {rounds:,} round{'s' if rounds != 1 else ''}"
    said += f" by {known.get('method', 'fedavg')}; no row left its site. {megabytes(total)} of tensors travelled."
    if known.get("kept_round") is not None:
        said += f" The model after round {known['kept_round']} was kept."
    lost = Counter(str(row["status"]) for row in rows if row.get("status") != "replied")
    if lost:
        parts = ", ".join(f"{count:,} {SAID.get(status, status)}" for status, count in sorted(lost.items()))
        said += f" Of {len(rows):,} requests not all were answered with something that counts: {parts}."
    return said


def _metric(wanted: str, rows: Sequence[Row]) -> str:
    """The metric that the sites have judged by."""
    columns = dict.fromkeys(name.removeprefix(METRIC) for row in rows for name in row if name.startswith(METRIC))
    have = [name for name in columns if any(_finite(row.get(f"{METRIC}{name}")) for row in rows)]
    return wanted if wanted in have or not have else next((name for name in have if name != "loss"), have[0])


def _judged(known: Mapping[str, Any], rows: Sequence[Row], metric: str) -> list[Judged]:
    """Each model over all rows and over the sites."""
    whole = {int(number): float(found.get(metric) or math.nan) for number, found in (known.get("judged") or {}).items()}
    by_round: dict[int, dict[str, dict[str, float]]] = {}
    for row in rows:
        value = row.get(f"{METRIC}{metric}")
        if _finite(value):
            by_round.setdefault(int(row["round"]) - 1, {})[row["site"]] = {metric: float(value)}  # type: ignore[arg-type]
    points = []
    for number in sorted({*whole, *by_round}):
        each = by_round.get(number, {})
        apart = sums.spread(each, metric)
        values = [one[metric] for one in each.values()]
        low, high = np.quantile(values, [0.1, 0.9]) if len(values) >= LEAST_FOR_A_BAND else (math.nan, math.nan)
        worst = apart.worst if apart is not None else math.nan
        points.append(Judged(number, whole.get(number, math.nan), worst, float(low), float(high)))
    return points


def _sites(known: Mapping[str, Any], rows: Sequence[Row], metric: str) -> list[dict[str, Any]]:
    """A line for each site, the worst first."""
    held: Mapping[str, Mapping[str, int]] = known.get("rows") or {}
    found: dict[str, dict[str, Any]] = {}
    last = _last(known, rows)
    for row in rows:
        one = found.setdefault(
            row["site"], {"site": row["site"], "asked": 0, "replied": 0, "bytes": 0, "seconds": [], "value": None, "loss": None}
        )
        trained = int(row["round"]) <= last
        one["asked"] += trained
        one["replied"] += trained and row.get("status") == "replied"
        one["bytes"] += _sent(row)
        if _finite(row.get("seconds")):
            one["seconds"].append(row["seconds"])
        one["train"] = held.get(row["site"], {}).get("train") or row.get("examples") or one.get("train")
        one["loss"] = row["loss"] if _finite(row.get("loss")) else one["loss"]
        value = row.get(f"{METRIC}{metric}")
        if _finite(value):
            one["value"], one["n"] = value, int(row.get("judged") or 0)
    for one in found.values():
        one["seconds"] = float(np.mean(one["seconds"])) if one["seconds"] else None
        one["estimate"] = sums.estimates({metric: one["value"]}, one["n"])[metric] if one["value"] is not None else None
        one["bar"] = plots.bar(one["estimate"]) if one["estimate"] is not None and 0 <= one["value"] <= 1 else ""
    turn = 1 if greater_is_better(metric) else -1
    return sorted(found.values(), key=lambda one: (one["value"] is None, turn * (one["value"] or 0), one["site"]))


def _apart(sites: Sequence[Mapping[str, Any]], metric: str) -> str:
    """How far the sites are apart at the last judgement, in words; empty where fewer than two were judged."""
    found = sums.spread({one["site"]: {metric: one["value"]} for one in sites if one["value"] is not None}, metric)
    if found is None or found.sites < 2:
        return ""
    worst, best, sd = (words.number(metric, value) for value in (found.worst, found.best, found.sd))
    ends = f"from {worst} ({found.worst_site}) to {best} ({found.best_site})"
    return f"{words.metric_title(metric)} of the last model goes {ends}; the standard deviation between sites is {sd}."


def _rounds(rows: Sequence[Row], last: int) -> list[dict[str, Any]]:
    """A line for each round in which sites trained."""
    by_round: dict[int, list[Row]] = {}
    for row in rows:
        if int(row["round"]) <= last:
            by_round.setdefault(int(row["round"]), []).append(row)
    lines = []
    for number, those in sorted(by_round.items()):
        counted = [row for row in those if row.get("status") == "replied"]
        losses = [(row["loss"], row.get("examples") or 0) for row in counted if _finite(row.get("loss"))]
        total = sum(weight for _, weight in losses)
        times = [row["seconds"] for row in counted if _finite(row.get("seconds"))]
        lines.append(
            {
                "round": number,
                "asked": len(those),
                "replied": len(counted),
                "loss": sum(loss * weight for loss, weight in losses) / total if total else None,
                "bytes": sum(map(_sent, those)),
                "slowest": max(times, default=None),
                "middle": float(np.median(times)) if times else None,
            }
        )
    return lines


def _last(known: Mapping[str, Any], rows: Sequence[Row]) -> int:
    """Rounds in which sites trained; after them they judge once more."""
    return int(known.get("rounds") or max((int(row["round"]) for row in rows), default=0))


def _partition(known: Mapping[str, Any]) -> Mapping[str, Mapping[str, int]]:
    """Site → class → rows, or only rows where classes are not known."""
    if known.get("partition"):
        found: Mapping[str, Mapping[str, int]] = known["partition"]
        return found
    return {site: {"": sum(one.values())} for site, one in (known.get("rows") or known.get("sites") or {}).items()}


def _sent(row: Row) -> int:
    """Bytes of tensors, both ways."""
    return int(row.get("bytes_sent") or 0) + int(row.get("bytes_received") or 0)


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
