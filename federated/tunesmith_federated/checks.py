"""What is looked at before a site's reply counts; whatever fails is thrown away with its reason, and the round goes on.

A site is not trusted to be well: its disk may be full, its loss may have diverged, its version may be another, and somebody may
send what they like in its name. No check here looks at rows or labels.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

import torch

from tunesmith_federated.asked_recipe import MOST_CLASSES
from tunesmith_federated.bundle import Bundle
from tunesmith_federated.protocol import PROTOCOL, Ask, Reply
from tunesmith_federated.sums_checks import MOST_REASON, MOST_TOTAL, check_sums

if TYPE_CHECKING:
    from tunesmith.tasks.base import Task

__all__ = ["LEAST_SITES", "check_described", "check_reply", "check_sums", "norm", "too_long"]

LEAST_SITES = 3
"""Updates from which on a median says which of them is the odd one out."""
_NAMED = 3
"""Tensors that a reason names."""
_MOST = 2**53
"""Counts from which on floats no longer hold every whole number."""
_LONGEST_CLASS = 1000
"""Letters of a class's name."""
_TRAVELS = (torch.float32, torch.bfloat16, torch.float16)
"""Dtypes of an update's real numbers."""


def check_reply(
    reply: Reply,
    update: Mapping[str, torch.Tensor],
    extras: Mapping[str, torch.Tensor],
    expected: Mapping[str, torch.Tensor],
    asked: Ask,
    expected_extras: Mapping[str, torch.Tensor] | None = None,
    kinds: Collection[str] | None = None,
    own_metrics: bool = False,
) -> str | None:
    """Why a reply that did not refuse cannot count, or None.

    Args:
        reply: its words.
        update: its tensors; none but for ``train``.
        extras: what came beside them.
        expected: the parameters that travel; an update has the same names and shapes, in float32 or 16 bits.
        asked: the question that it answers.
        expected_extras: what must come beside; None allows anything that has the name and shape of a parameter, or nothing.
        kinds: those that sums of this task can have; None allows each.
        own_metrics: whether the task is one of one's own, whose metrics are what it says.
    """
    classes = len(asked.labels) if asked.labels else None
    return (
        _words(reply, asked)
        or (_work(reply) if asked.kind == "train" else None)
        or _tensors("update", update, expected if asked.kind == "train" else {})
        or _extras(extras, expected if asked.kind == "train" else {}, expected_extras if asked.kind == "train" else None)
        or (check_sums(reply.sums, classes, kinds, own_metrics) if reply.sums else None)
    )


def check_described(reply: Reply, task: Task, most: int | None = MOST_CLASSES) -> str | None:
    """Why what a site says that it holds cannot be, or None: counts, and statistics that the task can merge.

    ``most`` classes; None for sites that are simulated, whose classes are the server's own.
    """
    wrong = _described(reply.statistics, task, most)
    return wrong if wrong is None else wrong[:MOST_REASON]


def _described(told: Mapping[str, Any], task: Task, most: int | None) -> str | None:
    for part in ("train", "holdout"):
        count = told.get(part, 0)
        if not _counts(count):
            return f"it says that it has {count!r} rows ({part})"
    try:
        stats = told["stats"]
        task.merge([stats, stats])
        if isinstance(task.collect([]).get("labels"), Mapping):
            if most is not None and len(stats["labels"]) > most:
                return f"it says that it has {len(stats['labels']):,} classes, and a site has {most:,} at most"
            for name, count in stats["labels"].items():
                if most is not None and len(name) > _LONGEST_CLASS:
                    return f"the name of a class has {len(name):,} letters, and may have {_LONGEST_CLASS:,} ({name[:20]!r}…)"
                if not _counts(count):
                    return f"it says that it has {count!r} of {name!r}"
    except Exception as error:  # whatever a task makes of statistics that are none
        return f"its statistics cannot be read: {type(error).__name__}: {error}"
    return None


def norm(update: Mapping[str, torch.Tensor]) -> float:
    """The Euclidean length of all its numbers together, in float64, in which the squares of all that travels are finite."""
    return (update if isinstance(update, Bundle) else Bundle.of(update)).norm


