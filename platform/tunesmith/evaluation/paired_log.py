"""The pairs of answers that a shadow or a canary wrote down: two versions of a model on the same real requests.

A service writes a line of JSON for each request that both versions have answered (``….pairs.jsonl``), with the answers to its
first 16 examples; an example is called by its request's id, with ``#2``, ``#3`` … for the further ones of a request.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from tunesmith import storage
from tunesmith.data.readers import READERS
from tunesmith.errors import DataError, UserError, nearest
from tunesmith.evaluation.flips import MOST, Flip
from tunesmith.evaluation.predictions import ID
from tunesmith.evaluation.sides import Side
from tunesmith.evaluation.statistics import Estimate, wilson
from tunesmith.tasks.labels import label_name, label_names, tag_names

SAID = ("label", "labels", "tags")
"""The keys under which an answer says what it is, by task."""
EARLIER = ".1"
"""Behind a file's name: what was in it before it grew too large."""
MOST_NAMED = 5
"""Rollouts that a message names."""


@dataclass(frozen=True)
class Pairs:
    """The answers of two versions, by the id of the example."""

    file: str
    a: str
    """The new version."""
    b: str
    answers: dict[str, tuple[Mapping[str, Any], Mapping[str, Any]]]
    """A's and B's."""
    repeated: int = 0
    """Requests whose id had been there before; they are left out."""
    damaged: int = 0
    """Lines that are no pairs (the last one is cut off where the service was killed)."""
    others: tuple[str, ...] = ()
    """Earlier rollouts of these versions, whose pairs are left out as none was named; the newest first."""


@dataclass(frozen=True)
class Agreement:
    """How far two versions say the same, where nobody knows what is right."""

    a: str
    b: str
    n: int
    agreed: Estimate
    """Share of the examples to which both give the same answer."""
    churn: int
    changes: dict[str, int]
    """``said by B → said by A``, the commonest first."""
    examples: list[Flip] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def read_pairs(
    file: str, a: str | None = None, b: str | None = None, *, model: str | None = None, rollout: str | None = None
) -> Pairs:
    """The pairs of versions ``a`` (the new one) and ``b``; the later and the earlier one where they are not named.

    They are those of one model, and of one rollout of it, the newest where none is named: a version that was taken back gives
    its number to the next one. What has gone to ``FILE.1`` is read too.

    Raises :class:`DataError` where the file is not there, or has no pairs of these.
    """
    lines, damaged = _lines(file)
    lines = _of_model(lines, model, file)
    named = [one for one in (a, b) if one is not None]
    _check_versions(named, lines, file)
    lines = [line for line in lines if all(one in line["answers"] for one in named)]
    lines, others = _of_rollout(lines, rollout, file)
    versions = sorted({version for line in lines for version in line["answers"]}, key=_order)
    if a is None or b is None:
        if len(versions) != 2:
            raise UserError(
                f"{file} has answers of {len(versions)} versions: {', '.join(versions) or 'none'}\n"
                f"    → Name the new one and the other: `tunesmith compare --pairs {file} NEW OLD`"
            )
        b, a = versions
    _check_versions((a, b), lines, file)
    answers: dict[str, tuple[Mapping[str, Any], Mapping[str, Any]]] = {}
    repeated = 0
    for line in lines:
        if a not in line["answers"] or b not in line["answers"]:
            continue
        if line["id"] in answers:
            repeated += 1
            continue
        for k, both in enumerate(zip(line["answers"][a], line["answers"][b], strict=False)):
            answers[line["id"] if k == 0 else f"{line['id']}#{k + 1}"] = both
    if not answers:
        raise DataError(f"{file} has no pair of the versions {a} and {b}\n    → Let the rollout run for a while")
    return Pairs(file, a, b, answers, repeated, damaged, others)


