"""``data.unlabelled``: rows without a label, which the model labels itself where it is sure."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from tunesmith.recipe.base import Section


class UnlabelledSection(Section):
    """Self-training: a teacher is trained by this recipe on the labelled rows alone and labels these rows; a student is trained
    from the same base on both (pseudo-labels: Lee 2013; teacher and student: Xie et al. 2020, arXiv:1911.04252). The student is
    the run's model only if it is better on the validation split, by ``training.metric_for_best_model``; where one of the two
    alone is within ``evaluation.retention.max_drop``, it is that one.
    """

    data: str | Annotated[list[str], Field(min_length=1)] | None = None
    """The rows, as in ``data.train``, with the same columns but the label. A label column that is there all the same is never
    trained on: it only says how right the pseudo-labels were. Rows that stand in the labelled data are left out."""

    threshold: float = Field(default=0.9, gt=0, le=1)
    """How sure the teacher must be of a row: the probability of its likeliest class."""

    calibrate: bool = True
    """Ask the teacher's probabilities after temperature scaling on the validation split: fine-tuned models are surer than they
    are right."""

    balance: float | None = Field(default=1.5, ge=1)
    """At most so many times as many rows of a class as its share of the labelled training rows would give it of all rows above
    the threshold; the surest stay. None lets a class take all."""

    rounds: int = Field(default=1, ge=1, le=10)
    """How often the better model of the two labels the rows anew and another student is trained, from the base."""
