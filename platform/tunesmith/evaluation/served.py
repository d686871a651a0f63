"""The verdict on a served model, whoever serves it: the metrics and files of a run, and whether it answers as its run does."""

from __future__ import annotations

import dataclasses
import functools
import re
import time
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from tunesmith import storage
from tunesmith.data.prepared import Split
from tunesmith.errors import UserError
from tunesmith.evaluation import asked, baselines, chat_target, parity, v2_target
from tunesmith.evaluation.evaluate import Data, judged_split, own_data, said, split_warnings, trained_on
from tunesmith.evaluation.foreseen import foreseen
from tunesmith.evaluation.journal import Journal
from tunesmith.evaluation.judging import EVALUATIONS, PREDICTIONS, VERDICT, Case, Judged, Scorer, judge
from tunesmith.evaluation.load.connection import Endpoint
from tunesmith.evaluation.openai_url import is_openai
from tunesmith.evaluation.predictions import Progress, in_blocks, read_predictions
from tunesmith.evaluation.remembered import Remembered
from tunesmith.evaluation.results import Baseline, Evaluation, SuiteResult
from tunesmith.evaluation.retention import OldSet, judge_served, sets_of_served
from tunesmith.evaluation.service import Asking
from tunesmith.evaluation.suites.run import chosen, failures
from tunesmith.evaluation.target_file import read_target
from tunesmith.evaluation.targets import ServedTarget, Target
from tunesmith.evaluation.unencoded import raw_split
from tunesmith.recipe.evaluation import EvaluationSection
from tunesmith.runs import Artefact, Run
from tunesmith.tasks import load_task
from tunesmith.tasks.base import State, Task

if TYPE_CHECKING:
    import pyarrow as pa

    from tunesmith.evaluation.judges import Here

OF_SCORES = frozenset({"loss", "log_loss", "brier", "ece", "roc_auc", "pr_auc", "reliability"})
"""Metrics and charts that need probabilities."""
UNMATCHED_SHOWN = 3
"""Answers without a label that the warning shows."""
REPORT = "report.html"
"""What a finished evaluation has beside its verdict, for people."""
MADE_OF_IT = (
    *("gate/gate.json", "gate/junit.xml", "gate/gate.md", "gate/gate.html"),
    *("comparisons/*/comparison.json", "comparisons/*/comparison.html"),
)
"""What ``gate`` and ``compare`` write beside an evaluation."""


@dataclass(frozen=True)
class Wanted:
    """What a served model is judged on, and how."""

    url: str
    key: str | None = None
    like: Run | None = None
    """The run that it should answer like: whose recipe, labels and test split are used."""
    data: Data = None
    split: str | None = None
    task: str | None = None
    target_file: str | None = None
    out: str | None = None
    """The folder to write; None is a new one, or the one of the same command that was killed."""
    overwrite: bool = False
    """Ask about everything again, and replace what is in ``out``; what this began and was killed at goes on."""
    settings: EvaluationSection | None = None
    """How it is judged, and which suites are run; as the run's recipe says, or by default, where not given."""
    asking: Asking = field(default_factory=Asking)
    sample: int = parity.SAMPLE
    """Samples of the parity check."""
    load_seconds: float | None = None
    """How long it is loaded for the suite ``latency``; None where the evaluation's own requests must do."""
    slo_ms: float | None = None
    """The limit of that load, in milliseconds."""


Before = Callable[[Evaluation], None]
"""Looks at what the evaluation will have measures of (:mod:`tunesmith.evaluation.foreseen`), and refuses it."""