def agreement(pairs: Pairs) -> Agreement:
    """Agreement and churn, and the examples that the two answer differently."""
    changes: dict[str, int] = {}
    examples: list[Flip] = []
    for key, (one, other) in pairs.answers.items():
        (mine, sure), (theirs, their_sure) = _said(one), _said(other)
        if mine != theirs:
            change = f"{_shown(theirs)} → {_shown(mine)}"
            changes[change] = changes.get(change, 0) + 1
            if len(examples) < MOST:
                examples.append(Flip(key, "other", None, mine, theirs, sure, their_sure))
    n, churn = len(pairs.answers), sum(changes.values())
    share = (n - churn) / n
    return Agreement(
        a=f"version {pairs.a}",
        b=f"version {pairs.b}",
        n=n,
        agreed=Estimate(share, *wilson(share, n), n, "wilson"),
        churn=churn,
        changes=dict(sorted(changes.items(), key=lambda one: -one[1])[:20]),
        examples=examples,
        warnings=warnings(pairs),
    )


def labelled(pairs: Pairs, labels: str) -> tuple[Side, Side]:
    """Both versions as they can be compared, on the examples that ``labels`` has the right answer of.

    ``labels`` is a CSV, JSON, Parquet or Arrow file with a column ``id`` and one of ``label``, ``labels`` or ``tags``.

    Raises :class:`DataError`.
    """
    right = _references(labels)
    ids = [key for key in pairs.answers if key in right]
    if not ids:
        some = ", ".join(list(pairs.answers)[:3])
        raise DataError(
            f"{labels} has the right answer of none of the pairs of {pairs.file}\n    → Their ids are such as {some}"
        )
    sides = []
    for k, version in enumerate((pairs.a, pairs.b)):
        said = [_said(pairs.answers[key][k]) for key in ids]
        told = [(answer, "tags" in pairs.answers[key][k]) for key, (answer, _) in zip(ids, said, strict=True)]
        wanted = [_wanted(answer, right[key], ordered) for key, (answer, ordered) in zip(ids, told, strict=True)]
        table = pa.table(
            {
                ID: ids,
                "reference": [_shown(one) for one in wanted],
                "prediction": [_shown(answer) for answer, _ in said],
                "correct": [_same(answer, one, ordered) for (answer, ordered), one in zip(told, wanted, strict=True)],
                "confidence": pa.array([sure for _, sure in said], pa.float64()),
            }
        )
        sides.append(Side(f"version {version}", storage.parent(pairs.file), table))
    return sides[0], sides[1]


def warnings(pairs: Pairs) -> list[str]:
    """What a reader must know of the log."""
    said = []
    if pairs.repeated:
        said.append(f"{pairs.repeated:,} requests have the id of an earlier one, and are left out.")
    if pairs.others:
        shown = ", ".join(pairs.others[:MOST_NAMED]) + (" …" if len(pairs.others) > MOST_NAMED else "")
        said.append(f"These are the pairs of the newest rollout; others are left out: {shown} (--rollout ID).")
    if pairs.damaged:
        said.append(f"{pairs.damaged:,} lines of the log are no pairs, and are left out.")
    return said


def _lines(file: str) -> tuple[list[dict[str, Any]], int]:
    places = [place for place in (file + EARLIER, file) if storage.exists(place)]
    if not places:
        raise DataError(f"there is no file {file}\n    → A service with a rollout writes it beside its log: ….pairs.jsonl")
    found, damaged = [], 0
    for text in (line for place in places for line in storage.read_text(place).splitlines()):
        try:
            line = json.loads(text)
        except json.JSONDecodeError:
            damaged += 1
            continue
        if isinstance(line, dict) and isinstance(line.get("answers"), dict) and isinstance(line.get("id"), str):
            found.append(line)
        else:
            damaged += 1
    return found, damaged


def _of_model(lines: list[dict[str, Any]], model: str | None, file: str) -> list[dict[str, Any]]:
    """The lines of a model. Raises :class:`UserError` where there is none of it, or none is named and there are several."""
    names = list(dict.fromkeys(str(line["model"]) for line in lines if "model" in line))
    if model is None and len(names) > 1:
        raise UserError(f"{file} has pairs of {len(names)} models: {', '.join(names)}\n    → Name one: --model {names[0]}")
    if model is None:
        return lines
    found = [line for line in lines if line.get("model") == model]
    if not found:
        there = f"It has those of {', '.join(names)}" if names else "Let the rollout run for a while"
        raise UserError(f"{file} has no pairs of the model {model!r}\n    → {there}")
    return found


