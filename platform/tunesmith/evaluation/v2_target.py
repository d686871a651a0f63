"""A model behind the Open Inference Protocol v2 over REST, whoever has built its server, as a target of the test bench."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import quote, unquote

import httpx

from tunesmith.errors import DataError, ServiceError, UserError, nearest
from tunesmith.evaluation import v2_wire
from tunesmith.evaluation.openai_url import address_of
from tunesmith.evaluation.service import BODY_BYTES, GREETING_SECONDS, REFUSING, Asking, Service, message
from tunesmith.evaluation.target_file import InputTensor, OutputTensor, TargetFile, check_roles
from tunesmith.evaluation.targets import Provided, Reply
from tunesmith.evaluation.v2_answers import Reading, refused
from tunesmith.evaluation.v2_wire import Misshapen
from tunesmith.tasks import load_task
from tunesmith.tasks.base import Example, State, Task, TensorSpec


class V2Target:
    """One model of a v2 server; made by :func:`connect`."""

    def __init__(
        self,
        service: Service,
        path: str,
        version: str,
        reading: Reading,
        inputs: Mapping[str, TensorSpec],
        batch_size: int,
    ) -> None:
        """``path`` is the model's, below the service's root; ``inputs`` the tensor of each role that the server takes."""
        self.name, self.version = service.url + path, version
        self.model = unquote(path.removeprefix("/v2/models/").partition("/")[0])
        self.task: Task = reading.task
        self.state: State = reading.state
        self.provides: frozenset[Provided] = reading.provides
        self.batch_size = batch_size
        self._service, self._path, self._reading, self._inputs = service, path, reading, inputs

    def close(self) -> None:
        """End what is under way, and let go of the connections."""
        self._service.close()

    def replies(self, examples: Iterable[Example]) -> Iterator[Reply]:
        """A reply for each example, as they come in; no more is read than is under way."""
        return self._service.together(self._ask, self._batches(examples))

    def body(self, examples: Iterable[Example]) -> bytes:
        """The request for these examples, as JSON. Raises :class:`DataError` for a medium that cannot be read."""
        return self._body([self._wire(example) for example in examples])

    def infer_url(self) -> str:
        """Where requests go."""
        return f"{self._service.url}{self._path}/infer"

    def mapping(self) -> dict[str, Any]:
        """How its tensors are written and read, as plain values: answers that were read otherwise do not belong to these."""
        reading = self._reading
        return {
            "inputs": {role: [spec.name, spec.datatype] for role, spec in self._inputs.items()},
            "outputs": {name: [tensor.name, tensor.values] for name, tensor in reading.outputs.items()},
            "rename": dict(reading.rename),
            "multi_label": bool(self.state.get("multi_label")),
        }

    def _batches(self, examples: Iterable[Example]) -> Iterator[list[tuple[int, dict[str, Any]]]]:
        """Numbered examples as they go over the wire, cut into requests by their number and by their bytes."""
        batch: list[tuple[int, dict[str, Any]]] = []
        size = 0
        for index, example in enumerate(examples):
            wire = self._wire(example)
            batch.append((index, wire))
            size += sum(len(value) if isinstance(value, str) else 64 for value in wire.values())
            if len(batch) >= self.batch_size or size >= BODY_BYTES:
                yield batch
                batch, size = [], 0
        if batch:
            yield batch

    def _wire(self, example: Example) -> dict[str, Any]:
        columns = self.task.columns
        return {
            role: v2_wire.on_the_wire(example[role], columns[role].kind)
            for role in self._inputs
            if example.get(role) is not None
        }

    def _body(self, wires: list[dict[str, Any]]) -> bytes:
        inputs = [
            v2_wire.tensor(spec, [wire.get(role, "") for wire in wires])
            for role, spec in self._inputs.items()
            if any(role in wire for wire in wires)
        ]
        outputs = [{"name": tensor.name} for tensor in self._reading.outputs.values()]
        return json.dumps({"inputs": inputs, "outputs": outputs}).encode()

    def _ask(self, batch: list[tuple[int, dict[str, Any]]]) -> list[Reply]:
        """The replies of one request; one that is refused is repeated in halves, down to the example that is refused."""
        start = time.perf_counter()
        answer = self._service.send("POST", f"{self._path}/infer", self._body([wire for _, wire in batch]), told=REFUSING)
        if answer.status_code in REFUSING:
            if len(batch) == 1:
                return [Reply(batch[0][0], problem=message(answer))]
            middle = len(batch) // 2
            return [*self._ask(batch[:middle]), *self._ask(batch[middle:])]
        took = time.perf_counter() - start
        said = self._service.json(answer)
        try:
            answers = self._reading.answers(said.get("outputs"), len(batch))
        except Misshapen as error:
            named = f"sample {batch[0][0]}" if len(batch) == 1 else f"samples {batch[0][0]} to {batch[-1][0]}"
            raise refused(self.name, error, named) from error
        version = str(said.get("model_version") or "") or None
        return [Reply(index, one, seconds=took, version=version) for (index, _), one in zip(batch, answers, strict=True)]


def connect(
    url: str,
    key: str | None = None,
    *,
    task: Task | None = None,
    state: State | None = None,
    file: TargetFile | None = None,
    asking: Asking | None = None,
    transport: httpx.BaseTransport | None = None,
) -> V2Target:
    """The model at a URL: ``http://HOST:PORT/v2/models/NAME``, or ``…/predict/NAME`` of a service of ours.

    Args:
        url: where it is.
        key: the API key; None is that of the variable ``TUNESMITH_API_KEY``, if there is one.
        task: what it is asked; None where ``file`` or the service says so.
        state: of a run that it should answer like; None where its labels are in ``file``, or the service tells them.
        file: how its tensors are mapped; None where they have the task's own names.
        asking: how requests are sent.
        transport: what sends them, instead of the network.

    Raises:
        UserError: no such URL; its task or its labels are not known.
        ServiceError: it cannot be reached, refuses the key, has no such model, or has other tensors.
    """
    asking, file = asking or Asking(), file or TargetFile()
    address = address_of(url)
    if address.model is None:
        raise UserError(f"{url} names no model\n    → Write {address.root}/v2/models/NAME.")
    service = Service.of(address.root, key, asking, transport)
    path = f"/v2/models/{quote(address.model, safe='')}"
    path += f"/versions/{quote(address.version, safe='')}" if address.version else ""
    try:
        metadata = service.json(service.send("GET", path, deadline=GREETING_SECONDS))
        inputs, outputs = (_specs(metadata, side, service.url + path) for side in ("inputs", "outputs"))
        told = {} if state is not None or (file.labels and (task or file.task)) else _own_words(service, address.model)
        task = task or _task(file, told, url)
        state = state if state is not None else _state(file, told, inputs, url)
        check_roles(file, task, task.signature(state))
        reading = Reading(task, state, _outputs(task, state, file, outputs, url), file.rename)
        version = address.version or ",".join(map(str, metadata.get("versions") or ())) or "1"
        return V2Target(service, path, version, reading, _inputs(task, file, inputs, url), asking.batch_size)
    except BaseException:
        service.close()
        raise


def _specs(metadata: Mapping[str, Any], side: str, where: str) -> dict[str, TensorSpec]:
    try:
        return v2_wire.specs_of(metadata.get(side))
    except Misshapen as error:
        raise ServiceError(f"{where}: {side} of the model's metadata {error}\n    → Is this a v2 server?") from error


def _own_words(service: Service, model: str) -> Mapping[str, Any]:
    """What a service of ours tells of a model beyond the protocol: its task and its labels. Empty for others'."""
    try:
        listed = service.json(service.send("GET", "/models", deadline=GREETING_SECONDS)).get("models", [])
        return next((one for one in listed if one["name"] == model), {})
    except (ServiceError, KeyError, TypeError):
        return {}


