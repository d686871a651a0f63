"""What a federation is worth beside training on all rows together, and beside each site alone, in words and in a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tunesmith_federated.comparing import TOGETHER


def compared(known: Mapping[str, Any]) -> dict[str, Any] | None:
    """For the report's template: the federation first, then what it is held against; None where nothing was compared."""
    from tunesmith.evaluation.results import estimate
    from tunesmith.report import words

    told = known.get("compared")
    if not told:
        return None
    metric, sites = told["metric"], told["sites"]
    of_all: dict[str, Any] = {"examples": sites[TOGETHER]["examples"], "value": estimate(told["federation"]), "change": ""}
    rows = [{"name": "the federation", **of_all}]
    for title, name in _shown(told):
        difference = estimate(sites[name]["federation"])
        rows.append(
            {
                "name": title,
                "examples": sites[name]["examples"],
                "value": estimate(sites[name]["value"]),
                "change": words.change(metric, difference),
                "spread": words.change_interval(metric, difference),
            }
        )
    return {"metric": metric, "rows": rows}


def sentences(known: Mapping[str, Any]) -> list[str]:
    """For the terminal: a line for all rows together, and one for each site alone that is shown."""
    found = compared(known)
    if found is None:
        return []
    from tunesmith.report import words

    metric = found["metric"]
    return [
        f"{row['name']}: {words.metric_title(metric)} {words.number(metric, row['value'].value)}; "
        f"the federation has {row['change']} ({row['spread']})"
        for row in found["rows"][1:]
    ]


def _shown(told: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What is shown, with its title."""
    alone = [(f"the {which} site alone ({told[which]})", told[which]) for which in ("best", "typical", "worst")]
    return [(TOGETHER, TOGETHER), *alone]