def too_long(norms: Mapping[str, float], ratio: float | None) -> dict[str, str]:
    """The sites whose update is longer than ``ratio`` times the cohort's median, with the reason; none of two sites or fewer.

    Where the median is 0 (most sites did not move), nothing is known of what is long: then none is rejected.

    >>> too_long({"a": 1.0, "b": 1.2, "c": 100.0}, 10)
    {'c': 'its update has length 100, 83 times the median of the 3 sites (1.2); federation.max_norm_ratio is 10'}
    >>> too_long({"a": 1.0, "c": 100.0}, 10)
    {}
    """
    if ratio is None or len(norms) < LEAST_SITES:
        return {}
    ordered = sorted(norms.values())
    middle = (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2
    if not middle > 0:
        return {}
    return {
        site: f"its update has length {length:.3g}, {length / middle:.2g} times the median of the {len(norms)} sites "
        f"({middle:.3g}); federation.max_norm_ratio is {ratio:g}"
        for site, length in sorted(norms.items())
        if length > ratio * middle
    }


def _counts(value: Any) -> bool:
    """Whether it is a whole number that counts something."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _MOST


def _words(reply: Reply, asked: Ask) -> str | None:
    """Whether it is the answer to what was asked."""
    if reply.protocol != PROTOCOL:
        return (
            f"it speaks protocol {reply.protocol}, and this server {PROTOCOL}: its Tunesmith is {reply.tunesmith or 'unknown'}"
        )
    for word in ("job", "round", "kind"):
        said, wanted = getattr(reply, word), getattr(asked, word)
        if said != wanted or type(said) is not type(wanted):
            return f"it answers {word} {said!r}, and {wanted!r} was asked"
    if not (0 <= reply.seconds < _MOST and 0 <= reply.sent_bytes < _MOST):
        return f"it took {reply.seconds} s and sent {reply.sent_bytes} bytes"
    return None


def _work(reply: Reply) -> str | None:
    """Whether its counts are counts."""
    for word in ("examples", "steps"):
        count = getattr(reply, word)
        if not isinstance(count, int) or isinstance(count, bool):
            return f"its {word} are {count!r}, not a whole number"
        if not 1 <= count < _MOST:
            return f"its {word} are {count}"
    loss: Any = reply.loss  # what came as JSON may be anything
    if loss is not None and not (isinstance(loss, int | float) and abs(loss) <= MOST_TOTAL):
        return f"its training loss is {loss}"
    return None


def _tensors(what: str, found: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]) -> str | None:
    """Names, then shapes and dtypes, then numbers: the cheap things first, over all tensors."""
    missing, more = [name for name in expected if name not in found], [name for name in found if name not in expected]
    if missing:
        return f"its {what} lacks {_some(missing)} of {len(expected)}"
    if more:
        return f"its {what} has {_some(more)} that nobody asked for"
    return _contents(what, found, expected)


def _extras(
    found: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor], wanted: Mapping[str, torch.Tensor] | None
) -> str | None:
    if wanted is not None:
        return _tensors("extras", found, wanted)
    more = [name for name in found if name not in expected]
    return f"its extras have {_some(more)} that nobody asked for" if more else _contents("extras", found, expected)


def _contents(what: str, found: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]) -> str | None:
    about = found.layout.about if isinstance(found, Bundle) else found
    for name, tensor in about.items():
        wanted = expected[name]
        if tensor.shape != wanted.shape:
            return f"{name} of its {what} is {list(tensor.shape)}, and should be {list(wanted.shape)}"
        if tensor.dtype not in _TRAVELS:
            return f"{name} of its {what} is {str(tensor.dtype).removeprefix('torch.')}, which no update is"
    if math.isfinite(norm(found)):
        return None
    for name, tensor in found.items():
        strange = int((~torch.isfinite(tensor)).sum())
        if strange:
            kind = "NaN" if bool(torch.isnan(tensor).any()) else "infinite"
            return f"{name} of its {what} has {strange:,} of {tensor.numel():,} numbers that are {kind} or not finite"
    return None


def _some(names: list[str]) -> str:
    """How many, and the first of them."""
    first = ", ".join(sorted(names)[:_NAMED])
    return f"{len(names)} tensor{'s' if len(names) != 1 else ''} ({first}{', …' if len(names) > _NAMED else ''})"
