"""A run's models on the workers of a Ray cluster, which judge it together: the same records as one process gives.

The caller prepares the data and puts the records in order; the forward passes are the workers'. A worker that is lost (its node
died) costs its part of the work, which another one does again.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from tunesmith import storage
from tunesmith.cluster.nodes import alive_nodes
from tunesmith.cluster.preflight import check_resources, detect_gpus, preflight
from tunesmith.errors import ClusterError, DataError, TunesmithError
from tunesmith.evaluation.predictions import Progress, Records, block_indices

if TYPE_CHECKING:
    from ray.exceptions import RayTaskError

    from tunesmith.data.prepared import Split
    from tunesmith.evaluation.judges import Here, Scored, Which
    from tunesmith.runs import Run
    from tunesmith.tasks.base import Preprocessing, Record, Task

WORKERS_OPTION = "--workers "
"""What messages call the number of workers."""

START_TIMEOUT = 300.0
"""Seconds in which a worker must have loaded the model; there is room for it, so only a stuck node takes longer."""

AHEAD = 2
"""Parts handed to a worker before it has answered, so that it never waits for the next."""

PARTS = 4
"""Parts of a block for each worker: the last ones level out who was slower."""

TRIES = 3
"""A part that has cost so many workers their lives is not tried again."""


def demand(use_gpu: bool | str, gpus: int) -> dict[str, float]:
    """What a worker asks of the cluster: a GPU where the cluster has any, unless the recipe trains without.

    >>> demand("auto", gpus=2), demand("auto", gpus=0), demand(False, gpus=2)
    ({'CPU': 1.0, 'GPU': 1.0}, {'CPU': 1.0}, {'CPU': 1.0})
    """
    return {"CPU": 1.0, **({"GPU": 1.0} if gpus and use_gpu is not False else {})}


@contextlib.contextmanager
def judges_on_cluster(run: Run, workers: int, told: Callable[[str], None]) -> Iterator[Spread]:
    """Workers on the connected cluster that judge the run; they end with the context. ``told`` hears what is begun.

    Raises:
        ClusterError: there is no room for them, or a node does not see the run's folder.
    """
    resources = demand(run.recipe.training.use_gpu, detect_gpus())
    elsewhere = "copy the run to storage that all nodes see: s3://BUCKET/… (gs://, hdfs://), or a folder that all of them mount"
    preflight(workers, resources, storage=run.path, asked_by=WORKERS_OPTION, elsewhere=elsewhere)
    told(f"Starting {workers} worker{'s' * (workers > 1)}" + (" with a GPU each" if "GPU" in resources else ""))
    with Spread(run, workers, resources) as spread:
        yield spread


@dataclass(frozen=True)
class Ask:
    """What a worker is to do: one of its methods, and the arguments."""

    method: str
    arguments: tuple[Any, ...]


class Worker:
    """The actor's class: one of the workers, with the run's models. What it is asked twice it does twice."""

    def __init__(self, run: str) -> None:
        self._run = run
        self._here: Here | None = None
        self._splits: dict[tuple[str, str], Split] = {}

    def start(self) -> tuple[str, str]:
        """Load the model; returns the node's id and the kind of device."""
        import ray

        from tunesmith.evaluation.judges import Here
        from tunesmith.runs import Run

        self._here = Here(Run(self._run))
        return ray.get_runtime_context().get_node_id(), self._here.device

    def share(self, workers_here: int) -> None:
        """Take this worker's share of the node's cores."""
        from tunesmith.training.acceleration import use_cores

        use_cores(workers_here, None)

    def has(self, which: Which) -> bool:
        """Whether there is such a model."""
        return self._models.has(which)

    def part(self, which: Which, split: tuple[str, str], block: tuple[int, int], part: int, of: int) -> Scored:
        """A part of a block: places in it, and their records."""
        return self._models.part(which, self._open(split), np.arange(*block), part, of)

    def representation(self, which: Which, split: tuple[str, str], indices: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """Hidden states."""
        return self._models.representation(which, self._open(split), indices)

    @property
    def _models(self) -> Here:
        assert self._here is not None, "started first"
        return self._here

    def _open(self, split: tuple[str, str]) -> Split:
        """A split by where its prepared data is and its name; opened once."""
        if split not in self._splits:
            from tunesmith.data.prepared import PreparedData

            path, name = split
            try:
                self._splits[split] = PreparedData.open(path).splits[name]
            except DataError as error:
                raise ClusterError(
                    f"a node of the cluster does not see the prepared data in {path}\n"
                    f"    → set data.cache_dir in the run's recipe.yaml to storage that all nodes see"
                ) from error
        return self._splits[split]


class Spread:
    """The workers, as one judge (:class:`tunesmith.evaluation.judges.Judges`)."""

    def __init__(self, run: Run, workers: int, resources: dict[str, float]) -> None:
        from tunesmith.runs import Artefact
        from tunesmith.tasks import load_task
        from tunesmith.tasks.base import Preprocessing as Made

        folder = run.local_model()
        artefact = Artefact.read(folder)
        self.task: Task = load_task(artefact.task)
        self.preprocessing: Preprocessing = Made(artefact.state, self.task.load_processor(None, source=str(folder)))
        self._run = storage.absolute(run.path)
        self._resources = resources
        self._wanted = workers
        self._workers: list[Any] = []
        self._device = ""

    def __enter__(self) -> Self:
        try:
            self._start(self._wanted)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        import ray

        for worker in self._workers:
            ray.kill(worker)
        self._workers.clear()

    def has(self, which: Which) -> bool:
        """Whether there is such a model, as one of the workers finds."""
        return bool(self._one(Ask("has", (which,))))

    def representation(self, which: Which, split: Split, indices: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """Hidden states, by one worker: there are few examples."""
        found: npt.NDArray[np.float64] = self._one(Ask("representation", (which, _place(split), indices)))
        return found

    def records(self, which: Which, split: Split, progress: Progress | None = None) -> Records:
        """The split predicted and scored by all workers, in order."""
        blocks = list(block_indices(len(split)))
        parts = PARTS * self._wanted
        asks = (
            Ask("part", (which, _place(split), (int(block[0]), int(block[-1]) + 1), part, parts))
            for block in blocks
            for part in range(parts)
        )
        done = 0

        def through(answer: Scored) -> None:
            nonlocal done
            done += len(answer[0])
            if progress and len(answer[0]):
                progress("predict", done, len(split))

        with contextlib.closing(self._in_order(asks, through)) as answers:
            for block in blocks:
                found: list[Record | None] = [None] * len(block)
                for places, records in itertools.islice(answers, parts):
                    for place, record in zip(places, records, strict=True):
                        found[place] = record
                assert None not in found, "every example is in one part"
                yield block, [record for record in found if record is not None]

    def _one(self, ask: Ask) -> Any:
        return next(self._in_order(iter([ask])))

    def _in_order(self, asks: Iterable[Ask], told: Callable[[Any], None] = lambda _: None) -> Generator[Any, None, None]:
        """What is answered, in the order of the asks; ``told`` hears each answer when it comes.

        About two blocks' worth of answers wait for an earlier one at the most.
        """
        import ray

        fresh = enumerate(asks)
        again: deque[tuple[int, Ask]] = deque()
        under_way: dict[Any, tuple[Any, int, Ask]] = {}
        answers: dict[int, Any] = {}
        tries: Counter[int] = Counter()
        for due in itertools.count():
            while due not in answers:
                while (worker := self._free(under_way)) is not None and (again or len(answers) < 2 * PARTS * self._wanted):
                    given = again.popleft() if again else next(fresh, None)
                    if given is None:
                        break
                    index, ask = given
                    under_way[getattr(worker, ask.method).remote(*ask.arguments)] = (worker, index, ask)
                if not under_way:
                    return
                for reference in ray.wait(list(under_way), timeout=1.0)[0]:
                    worker, index, ask = under_way.pop(reference)
                    try:
                        answers[index] = _answer(reference)
                    except ray.exceptions.RayError as error:
                        again.append((index, ask))
                        tries[index] += 1
                        self._lost(worker, tries[index], error)
                    else:
                        told(answers[index])
            yield answers.pop(due)

    def _free(self, under_way: dict[Any, tuple[Any, int, Ask]]) -> Any | None:
        """The worker with the least to do, or None where all have enough."""
        if not self._workers:
            return None
        load = dict.fromkeys(self._workers, 0)
        for worker, _, _ in under_way.values():
            if worker in load:
                load[worker] += 1
        worker, least = min(load.items(), key=lambda pair: pair[1])
        return worker if least < AHEAD else None

    def _lost(self, worker: Any, tries: int, error: Exception) -> None:
        """Go on without a worker that has died; a new one is started where it was the last."""
        if worker in self._workers:
            self._workers.remove(worker)
        if tries >= TRIES:
            reason = str(error).strip().splitlines()[0]
            raise TunesmithError(
                f"judging failed: {tries} workers died over the same examples, the last one so: {reason}\n"
                f"    → Did it run out of memory? Ray's logs on its node tell; fewer workers on a node leave more for each"
            )
        if not self._workers:
            check_resources(1, self._resources, asked_by=WORKERS_OPTION)
            self._start(1)

    def _start(self, count: int) -> None:
        """Start so many workers, wait until they have loaded the model, and share each node's cores among those on it."""
        import ray

        cpus, gpus = self._resources["CPU"], self._resources.get("GPU", 0)
        make: Any = ray.remote(Worker).options(num_cpus=cpus, num_gpus=gpus)
        started: list[Any] = [make.remote(self._run) for _ in range(count)]
        self._workers += started
        told = self._all_started([worker.start.remote() for worker in started])
        where = [node for node, _ in told]
        self._device = self._device or told[0][1]
        if other := next((node for node, device in told if device != self._device), None):
            names = {node.id: node.name for node in alive_nodes()}
            raise ClusterError(
                f"PyTorch finds a GPU on some workers and none on {names.get(other, other)}: their batches would differ\n"
                f"    → install the same build of PyTorch on every node"
            )
        for worker, node in zip(started, where, strict=True):
            worker.share.remote(where.count(node))

    def _all_started(self, references: list[Any]) -> list[tuple[str, str]]:
        """What each says once it has loaded the model; the first mistake is raised at once."""
        import ray

        begun, left = time.monotonic(), list(references)
        while left:
            if time.monotonic() - begun > START_TIMEOUT:
                raise ClusterError(
                    f"{len(left)} of {len(references)} workers did not start within {START_TIMEOUT:.0f} s\n"
                    f"    → `ray status` on the head tells what the cluster waits for"
                )
            ready, left = ray.wait(left, num_returns=len(left), timeout=1.0)
            try:
                for reference in ready:
                    _answer(reference)
            except ray.exceptions.RayError as error:
                reason = str(error).strip().splitlines()[0]
                raise TunesmithError(f"a worker died while it loaded the model: {reason}") from error
        return [_answer(reference) for reference in references]


def _answer(reference: Any) -> Any:
    """What a worker answered. An error that it raised is raised in our form; that it died, as Ray's own."""
    import ray

    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        raise failure(error) from error


def failure(error: RayTaskError) -> Exception:
    """What to tell of an error that a worker raised: our own as it is, any other (CUDA's, say) by its first line."""
    cause = error.cause
    if isinstance(cause, TunesmithError):
        return cause
    lines = [line.strip() for line in str(error if cause is None else cause).splitlines() if line.strip()]
    said = lines[-1:] if cause is None else [type(cause).__name__, *lines[:1]]
    return TunesmithError(
        f"a worker failed while it judged: {': '.join(said)}\n    → `tunesmith --debug evaluate …` shows its traceback"
    )


def _place(split: Split) -> tuple[str, str]:
    """Where a worker finds the split."""
    return split.path, split.name
