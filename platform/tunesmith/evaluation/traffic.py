"""The paired log of a rollout as measures of a gate: how far the new version agrees with the old one on real requests.

======================  ===========================================================================================
measure                 what
======================  ===========================================================================================
pairs/n                 examples that both versions answered
pairs/agreement         the share to which both give the same answer
pairs/accuracy          with labels: the share that the new version answers right, paired with the old one's by margins
pairs/labelled          with labels: the examples that have one
======================  ===========================================================================================
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from tunesmith.evaluation import paired_log
from tunesmith.evaluation.against import Against, Found
from tunesmith.evaluation.paired_log import Pairs
from tunesmith.evaluation.results import Evaluation, SuiteResult
from tunesmith.evaluation.sides import SAMPLES, SEED
from tunesmith.evaluation.statistics import Estimate, difference

NAME = "pairs"
"""Under which an evaluation has them."""
ACCURACY = f"{NAME}/accuracy"


@dataclass
class AgainstTraffic:
    """What margins are against: on real traffic the version that answers now, else the baseline."""

    name: str
    rest: Against | None
    accuracy: Found | None
    """The old version's, and how much more the new one has, paired; None where nobody says what is right."""

    def measure(self, name: str) -> Found | str:
        """The baseline's measure and the difference, or why there is none."""
        if name == ACCURACY and self.accuracy is not None:
            return self.accuracy
        if name.startswith(f"{NAME}/"):
            return "the two versions share it"
        return self.rest.measure(name) if self.rest is not None else "there is no baseline but the pairs"


def with_traffic(
    found: Evaluation, pairs: Pairs, labels: str | None = None, rest: Against | None = None
) -> tuple[Evaluation, AgainstTraffic]:
    """The evaluation with the measures of the pairs, and what margins are against; ``rest`` is the baseline of all else.

    Raises :class:`DataError` where ``labels`` fits none of the pairs.
    """
    told = paired_log.agreement(pairs)
    counted = Estimate(told.n, told.n, told.n, told.n, "count")
    measures = {"n": counted, "agreement": told.agreed}
    accuracy = None
    if labels is not None:
        new, old = paired_log.labelled(pairs, labels)
        both = new.judged(new.records, SAMPLES, SEED), old.judged(old.records, SAMPLES, SEED)
        n = len(new.records)
        measures |= {
            "accuracy": both[0].estimate("accuracy", found.confidence),
            "labelled": Estimate(n, n, n, n, "count"),
        }
        accuracy = both[1].estimate("accuracy", found.confidence), difference(*both, "accuracy", found.confidence)
    summary = f"{told.n:,} examples answered by {told.a} and {told.b}, {told.churn:,} of them differently."
    suite = SuiteResult("Real traffic", summary, told.n, measures, notes=told.warnings)
    against = AgainstTraffic(rest.name if rest is not None else told.b, rest, accuracy)
    return replace(found, suites={**found.suites, NAME: suite}), against
