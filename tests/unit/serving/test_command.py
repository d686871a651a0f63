"""The command: what is wrong is said with exit code 2, before any Ray starts; what is written, Serve can read."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from support.runs import finished_run
from tunesmith import cli, storage
from tunesmith.cluster import connect
from tunesmith.errors import TunesmithError, UserError
from tunesmith.recipe.serving import ServingSection
from tunesmith.runs import Run
from tunesmith_serving import apps, change, record, service
from tunesmith_serving.keys import KeyFile, default_place
from tunesmith_serving.plan import check_room, entry, listed, planned

pytestmark = pytest.mark.unit
Invoke = Callable[..., Result]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return finished_run(tmp_path_factory.mktemp("text"), "text-classification", steps=1)


@pytest.fixture
def invoke(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Invoke:
    """Runs ``tunesmith serve …`` in this process, with a home of its own, where Ray must not start."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)

    def started(*given: Any, **more: Any) -> None:
        raise AssertionError("Ray was to be started")

    monkeypatch.setattr(service, "run", started)
    monkeypatch.setattr(service, "deploy", started)
    monkeypatch.setattr(service, "detach", started)
    point = EntryPoint("serve", "tunesmith_serving.command:command", cli.GROUP)
    monkeypatch.setattr(cli, "verbs", lambda: {"serve": point})
    return lambda *arguments: CliRunner().invoke(cli.main, ["serve", *map(str, arguments)])


