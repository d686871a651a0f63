"""What `cluster/federation/` starts is what the commands take, and finds its files where they are laid."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import click
import pytest
import yaml

from tunesmith_federated.deployment import certificates, command, site_command
from tunesmith_federated.deployment.folder import DEFAULT_PORT, Federation
from tunesmith_federated.deployment.site_config import read

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[4]
PLACE = ROOT / "cluster" / "federation"
DOCKERFILE = (PLACE / "Dockerfile").read_text(encoding="utf-8")
GROUPS = {"federation": command.command, "site": site_command.command}


def parsed(arguments: Sequence[str]) -> dict[str, Any]:
    """What `tunesmith ARGUMENTS` is told, beside its ``verb``. Fails where it would refuse them."""
    group = GROUPS[arguments[0]]
    name, verb, rest = group.resolve_command(click.Context(group), list(arguments[1:]))
    assert verb is not None
    return {"verb": name, **verb.make_context(name, rest).params}


def manifest(name: str) -> dict[str, dict[str, Any]]:
    """The objects of a Kubernetes file by kind."""
    found = list(yaml.safe_load_all((PLACE / name).read_text(encoding="utf-8")))
    return {one["kind"]: one for one in found}


def pod(name: str) -> tuple[dict[str, Any], dict[str, str]]:
    """The container of a stateful set, and where each of its volumes is mounted."""
    spec = manifest(name)["StatefulSet"]["spec"]
    (container,) = spec["template"]["spec"]["containers"]
    volumes = {one["name"] for one in spec["template"]["spec"]["volumes"]}
    volumes |= {one["metadata"]["name"] for one in spec["volumeClaimTemplates"]}
    mounts = {one["name"]: one["mountPath"] for one in container["volumeMounts"]}
    assert set(mounts) <= volumes
    assert spec["selector"]["matchLabels"] == spec["template"]["metadata"]["labels"]
    return container, mounts


def secret_files(name: str, folder: Path) -> dict[str, Path]:
    """Key → file of the secret that the file's first lines make, ``fed`` being ``folder``."""
    made: dict[str, Path] = {}
    for given in re.findall(r"--from-file=(\S+)", (PLACE / name).read_text(encoding="utf-8")):
        key, _, place = given.rpartition("=")
        source = folder / PurePosixPath(place).relative_to("fed")
        made |= {key: source} if key else {one.name: one for one in source.iterdir() if one.is_file()}
    assert made
    return made


def below(place: str, mounts: Sequence[str]) -> bool:
    return any(PurePosixPath(place).is_relative_to(mount) for mount in mounts)


def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((PLACE / "compose.yaml").read_text(encoding="utf-8"))
    return found


def mounts_of(service: Mapping[str, Any]) -> dict[str, str]:
    """Host → container."""
    pairs = [one.split(":") for one in service["volumes"]]
    return {pair[0]: pair[1] for pair in pairs} | dict.fromkeys(service.get("tmpfs", []), "")


def test_compose_starts_a_server_and_each_site_with_its_own_folder_and_network() -> None:
    services = compose()["services"]
    server, sites = services.pop("server"), services
    up = parsed(server["command"])
    assert (up["verb"], up["listen"]) == ("up", "0.0.0.0")  # in a container's own network
    assert below(up["folder"], list(mounts_of(server).values()))
    assert server["healthcheck"]["test"][:2] == ["CMD", "tunesmith"]
    assert parsed(server["healthcheck"]["test"][2:]) == {"verb": "status", "folder": up["folder"], "as_json": False}
    for service, site in sites.items():
        name, mounts = service.removeprefix("site-"), mounts_of(site)
        join = parsed(site["command"])
        assert join["verb"] == "join"
        assert join["config"] == f"{mounts[f'./fed/sites/{name}']}/site.yaml"
        assert site["networks"] == [name]
    assert sorted(server["networks"]) == sorted(compose()["networks"]) == sorted(one.removeprefix("site-") for one in sites)


def test_the_page_makes_the_federation_that_compose_starts() -> None:
    page = (PLACE / "README.md").read_text(encoding="utf-8")
    given = [shlex.split(line.rpartition("tunesmith ")[2]) for line in re.findall(r".*tunesmith federation .*", page)]
    made, status = (parsed(one) for one in given)
    assert [made["verb"], made["folder"], made["host"], made["port"]] == ["init", "fed", "server", DEFAULT_PORT]
    assert {f"site-{name}" for name in made["sites"].split(",")} | {"server"} == set(compose()["services"])
    assert parsed(compose()["services"]["server"]["command"])["folder"] == status["folder"]
    assert all(f"`{file.name}`" in page for file in PLACE.iterdir() if file.name != "README.md")


