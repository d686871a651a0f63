"""The verbs of a rollout: a running service is joined, a version comes in beside another one, and one of the two goes.

Each version is an application of Serve's. The door alone knows which of them answers, and is told so while it answers: nothing
else is started anew, and what has been accepted is answered by whoever has it.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import re
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tunesmith.errors import ModelError, ServiceError, TunesmithError, UserError, nearest
from tunesmith.recipe.serving import ServingSection
from tunesmith.tasks.base import TensorSpec
from tunesmith_serving import apps
from tunesmith_serving.describe import Description
from tunesmith_serving.plan import APPLICATION, Planned, application, check_room, entry, planned
from tunesmith_serving.record import Record, called, rewrite, state_folder
from tunesmith_serving.rollout import Kind, Rollout, Tally

ASKED_WITHIN = 60.0
"""Seconds in which the door says something (milliseconds, where nothing is wrong)."""
_MODEL = re.compile(r"^(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)(?:@(?P<version>[A-Za-z0-9._-]+))?(?:=(?P<run>.+))?$")


@dataclass(frozen=True)
class Situation:
    """What a service has, as its door says it."""

    plan: dict[str, Any]
    descriptions: Mapping[str, Description]
    """By the names of the versions' applications."""
    tallies: Mapping[str, Mapping[str, Any]]

    def versions(self, name: str) -> list[dict[str, Any]]:
        """The entries of a model, the one first that is meant where none is named. Raises :class:`UserError`."""
        found = [one for one in self.plan["models"] if one["name"] == name]
        if not found:
            raise _unknown(name, [one["name"] for one in self.plan["models"]])
        return found

    def rollout(self, name: str) -> Rollout | None:
        """The model's, or None."""
        there = self.plan["rollouts"].get(name)
        return Rollout(**there) if there else None

    def with_rollout(self, name: str, rollout: Rollout | None, models: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """The plan with these entries, and the model's rollout."""
        rollouts = {key: one for key, one in self.plan["rollouts"].items() if key != name}
        if rollout is not None:
            rollouts[name] = rollout.plain()
        return {**self.plan, "models": list(models), "rollouts": rollouts}


def update(
    record: Record,
    what: str,
    *,
    kind: Kind = "all",
    percent: float = 100.0,
    settings: Sequence[str] = (),
    output_dir: str = "runs",
    force: bool = False,
    told: Callable[[str], None] = lambda words: None,
    judged: str | None = None,
) -> str:
    """Bring a version in beside the one that answers, or change the share of one that comes in already; what has been done.

    ``judged`` is the rollout whose candidate a gate has judged: another one is left as it is.

    Raises:
        UserError: what is asked for is not there, is there already, differs from what it replaces, or has no room.
        ModelError: it cannot be loaded; the service is as it was.
    """
    parts = _MODEL.match(what)
    if parts is None:
        raise UserError(f"{what!r} names no model.\n    → Write NAME=RUN or NAME@VERSION=RUN.")
    name, version = parts["name"], parts["version"]
    _check_name(record, name)
    new = planned([f"{name}={parts['run']}", *settings], output_dir)[0] if parts["run"] else None
    with _joined(record) as free, _situation() as now:
        versions, rollout = now.versions(name), now.rollout(name)
        _check_judged(name, rollout, judged)
        if rollout is not None and version in (None, rollout.candidate):
            there = next(one for one in versions if one["version"] == rollout.candidate)
            if new is None or new.folder == there["folder"]:
                changed = replace(rollout, kind=kind, percent=percent)
                _change(record, now.with_rollout(name, changed, now.plan["models"]))
                return f"{name}: version {rollout.candidate} now gets {changed.words()}"
        if rollout is not None:
            raise UserError(
                f"version {rollout.candidate} of {name} comes in already ({rollout.words()}).\n"
                f"    → `tunesmith serve promote {name}` or `rollback {name}` first."
            )
        if new is None:
            raise UserError(f"there is no rollout of {name}.\n    → Name the run: `tunesmith serve update {name}=RUN`.")
        new = replace(new, version=version or _next([one["version"] for one in versions]))
        if any(one["version"] == new.version for one in versions):
            raise UserError(
                f"{name} has a version {new.version} already.\n    → Give another one, or leave it away: {name}=RUN"
            )
        _check_same(new, now.descriptions[application(name, versions[0]["version"])], force)
        check_room([new], *free, free=True)
        told(f"starting version {new.version} of {name}; version {versions[0]['version']} goes on answering")
        _bring_in(record, now, new, versions[0], Rollout(new.version, kind, percent, secrets.token_hex(8)))
    stays = f"version {versions[0]['version']} stays warm"
    does = {"all": "answers all requests", "canary": f"answers {percent:g} % of the callers", "shadow": ""}[kind]
    does = does or f"hears {percent:g} % of the requests, after their callers have their answers"
    return f"{name}: version {new.version} {does}; {stays} until `tunesmith serve promote {name}` or `rollback {name}`"


@dataclass(frozen=True)
class Standing:
    """A rollout as it stands: what a gate judges before a promotion."""

    stable: str
    candidate: str
    stable_run: str
    candidate_run: str
    rollout: str
    """Its id."""


def answering(record: Record, name: str) -> str:
    """The run of the version that answers where none is named. Raises :class:`UserError`."""
    _check_name(record, name)
    with _joined(record), _situation() as now:
        return _run_of(now.versions(name)[0])


def standing(record: Record, name: str) -> Standing:
    """The two versions of a rollout, and their runs. Raises :class:`UserError` where there is none."""
    _check_name(record, name)
    with _joined(record), _situation() as now:
        versions, rollout = now.versions(name), now.rollout(name)
    if rollout is None:
        raise _no_rollout(name)
    candidate = next(one for one in versions if one["version"] == rollout.candidate)
    return Standing(versions[0]["version"], rollout.candidate, _run_of(versions[0]), _run_of(candidate), rollout.id)


def promote(record: Record, name: str, judged: str | None = None) -> str:
    """The new version answers where none is named; the old one goes once it has answered. Gives what was done.

    ``judged`` is the rollout whose candidate a gate has judged: another one is not promoted.
    """
    return _settle(record, name, keep_candidate=True, judged=judged)


def rollback(record: Record, name: str) -> str:
    """The old version answers everyone again, at once; the new one goes once it has answered. Gives what was done."""
    return _settle(record, name, keep_candidate=False)


def rollouts(record: Record) -> list[str]:
    """A line for each rollout: what it is, and what has come of it so far."""
    with _joined(record), _situation() as now:
        return [
            _told(name, Rollout(**there), now.versions(name)[0]["version"], now.tallies[name])
            for name, there in now.plan["rollouts"].items()
        ]


def differences(new: Description, old: Description) -> list[str]:
    """In what a caller would notice that one model is in the other's place."""
    told = []
    for what in ("task", "labels", "columns", "required", "inputs", "outputs"):
        mine, theirs = getattr(new, what), getattr(old, what)
        if mine != theirs:
            told.append(f"{what} {_short(mine)}, not {_short(theirs)}")
    return told


def _bring_in(record: Record, now: Situation, new: Planned, stable: Mapping[str, Any], rollout: Rollout) -> None:
    """Start the version's application, and only once it is warm tell the door; where that fails all is as it was."""
    from ray import serve

    from tunesmith_serving import deployments

    made = entry(new, _threads(new.settings, stable))
    where = application(new.name, new.version)
    try:
        apps.start({where: deployments.model(made)})
    except ModelError as error:
        raise ModelError(f"version {new.version} of {new.name} did not start: {_reason(error)}; nothing has changed") from error
    try:
        _change(record, now.with_rollout(new.name, rollout, [*now.plan["models"], made]))
    except BaseException:
        with apps.quiet():
            serve.delete(where)
        raise


def _threads(settings: ServingSection, stable: Mapping[str, Any]) -> int | None:
    """CPU threads of a pass: what the copies of the version there have in all, for as many as there may be of the new one."""
    if stable["threads"] is None:
        return None
    return max(1, int(stable["threads"]) * ServingSection(**stable["settings"]).most_replicas // settings.most_replicas)


def _settle(record: Record, name: str, *, keep_candidate: bool, judged: str | None = None) -> str:
    """End a rollout: one of the two versions stays."""
    _check_name(record, name)
    with _joined(record), _situation() as now:
        versions, rollout = now.versions(name), now.rollout(name)
        if rollout is None:
            raise _no_rollout(name)
        _check_judged(name, rollout, judged)
        from ray import serve

        candidate = next(one for one in versions if one["version"] == rollout.candidate)
        stays, goes = (candidate, versions[0]) if keep_candidate else (versions[0], candidate)
        rest = [one for one in now.plan["models"] if one not in (stays, goes)]
        place = now.plan["models"].index(versions[0])
        _change(record, now.with_rollout(name, None, [*rest[:place], stays, *rest[place:]]))
        within = 2 * ServingSection(**goes["settings"]).timeout_s + 5  # a body has timeout_s to come in, its answer as long
        _ask("settled", name, goes["version"], within, within=within + ASKED_WITHIN)
        serve.delete(application(name, goes["version"]))
    return f"{name}: version {stays['version']} answers; version {goes['version']} is gone"


def _change(record: Record, plan: dict[str, Any]) -> None:
    """Tell the door, then write it down."""
    _ask("change", plan)
    _write_down(record, plan)


def _write_down(record: Record, plan: Mapping[str, Any]) -> None:
    """The record with the plan's models and rollouts, and without the gates of versions that are gone."""
    models = tuple(called(one["name"], one["version"], one["settings"]["backend"]) for one in plan["models"])
    there = {f"{one['name']}@{one['version']}" for one in plan["models"]}
    drain = max((one["settings"]["drain_s"] for one in plan["models"]), default=0.0)

    def changed(now: Record) -> Record:
        gates = {name: words for name, words in now.gates.items() if name in there}
        drain_s = max(now.drain_s, drain)  # the service's own, as it started, holds as well
        return replace(now, models=models, rollouts=tuple(plan["rollouts"]), gates=gates, drain_s=drain_s)

    rewrite(record, changed)


def _ask(method: str, *arguments: Any, within: float = ASKED_WITHIN) -> Any:
    """What the door says. Raises :class:`ServiceError`."""
    from ray import serve
    from ray.exceptions import RayError
    from ray.serve.exceptions import RayServeException

    async def once() -> Any:
        async with asyncio.timeout(within):
            return await getattr(serve.get_app_handle(APPLICATION), method).remote(*arguments)

    try:
        return asyncio.run(once())
    except (RayServeException, RayError) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ServiceError(f"the service does not do as it is told: {lines[-1]}") from error
    except TimeoutError as error:
        raise TunesmithError(f"the service said nothing for {within:g} s; `tunesmith serve status` tells how it is") from error


@contextlib.contextmanager
def _situation() -> Iterator[Situation]:
    yield Situation(**_ask("told"))


@contextlib.contextmanager
def _joined(record: Record) -> Iterator[tuple[float, float]]:
    """Join the service's Ray, one command at a time; gives the CPUs and GPUs that are free there."""
    from tunesmith.cluster.connect import connect

    place = record.on or record.ray
    if not place:
        raise UserError(
            f"{record.url} was started by an older Tunesmith.\n    → `tunesmith serve stop {record.port}`, and anew."
        )
    with record.file.with_suffix(".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UserError(f"another command changes {record.url} at the moment.\n    → Wait for its end.") from error
        with connect(place, log_file=str(state_folder() / f"{record.port}.ray.log")) as cluster:
            import ray.serve  # noqa: F401  (which sets its logger up)

            logging.getLogger("ray.serve").setLevel(logging.WARNING)
            yield apps.free(cluster.nodes())


def _run_of(entry: Mapping[str, Any]) -> str:
    return str(entry.get("run") or os.path.dirname(entry["folder"]))


def _no_rollout(name: str) -> UserError:
    return UserError(f"there is no rollout of {name}.\n    → `tunesmith serve update {name}=RUN` begins one.")


def _check_judged(name: str, rollout: Rollout | None, judged: str | None) -> None:
    """Raises :class:`UserError` where a gate has judged the candidate of another rollout than the one there is."""
    if judged is not None and (rollout is None or rollout.id != judged):
        what = "has ended" if rollout is None else "is another one"
        raise UserError(f"the rollout of {name} {what} since the gate was judged.\n    → Look at `tunesmith serve status`.")


def _check_name(record: Record, name: str) -> None:
    """Before anything is joined. Raises :class:`UserError`."""
    known = list(dict.fromkeys(one.partition("@")[0] for one in record.models))
    if name not in known:
        raise _unknown(name, known)


def _unknown(name: str, known: Sequence[str]) -> UserError:
    near = nearest(name, known)
    hint = f"Did you mean {near}?" if near else f"It serves {', '.join(dict.fromkeys(known))}."
    return UserError(f"the service has no model {name!r}.\n    → {hint}")


def _check_same(new: Planned, old: Description, force: bool) -> None:
    """Raises :class:`UserError` where callers would notice more than other answers, without ``force``."""
    from tunesmith.runs import Artefact
    from tunesmith.tasks import load_task
    from tunesmith_serving.describe import describe

    artefact = Artefact.read(new.folder)
    told = differences(describe(load_task(artefact.task), artefact.state, new.name, new.version), old)
    if told and not force:
        raise UserError(
            f"{new.run} is not like version {old.version} of {new.name}: it has {'; '.join(told)}.\n"
            f"    → Serve it under another name, or write --force where all its callers know."
        )


def _next(versions: Sequence[str]) -> str:
    """The next free number.

    >>> _next(["1", "blue"]), _next(["blue"]), _next(["2", "10"])
    ('2', '1', '11')
    """
    return str(max((int(one) for one in versions if one.isdecimal()), default=0) + 1)


def _told(name: str, rollout: Rollout, stable: str, tally: Mapping[str, Any]) -> str:
    """A rollout in a line."""
    counts = Tally(**tally)
    requests = ", ".join(f"{counts.answered.get(one, 0)} by {one}" for one in (stable, rollout.candidate))
    parts = [f"{name}: version {rollout.candidate} beside {stable}, {rollout.words()}", f"requests: {requests}"]
    if rollout.kind != "all" or counts.pairs:
        share = f", {100 * counts.agreed / counts.pairs:.1f} % agree" if counts.pairs else ""
        parts.append(f"pairs: {counts.pairs}{share}")
    if counts.dropped or counts.failed:
        parts.append(f"not mirrored: {counts.dropped} dropped, {counts.failed} failed")
    return "; ".join(parts)


def _reason(error: ModelError) -> str:
    return str(error).removeprefix("the service did not start: ")


def _short(value: Any) -> str:
    """A value for a message, not too long."""
    if isinstance(value, Mapping):
        value = [f"{key}: {one}" for key, one in value.items()]
    elif isinstance(value, tuple):
        value = [f"{one.name} {one.datatype}{list(one.shape)}" if isinstance(one, TensorSpec) else one for one in value]
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= 120 else f"{text[:117]}…"