def evaluate_url(wanted: Wanted, progress: Progress | None = None, before: Before | None = None) -> Evaluation:
    """Judge the model at a URL, and write ``metrics.json``, ``predictions.parquet``, ``terms.json`` and ``answers.jsonl``.

    ``before`` is called before anything is asked.

    Raises:
        UserError: its task, its labels or its data are not known; the folder is of something else.
        ServiceError: it cannot be reached, or does not answer as its task does.
        DataError: the data cannot be used, or it refuses samples.
    """
    start = time.monotonic()
    here = _here(wanted)
    known = (here.task, here.preprocessing.state) if here is not None else known_of(wanted)
    with closing(open_target(wanted, *known)) as target:
        split, name = open_split(wanted, target, here, progress)
        old = _old(wanted, target.task, progress)
        if before is not None:
            before(foreseen(target, split, _settings(wanted), _untold(target), old))
        job = asked.job(target, split)
        folder = _folder(wanted, target, job)
        endpoint = Endpoint.of(target.infer_url(), wanted.key)  # what is wrong with it is told before anything is asked
        if wanted.overwrite:
            _clear(folder, job)
        folder.mkdir(parents=True, exist_ok=True)
        with Journal(folder / asked.LOG, job, "--out") as journal, Journal(folder / asked.SUITES_LOG, job, "--out") as kept:
            judges = asked.Asked(target, journal)
            case = _case(wanted, target, judges, split, name, str(folder))
            suites = chosen(case, wanted.like)
            checked = parity.check(target, split, _in_process(here, wanted.like), sample=wanted.sample)
            case.scorer.terms.write(case.folder)
            found, judged = judge(case, lambda judged: _beside(judged, here, wanted.like), progress)
            kept.version = journal.version or kept.version
            remembered = Remembered(target, kept)
            others = suites.run(judged, found.headline, remembered, wanted.like, progress)
            retained = judge_served(old, remembered, _settings(wanted), _untold(target))
            unmatched = _unmatched(judges, split)
            each = (wanted.asking.concurrency, target.batch_size)
            latency = measured(split, target, endpoint, wanted) if wanted.load_seconds else asked.latency(judges, *each)
    warnings = [*failures(others), parity.mismatch(checked), unmatched, _unscored(target), _resumed(judges.resumed, len(split))]
    found = dataclasses.replace(
        found,
        retention=retained,
        suites={"parity": checked, "latency": latency, **others},
        source=said(wanted.data),
        target=f"{target.name}, version {journal.version or target.version}",
        warnings=[*filter(None, warnings), *split_warnings(name, wanted.split, wanted.data), *found.warnings],
        seconds=round(time.monotonic() - start, 3),
    )
    storage.write_json(str(folder / VERDICT), found.to_json())
    (folder / asked.SUITES_LOG).unlink(missing_ok=True)
    return found


def _here(wanted: Wanted) -> Here | None:
    """The model of the run that the server should answer like."""
    if wanted.like is None:
        return None
    from tunesmith.evaluation.judges import Here

    return Here(wanted.like)


def measured(split: Split, target: ServedTarget, endpoint: Endpoint, wanted: Wanted) -> SuiteResult:
    """The suite ``latency`` by a closed loop of single samples, with as many clients as the evaluation had."""
    from tunesmith.evaluation.load.shoot import MOST_SAMPLES, Load, requests_of, shoot, suite

    load = Load(clients=wanted.asking.concurrency, seconds=wanted.load_seconds or 0.0, slo_ms=wanted.slo_ms)
    requests = requests_of(target, islice(in_blocks(split), MOST_SAMPLES), endpoint, load.batch_size)
    return suite(shoot(endpoint, requests, load), load)


def known_of(wanted: Wanted) -> tuple[Task | None, State | None]:
    """The task, and the run's state, as far as they are known before the server is asked."""
    if wanted.like is not None:
        artefact = Artefact.read(wanted.like.file("model"))
        return load_task(artefact.task), artefact.state
    return (load_task(wanted.task) if wanted.task else None), None


def open_target(wanted: Wanted, task: Task | None, state: State | None) -> ServedTarget:
    """The served model, not yet asked; to be closed. Raises as :func:`tunesmith.evaluation.v2_target.connect`."""
    file = read_target(wanted.target_file) if wanted.target_file else None
    connect = chat_target.connect if is_openai(wanted.url) else v2_target.connect
    return connect(wanted.url, wanted.key, task=task, state=state, file=file, asking=wanted.asking)


def samples(wanted: Wanted, target: Target) -> Split:
    """Examples to ask about, whatever their labels: of the run's test split, or of other data."""
    if wanted.data is not None or wanted.like is None:
        return open_split(wanted, target, None, None)[0]
    splits = own_data(wanted.like, target.task, None).splits
    return next(splits[name] for name in ("test", "validation", "train") if name in splits and len(splits[name]))


def open_split(wanted: Wanted, target: Target, here: Here | None, progress: Progress | None) -> tuple[Split, str]:
    """The examples, and the name of their split: of the run's own data, or other data."""
    if wanted.like is not None and here is not None:
        run = wanted.like
        own = functools.cache(lambda: own_data(run, here.task, progress))
        return judged_split(run, here, own, wanted.data, wanted.split, progress)
    if wanted.data is None:
        raise UserError("there is no data to judge by\n    → Give --data PLACE, or --like RUN for the run's own test split.")
    if wanted.split is not None and here is None:
        raise UserError("--split names a split of a run\n    → Give --like RUN too, or leave it out.")
    return raw_split(target.task, target.state, wanted.data, EVALUATIONS, progress), "test"


def _in_process(here: Here | None, run: Run | None) -> Target | None:
    """The same model as a target of its own."""
    if here is None or run is None:
        return None
    from tunesmith.evaluation import targets

    return targets.Here(here.predictor, run.name)