def test_the_server_listens_where_its_service_and_the_sites_look_for_it() -> None:
    container, mounts = pod("server.yaml")
    told = parsed(container["args"])
    assert (told["verb"], told["listen"], told["port"]) == ("up", "0.0.0.0", None)
    assert told["folder"] in mounts.values()
    (port,) = container["ports"]
    assert port["containerPort"] == DEFAULT_PORT
    assert container["readinessProbe"]["tcpSocket"]["port"] == port["name"]
    service = manifest("server.yaml")["Service"]["spec"]
    assert service["ports"] == [{"name": port["name"], "port": DEFAULT_PORT, "targetPort": port["name"]}]
    assert service["selector"] == manifest("server.yaml")["StatefulSet"]["spec"]["selector"]["matchLabels"]
    (egress,) = manifest("site.yaml")["NetworkPolicy"]["spec"]["egress"]
    assert {"port": DEFAULT_PORT, "protocol": "TCP"} in egress["ports"]


def test_the_server_s_secret_is_laid_out_as_its_folder_once(federation: Federation, tmp_path: Path) -> None:
    (laying,) = manifest("server.yaml")["StatefulSet"]["spec"]["template"]["spec"]["initContainers"]
    secret, disk = tmp_path / "secret", tmp_path / "disk"
    secret.mkdir()
    disk.mkdir()
    for key, source in secret_files("server.yaml", federation.folder).items():
        shutil.copy(source, secret / key)
    text = re.sub(r"/(secret|fed)(?=[/\s])", lambda found: str({"secret": secret, "fed": disk}[found[1]]), laying["args"][0])
    subprocess.run([*laying["command"], text], check=True, timeout=20)
    there = Federation.open(disk)
    files = {path.relative_to(federation.folder) for path in federation.folder.rglob("*") if path.is_file()}
    wanted = {path for path in files if path.parts[0] != "sites"} - {Path("ca/ca.key")}
    assert {path.relative_to(disk) for path in disk.rglob("*") if path.is_file()} == wanted
    assert there.sites == federation.sites

    there.revoke("a")
    subprocess.run([*laying["command"], text], check=True, timeout=20)
    assert list(Federation.open(disk).sites) == ["b"], "a restart lets in whom it let in before"


def test_a_site_finds_its_keys_and_keeps_its_state_on_its_own_disk(federation: Federation, tmp_path: Path) -> None:
    container, mounts = pod("site.yaml")
    config = PurePosixPath(parsed(container["args"])["config"])
    assert str(config.parent) == mounts["site"]
    place = tmp_path / "site"
    place.mkdir()
    for key, source in secret_files("site.yaml", federation.folder).items():
        shutil.copy(source, place / key)
    said = re.search(r"with (state: (/\S+?)) in its site\.yaml", (PLACE / "site.yaml").read_text(encoding="utf-8"))
    assert said is not None
    with (place / config.name).open("a", encoding="utf-8") as file:
        file.write(f"\n{said[1]}\n")
    found = read(place / config.name)
    certificates.check_site(found.certificates_dir)
    assert str(found.state_dir) == mounts["state"]


def test_what_a_site_reads_and_writes_beside_a_read_only_image_is_mounted() -> None:
    models = re.search(r"HF_HOME=(\S+)", DOCKERFILE)
    assert models is not None
    container, mounts = pod("site.yaml")
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert {"/tmp", models[1], "/data"} <= set(mounts.values())
    for service, site in compose()["services"].items():
        if service != "server":
            assert site["read_only"]
            assert {models[1], "/data"} <= set(mounts_of(site).values())
            assert site["tmpfs"] == ["/tmp"]


def test_the_image_is_built_from_what_the_package_is_made_of() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    copied = {word for line in re.findall(r"^COPY (.+) \S+$", DOCKERFILE, re.MULTILINE) for word in line.split()}
    assert {one.split("/")[0] for one in project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]} <= copied
    assert {"pyproject.toml", project["project"]["readme"], "constraints.txt", "LICENSE"} <= copied
    assert all((ROOT / name).exists() for name in copied)
    python = re.search(r"^FROM python:(\d+)\.(\d+)", DOCKERFILE, re.MULTILINE)
    assert python is not None
    assert f">={python[1]}.{python[2]}" == project["project"]["requires-python"]
    assert 'ENTRYPOINT ["tunesmith"]' in DOCKERFILE
    assert sys.version_info >= (int(python[1]), int(python[2]))
