"""What a site's group of workers may take of it, and that it ends. The workers themselves: tests/chaos/test_site_workers.py."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from support.sites import RECIPE
from tunesmith.errors import TrainingFailed
from tunesmith_federated.deployment.group import Group
from tunesmith_federated.deployment.ledger import Ledger
from tunesmith_federated.deployment.site_config import SiteConfig
from tunesmith_federated.holdings import Held
from tunesmith_federated.protocol import Ask
from tunesmith_federated.work import Done, Job, Order

pytestmark = pytest.mark.unit

ORDER = Order(Ask("train", "job-1", 1, 10, RECIPE, ""), {}, {}, {})
HELD = Held([], None, {}, "/prepared")  # type: ignore[arg-type]  # the ranks open the rows; nobody here looks at them


class Workers:
    """Stand in for a standing group's."""

    def __init__(self, lost_after: float | None = None) -> None:
        self.usable, self.within, self._lost_after = True, 0.0, lost_after

    def call(self, request: Any, within: float) -> Done:
        self.within = within
        if self._lost_after is not None:
            time.sleep(self._lost_after)
            raise TrainingFailed("a worker was killed")
        return Done({})

    def close(self) -> None:
        raise TrainingFailed("Ray no longer answers")


def group_of(config: SiteConfig, workers: Any) -> tuple[Group, list[str]]:
    """A group whose workers are there, and what has ended of what they came with."""
    group, ended = Group(config), list[str]()
    group._standing = workers
    group._ending.callback(ended.append, "Ray")
    return group, ended


def test_a_request_has_what_its_job_has_left(site_config: Callable[..., SiteConfig]) -> None:
    config = site_config(limits="{seconds: 100}", resources="{num_workers: 2, cpus: 2}")
    Ledger(config.state_dir).charge("job-1", 90.0)
    workers = Workers()
    group, _ = group_of(config, workers)
    group.perform(Job(RECIPE), HELD, ORDER)
    assert 5 < workers.within <= 10


def test_ray_ends_also_where_its_workers_cannot_be_told(site_config: Callable[..., SiteConfig]) -> None:
    group, ended = group_of(site_config(resources="{num_workers: 2, cpus: 2}"), Workers())
    with pytest.raises(TrainingFailed, match="no longer answers"):
        group.__exit__()
    assert ended == ["Ray"]
    assert group._standing is None


def test_no_new_workers_are_started_once_the_time_is_up(site_config: Callable[..., SiteConfig]) -> None:
    config = site_config(limits="{seconds: 100}", resources="{num_workers: 2, cpus: 2}")
    Ledger(config.state_dir).charge("job-1", 99.99)
    workers = Workers(lost_after=0.02)
    workers.close = lambda: None  # type: ignore[method-assign]
    group, _ = group_of(config, workers)
    with pytest.raises(TrainingFailed, match=r"2 workers failed, in try 1 of 2: a worker was killed"):
        group.perform(Job(RECIPE), HELD, ORDER)