def test_help_names_the_subcommands(invoke: Invoke) -> None:
    answer = invoke("--help")
    assert answer.exit_code == 0, answer.output
    for word in ("keys", "status", "stop", "start"):
        assert word in answer.output


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nothing"], "there is no run 'nothing'"),
        (["{run}", "{run}"], "two models are called made, version 1"),
        (["a={run}", "a={run}"], "a-b="),
        (["{run}", "serving.max_queu=3"], "did you mean serving.max_queue?"),
        (["{run}", "serving.max_queue=0"], "serving.max_queue"),
        (["{run}", "serving.num_replicas=3", "serving.max_replicas=2"], "3 or more"),
        (["{run}", "--port", "{taken}"], "is in use"),
        (["{run}", "--on", "http://head:8265"], "serve deploy -a http://head:8265"),
        (["{run}", "--host", "0.0.0.0"], "--host 0.0.0.0 goes with --write"),
        (["serving.max_queue=3"], "name at least one run"),
        (["stop"], "no service of yours runs here"),
        (["stop", "7"], "at port 7"),
        (["update", "m={run}"], "no service of yours runs here"),
        (["promote", "m", "7"], "at port 7"),
        (["rollback", "m"], "no service of yours runs here"),
        (["update", "m={run}", "x"], "x: not a port"),
        (["update", "m={run}", "--canary", "5", "--shadow", "5"], "exclude each other"),
        (["update", "m={run}", "--canary", "101"], "0<=x<=100"),
        (["keys", "revoke", "nobody"], "there is no key 'nobody'"),
        (["keys", "add", "a b"], "no name for a key"),
        (["keys", "add", "a", "--models", ","], "--models names none"),
    ],
)
def test_a_mistake_is_said_before_ray_starts(invoke: Invoke, run: Run, arguments: list[str], says: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        answer = invoke(*(text.format(run=run.path, taken=port) for text in arguments))
    assert answer.exit_code == 2, answer.output
    assert says in answer.output
    assert "Traceback" not in answer.output


def test_a_run_without_a_finished_model_is_said(invoke: Invoke, run: Run, tmp_path: Path) -> None:
    for missing, says in (("model/tunesmith.json", "has no model yet"), ("model/model.safetensors", "has no weights")):
        place = tmp_path / missing.replace("/", "-")
        storage.download(run.path, place)
        (place / missing).unlink()
        answer = invoke(place)
        assert answer.exit_code == 2, answer.output
        assert says in answer.output


def test_names_and_versions_and_settings(run: Run) -> None:
    models = planned([run.path, f"made@2={run.path}", f"b={run.path}", "serving.max_queue=7"])
    assert [(one.name, one.version) for one in models] == [("made", "1"), ("made", "2"), ("b", "1")]
    assert {one.settings.max_queue for one in models} == {7}
    assert all(Path(one.folder, "tunesmith.json").is_file() for one in models)
    with pytest.raises(Exception, match=r"ask for 3 CPUs and there are 2(.|\n)*serving.num_cpus=0.66"):
        check_room(models, 2)
    on_gpus = planned([run.path, f"b={run.path}", "serving.num_gpus=1"])
    with pytest.raises(UserError, match=r"ask for 2 GPUs and Ray finds 1"):
        check_room(on_gpus, 2, 1)
    check_room(on_gpus, 2, 2)


def test_copies_that_may_come_share_the_threads_and_their_room_is_told(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    models = planned([f"a={run.path}", "serving.max_replicas=4"])
    assert [one["threads"] for one in listed(models, 16)["models"]] == [4]
    check_room(models, 2)
    assert capsys.readouterr().err == ""
    check_room(models, 2, 0)
    assert "the models ask for 4 CPUs, and there are 2" in capsys.readouterr().err
    check_room(models, 4, 0)
    check_room(planned([run.path]), 1, 0)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("copies", "threads"), [((1, 4), 2), ((2, None), 4), ((1, None), 8), ((16, None), 1)])
def test_a_new_version_shares_out_the_threads_of_the_one_there(run: Run, copies: tuple[int, int | None], threads: int) -> None:
    stable = entry(planned([run.path, "serving.num_replicas=2"])[0], 4)
    assert change._threads(ServingSection(num_replicas=copies[0], max_replicas=copies[1]), stable) == threads
    assert change._threads(ServingSection(), {**stable, "threads": None}) is None


def test_a_model_scales_up_as_far_as_its_recipe_says(run: Run) -> None:
    from tunesmith_serving import deployments

    def scale(*settings: str) -> Any:
        app = deployments.model(entry(planned([run.path, *settings])[0]))
        return app._bound_deployment._deployment_config

    grows = scale("serving.num_replicas=2", "serving.max_replicas=5", "serving.max_batch_size=32").autoscaling_config
    assert (grows.min_replicas, grows.max_replicas, grows.target_ongoing_requests) == (2, 5, 16)
    stays = scale("serving.num_replicas=2", "serving.max_replicas=2")
    assert (stays.autoscaling_config, stays.num_replicas) == (None, 2)


def test_a_record_whose_process_ended_names_no_other_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a crash another process may have the number, and `stop` must not end that."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    born = record.born(os.getpid())
    mine = record.Record("http://127.0.0.1:7001", os.getpid(), None, ("m@1",), "", 1.0, born)
    record.write(mine)
    record.write(replace(mine, url="http://127.0.0.1:7002", born=born - 1))
    assert record.records() == [mine]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["update", "modl={run}"], "Did you mean model?"),
        (["promote", "other"], "It serves model."),
        (["update", "a b={run}"], "names no model"),
        (["update", "model=nothing"], "there is no run 'nothing'"),
        (["update", "model={run}", "serving.max_queu=3"], "did you mean serving.max_queue?"),
        (["rollback", "model"], "older Tunesmith"),
    ],
)
def test_a_mistake_about_a_running_service_is_said_before_it_is_joined(
    invoke: Invoke, run: Run, arguments: list[str], says: str
) -> None:
    record.write(record.Record("http://127.0.0.1:7001", os.getpid(), None, ("model@1",), "", 1.0, record.born(os.getpid())))
    answer = invoke(*(text.format(run=run.path) for text in arguments))
    assert answer.exit_code == 2, answer.output
    assert says in answer.output
    assert "Traceback" not in answer.output


def test_with_several_services_a_port_is_asked_for(invoke: Invoke, run: Run) -> None:
    for port in (7001, 7002):
        record.write(record.Record(f"http://127.0.0.1:{port}", os.getpid(), None, ("m@1",), "", 1.0))
    answer = invoke("update", f"m={run.path}")
    assert answer.exit_code == 2
    assert "Name a port: 7001, 7002" in answer.output


def test_what_others_hold_is_not_counted_as_room(run: Run) -> None:
    with pytest.raises(UserError, match=r"ask for 1 CPUs and 0.5 are free(.|\n)*serving.num_cpus=0.5"):
        check_room(planned([run.path]), 0.5, 0, free=True)


def test_what_is_written_is_what_serve_deploy_takes(invoke: Invoke, run: Run, tmp_path: Path) -> None:
    from ray.serve.schema import ServeDeploySchema

    answer = invoke(run.path, "--write", tmp_path / "serve.yaml", "--port", "8123")
    assert answer.exit_code == 0, answer.output
    config = ServeDeploySchema.model_validate(yaml.safe_load((tmp_path / "serve.yaml").read_text()))
    assert (config.http_options.host, config.http_options.port) == ("127.0.0.1", 8123)
    made, front = config.applications
    assert (made.name, made.route_prefix, front.name, front.route_prefix) == ("tunesmith:made@1", None, "tunesmith", "/")
    assert front.deployments[0].user_config["models"] == [made.args]
    from tunesmith_serving import deployments

    assert front.import_path == "tunesmith_serving.deployments:door"
    assert None not in (deployments.model(made.args), deployments.door(front.args))


