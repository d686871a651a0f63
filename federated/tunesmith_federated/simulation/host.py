"""The process that answers for simulated sites: it keeps the base model and the prepared data, and trains one at a time."""

from __future__ import annotations

import gc
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith_federated.holdings import Part

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tunesmith_federated.protocol import Tensors
    from tunesmith_federated.simulation.parts import Rows
    from tunesmith_federated.site import Site
    from tunesmith_federated.work import Job


class Host:
    """A Ray actor's class. ``threads``: of PyTorch."""

    def __init__(
        self, prepared: str, train: Mapping[str, Rows], holdout: Mapping[str, Rows], folder: str, threads: int
    ) -> None:
        import torch

        from tunesmith_federated import client_app

        torch.set_num_threads(threads)
        self._prepared, self._train, self._holdout, self._folder = prepared, train, holdout, Path(folder)
        self._sites: dict[str, Site] = {}
        self._jobs: dict[str, Job] = {}
        self._shared: tuple[str, Mapping[str, Any]] = ("", {})
        self._tensors: dict[int, Tensors] = {}
        client_app.find = lambda context: self._site(str(context.node_config["site"]))
        client_app.read = self._read
        self._app = client_app.app
        # What was imported so far never becomes garbage; without this every collection walks all of torch.
        gc.collect()
        gc.freeze()

    def answer(self, messages: Sequence[Any], sites: Sequence[str], shared: Sequence[Any]) -> tuple[list[Any], float]:
        """The sites' replies, in their order, and the seconds that they took.

        ``shared``: a reference to the records that all sites are sent, fetched once for each.
        """
        import ray

        begun = time.perf_counter()
        if self._shared[0] != shared[0].hex():
            self._shared, self._tensors = (shared[0].hex(), ray.get(shared[0])), {}
        replies = [self._answer(message, site) for message, site in zip(messages, sites, strict=True)]
        return replies, time.perf_counter() - begun

    def _answer(self, message: Any, site: str) -> Any:
        """One site's reply; where its app fails, the error."""
        from tunesmith_federated.flower import LOST, Context, Error, Message, RecordDict

        for name, record in self._shared[1].items():
            message.content[name] = record
        config: dict[str, Any] = {"site": site}
        context = Context(run_id=0, node_id=message.metadata.dst_node_id, node_config=config, state=RecordDict(), run_config={})
        try:
            return self._app(message, context)
        except Exception as error:  # of whatever the site's training raises; the other sites go on
            return Message(Error(LOST, f"{type(error).__name__}: {error}"), reply_to=message)

    def _read(self, record: Any) -> Tensors:
        """The tensors of a record, kept as long as sites are asked with it."""
        from tunesmith_federated.codec import decode

        if not any(record is one for one in self._shared[1].values()):
            return decode(record)
        if id(record) not in self._tensors:
            self._tensors[id(record)] = decode(record)
        return self._tensors[id(record)]

    def _site(self, name: str) -> Site:
        from tunesmith_federated.site import Site

        if name not in self._sites:
            part = Part(self._prepared, self._train[name], self._holdout[name])
            self._sites[name] = Site(name, part, self._folder / name, self._jobs)
        return self._sites[name]