def _folder(wanted: Wanted, target: ServedTarget, job: dict[str, object]) -> Path:
    """Where the files go: as it was said, where the same command was killed, or a new folder."""
    if wanted.out is not None:
        if not storage.is_local(wanted.out):
            why = "Name a local folder: it is written as answers come."
            raise UserError(f"--out {wanted.out} is not on this machine\n    → {why}")
        folder = storage.local_path(wanted.out)
        if (folder / VERDICT).exists() and not wanted.overwrite:
            raise UserError(f"{wanted.out} holds a finished evaluation\n    → Name another --out, or write --overwrite.")
        return folder
    run = wanted.like
    base = storage.local_path(run.file(EVALUATIONS)) if run is not None and storage.is_local(run.path) else Path(EVALUATIONS)
    stem = "served-" + (re.sub(r"[^A-Za-z0-9._-]+", "-", target.model).strip("-.") or "model")
    begun = None if wanted.overwrite else asked.unfinished(base, stem, job, VERDICT)
    return begun or base / f"{stem}-{time.strftime('%Y%m%d-%H%M%S')}"


def _clear(folder: Path, job: dict[str, object]) -> None:
    """Take a finished evaluation, or one of something else, out of a folder; an unfinished one of the same job goes on.

    The verdict goes last: a folder that was cleared in part still counts as finished, and is cleared again.
    """
    if not (folder / VERDICT).exists() and asked.begun(folder, job):
        return
    for pattern in MADE_OF_IT:
        for file in folder.glob(pattern):
            file.unlink()
    for pattern in ("gate", "comparisons/*", "comparisons"):
        for empty in folder.glob(pattern):
            with suppress(OSError):  # somebody else's files are in it
                empty.rmdir()
    for name in (asked.LOG, asked.SUITES_LOG, PREDICTIONS, REPORT, VERDICT):
        (folder / name).unlink(missing_ok=True)


def _case(wanted: Wanted, target: Target, judges: asked.Asked, split: Split, name: str, folder: str) -> Case:
    run = wanted.like
    return Case(
        name=target.name,
        judges=judges,
        split=split,
        split_name=name,
        scorer=Scorer(target.task, target.state, _settings(wanted), _untold(target)),
        folder=folder,
        metric=run.recipe.training.metric_for_best_model if run is not None else None,
        trained_on=trained_on(run) if run is not None else None,
    )


def _settings(wanted: Wanted) -> EvaluationSection:
    own = wanted.like.recipe.evaluation if wanted.like is not None else EvaluationSection()
    return wanted.settings or own


def _untold(target: Target) -> frozenset[str]:
    """The metrics that its answers cannot tell."""
    if "scores" not in target.provides:
        return OF_SCORES
    whole = any(spec.name == "probabilities" for spec in target.task.signature(target.state).outputs)
    return frozenset() if whole else frozenset({"loss"})


def _beside(judged: Judged, here: Here | None, run: Run | None) -> dict[str, Baseline]:
    """The run's model in this process, and guessing."""
    if here is None or run is None:
        return {}
    title, split = "the same model in this process", judged.case.split
    kept = _kept_predictions(run, split)
    found = {
        baselines.IN_PROCESS: baselines.beside_table(judged, kept, title)
        if kept is not None
        else baselines.beside_records(judged, here.records("model", split), title)
    }
    if run.recipe.evaluation.baseline:
        found[baselines.MAJORITY] = baselines.majority(judged, lambda: own_data(run, here.task, None))
    return found


def _old(wanted: Wanted, task: Task, progress: Progress | None) -> dict[str, OldSet]:
    """The old data that is asked about too: with the run's own test split, as where the run itself is judged."""
    run = wanted.like if wanted.data is None and wanted.split is None else None
    return {} if run is None else sets_of_served(run, task, lambda: own_data(run, task, progress))


def _kept_predictions(run: Run, split: Split) -> pa.Table | None:
    """The run's own predictions of the same examples, where it has them."""
    if run.verdict.get("data_hash") != split.hash:
        return None
    try:
        table = read_predictions(run.file(PREDICTIONS))
    except FileNotFoundError:
        return None
    return table if table["id"].to_pylist() == split.ids.to_pylist() else None


def _unscored(target: Target) -> str | None:
    if "scores" in target.provides:
        return None
    return "The server tells no probabilities: what is made from them (log loss, calibration, ROC-AUC) is left out."


def _unmatched(judges: asked.Asked, split: Split) -> str | None:
    found = judges.unmatched()
    if not found:
        return None
    first = "; ".join(f"{said!r:.100} ({split.place(index)})" for index, said in found[:UNMATCHED_SHOWN])
    return (
        f"{len(found):,} of {len(split):,} answers name none of the labels, and count as wrong. The first: {first}. "
        "chat.prompt, chat.words and chat.parameters of the target.yaml say how it is asked and read."
    )


def _resumed(before: int, n: int) -> str | None:
    return f"{before:,} of {n:,} answers are from an earlier run of the same command that was stopped." if before else None