@pytest.mark.parametrize("host", ["0.0.0.0", "127.0.0.1"])
def test_where_a_written_service_listens_is_said_loudly_beyond_this_machine(
    invoke: Invoke, run: Run, tmp_path: Path, host: str
) -> None:
    answer = invoke(run.path, "--write", tmp_path / "serve.yaml", "--host", host)
    assert answer.exit_code == 0, answer.output
    config = yaml.safe_load((tmp_path / "serve.yaml").read_text())
    beyond = host != "127.0.0.1"
    assert config["http_options"] == {"host": host, "port": 8000}
    assert config["proxy_location"] == ("EveryNode" if beyond else "HeadOnly")
    assert ("without TLS" in answer.output) == beyond


def test_a_first_key_is_made_and_shown_once(invoke: Invoke, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "run", lambda models, told, **rest: told("http://127.0.0.1:1"))
    first, second = invoke(run.path), invoke(run.path)
    assert first.exit_code == second.exit_code == 0, first.output
    secret = first.output.partition("shown this once: ")[2].split()[0]
    assert KeyFile(default_place()).find(secret) is not None
    assert "tsk_" not in second.output


def test_keys_are_listed_by_name_alone(invoke: Invoke) -> None:
    secret = invoke("keys", "add", "shop", "--models", "a,b").output.strip()
    assert secret.startswith("tsk_")
    listed = invoke("keys", "list").output
    assert "shop  a, b" in listed
    assert secret not in listed
    assert invoke("keys", "revoke", "shop").exit_code == 0
    assert invoke("keys", "list").output == ""


def test_another_port_than_that_of_the_cluster_is_refused_before_anything_is_done(
    invoke: Invoke, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    made = record.Record("http://127.0.0.1:8000", 0, "head:6379", ("made@1",), "", 1.0)
    monkeypatch.setattr(service, "deploy", lambda models, **given: asked.append(given["port"]) or made)
    record.write(made)
    answer = invoke(run.path, "--on", "head:6379", "--port", "9000")
    assert (answer.exit_code, "head:6379 listens at 8000" in answer.output) == (2, True), answer.output
    assert (asked, default_place().exists()) == ([], False)
    assert invoke(run.path, "--on", "head:6379").exit_code == 0
    assert asked == [8000]


@pytest.mark.parametrize(("any_port", "taken"), [(True, 8000), (False, None)])
def test_a_serve_that_somebody_else_has_started_keeps_its_port(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, any_port: bool, taken: int | None
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    cluster = SimpleNamespace(gpus=0.0, nodes=lambda: [SimpleNamespace(total={"CPU": 8.0}, free={"CPU": 8.0})])
    monkeypatch.setattr(connect, "connect", lambda *given, **more: contextlib.nullcontext(cluster))
    monkeypatch.setattr(apps, "running", lambda: ([], {"tunesmith"}))
    monkeypatch.setattr(apps, "listens_at", lambda: 8000)
    ports: list[int] = []
    monkeypatch.setattr(apps, "deploy", lambda models, keys, port: ports.append(port))
    given = {"keys": "keys.json", "port": 9000, "on": "head:6379", "any_port": any_port}
    if taken is None:
        with pytest.raises(UserError, match="listens at 8000"):
            service.deploy(planned([run.path]), **given)
    else:
        assert service.deploy(planned([run.path]), **given).port == taken
    assert ports == [taken] * bool(taken)


def test_a_service_has_the_time_to_drain_that_its_models_say(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 10_000, 50))
    monkeypatch.setattr(service, "time", SimpleNamespace(monotonic=lambda: next(clock), sleep=lambda seconds: None))
    monkeypatch.setattr(service, "_runs", lambda pid: True)
    monkeypatch.setattr(service.os, "kill", lambda pid, number: None)
    with pytest.raises(TunesmithError, match=r"has not ended within 375 s"):
        service.stop(record.Record("http://127.0.0.1:1", 4711, None, (), "", 1.0, drain_s=300.0))
    assert next(clock) > 375


def test_status_says_what_computes_where_it_is_not_pytorch(run: Run) -> None:
    assert record.names(planned([f"a={run.path}"])) == ("a@1",)
    assert record.names(planned([f"a={run.path}", "serving.backend=openvino"])) == ("a@1 (openvino)",)