def _of_rollout(lines: list[dict[str, Any]], rollout: str | None, file: str) -> tuple[list[dict[str, Any]], tuple[str, ...]]:
    """The lines of a rollout, and the others that there are where none is named. Raises :class:`DataError`."""
    there = list(dict.fromkeys(line.get("rollout") for line in reversed(lines)))
    names = [str(one) for one in there if one is not None]
    if rollout is not None and rollout not in names:
        hint = f"; the file has {', '.join(names[:MOST_NAMED])}" if names else ""
        raise DataError(
            f"{file} has no pair of this rollout, {rollout}\n    → Let it run for a while, as a canary or a shadow{hint}"
        )
    if not there:
        return lines, ()
    wanted = rollout if rollout is not None else there[0]
    others = [str(one) if one is not None else "one without an id" for one in there if one != wanted]
    return [line for line in lines if line.get("rollout") == wanted], tuple(others) if rollout is None else ()


def _check_versions(asked: Iterable[str], lines: list[dict[str, Any]], file: str) -> None:
    """Raises :class:`UserError` where the lines have no answers of one of the versions."""
    versions = sorted({version for line in lines for version in line["answers"]}, key=_order)
    for one in asked:
        if one not in versions:
            near = nearest(one, versions)
            hint = f"Did you mean {near}?" if near else f"It has {', '.join(versions)}"
            raise UserError(f"{file} has no answers of version {one!r}\n    → {hint}")


def _order(version: str) -> tuple[int, int, str]:
    """Numbers by their size, before words: version 10 comes after 9."""
    return (0, int(version), "") if version.isdecimal() else (1, 0, version)


def _said(answer: Mapping[str, Any]) -> tuple[Any, float | None]:
    """What an answer says, and how sure it is where it says so."""
    key = next((key for key in SAID if key in answer), None)
    sure = answer.get("score")
    return (answer[key] if key else dict(answer)), float(sure) if isinstance(sure, int | float) else None


def _shown(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _wanted(answer: Any, reference: Any, ordered: bool) -> list[str]:
    """The right answer in the shape of the one that was given, read as training reads such a column, whatever it is called."""
    return (tag_names(reference) if ordered and isinstance(answer, list) else label_names(reference)) or []


def _same(answer: Any, wanted: list[str], ordered: bool) -> bool:
    """Whether the answer is right: a label by its name, tags one by one, several labels in any order."""
    if not isinstance(answer, list):
        return [label_name(answer)] == wanted
    given = [str(one) for one in answer]
    return given == wanted if ordered else set(given) == set(wanted)


def _references(file: str) -> dict[str, Any]:
    """The right answer by the id of the example, as the file has it."""
    ending = file.rpartition(".")[2].lower()
    reader = READERS.get({"jsonl": "json", "tsv": "csv", "feather": "arrow"}.get(ending, ending))
    if reader is None or not storage.exists(file):
        what = f"there is no file {file}" if reader else f"{file}: the ending .{ending} is not known"
        raise DataError(f"--labels: {what}\n    → Give a CSV, JSON, JSON Lines, Parquet or Arrow file with id and label")
    found: dict[str, Any] = {}
    for row in _rows(reader(file)):
        key = next((key for key in SAID if key in row), None)
        if ID not in row or key is None:
            raise DataError(
                f"--labels {file}: it has the columns {', '.join(row)}\n    → It needs id, and label, labels or tags"
            )
        if label_names(row[key]) is not None:
            found[str(row[ID])] = row[key]
    return found


def _rows(chunks: Iterator[Any]) -> Iterator[dict[str, Any]]:
    for chunk in chunks:
        yield from chunk.table.to_pylist()