def _task(file: TargetFile, told: Mapping[str, Any], url: str) -> Task:
    name = file.task or told.get("task")
    if not name:
        raise UserError(f"{url} does not say its task\n    → Give --task NAME, or --like RUN.")
    return load_task(str(name))


def _state(file: TargetFile, told: Mapping[str, Any], inputs: Mapping[str, TensorSpec], url: str) -> State:
    labels = file.labels or list(told.get("labels") or ())
    if not labels:
        raise UserError(
            f"{url} does not say its labels\n"
            "    → Write them in a target.yaml (`labels: [bad, good]`, in the order of its probabilities) and give --target "
            "target.yaml, or give --like RUN."
        )
    pairs = "text_pair" in file.inputs or "text_pair" in inputs
    return {"labels": list(map(str, labels)), "multi_label": file.multi_label, "pairs": pairs}


def _inputs(task: Task, file: TargetFile, there: Mapping[str, TensorSpec], url: str) -> dict[str, TensorSpec]:
    """The tensor of each role; the only tensor takes the only role that an example must have."""
    roles = {role: column for role, column in task.columns.items() if role != task.target}
    required = [role for role, column in roles.items() if column.required]
    found = {}
    for role in roles:
        wanted = file.inputs.get(role) or (InputTensor(name=role) if role in there else None)
        if wanted is None and required == [role] and len(there) == 1:
            wanted = InputTensor(name=next(iter(there)))
        if wanted is None and role in required:
            raise ServiceError(
                f"{url} takes no {role}, but {', '.join(there)}\n    → Write `inputs: {{{role}: {{name: …}}}}` in target.yaml."
            )
        if wanted is not None:
            spec = _known(wanted.name, there, f"inputs.{role}", url)
            if spec.datatype != wanted.datatype:
                raise ServiceError(
                    f"{url} takes {spec.name} as {spec.datatype}, and {role} is sent as {wanted.datatype}\n"
                    "    → Put the preprocessing into the server, so that it takes BYTES."
                )
            found[role] = spec
    return found


def _outputs(task: Task, state: State, file: TargetFile, there: Mapping[str, TensorSpec], url: str) -> dict[str, OutputTensor]:
    """The tensor of each thing that the task answers; of a label and its probabilities one is enough."""
    specs = [spec.name for spec in task.signature(state).outputs]
    found = {}
    for name in specs:
        wanted = file.outputs.get(name) or (OutputTensor(name=name) if name in there else None)
        if wanted is not None:
            _known(wanted.name, there, f"outputs.{name}", url)
            found[name] = wanted
    enough = bool(found) if "probabilities" in specs else {one for one in specs if not one.startswith("num_")} <= set(found)
    if not enough:
        missing = next(one for one in specs if one not in found)
        raise ServiceError(
            f"{url} gives no {missing}, but {', '.join(there)}\n"
            f"    → Write `outputs: {{{missing}: {{name: …}}}}` in a target.yaml, and give --target target.yaml."
        )
    return found


def _known(name: str, there: Mapping[str, TensorSpec], key: str, url: str) -> TensorSpec:
    if name not in there:
        near = nearest(name, there)
        raise DataError(
            f"target.yaml: {key}: {url} has no tensor {name!r}\n    → "
            + (f"Did you mean {near!r}?" if near else f"It has {', '.join(there)}.")
        )
    return there[name]
