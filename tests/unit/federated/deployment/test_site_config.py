"""The owner's file: every mistake in it with its line, and paths relative to it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tunesmith.errors import ClusterError, UserError
from tunesmith_federated.deployment import checking
from tunesmith_federated.deployment.site_config import SiteConfig, read

pytestmark = pytest.mark.unit


def test_all_mistakes_are_told_with_their_lines(tmp_path: Path) -> None:
    file = tmp_path / "site.yaml"
    file.write_text(
        "name: a\nserver: fed.example.org:8443\ndata: {trian: x.csv}\nlimits:\n  rounds: 0\n  secunds: 5\n", encoding="utf-8"
    )
    with pytest.raises(UserError) as caught:
        read(file)
    said = str(caught.value)
    assert said.startswith("4 mistakes in the site's file")
    assert f"{file}:5: limits.rounds: found 0" in said
    assert f"{file}:6: limits.secunds" in said
    assert "did you mean data.train?" in said


@pytest.mark.parametrize(
    ("section", "why"),
    [
        ({"allow": "{recipes: [abc]}"}, "'abc' is no fingerprint"),
        ({"allow": "{signers: {board: ssh-ed25519 AAAA}}"}, r"allow\.signers\.board: 'ssh-ed25519 AAAA' is no public key of a"),
        ({"certificates": "[1, 2]"}, "certificates"),
    ],
)
def test_words_that_allow_nothing_are_no_silent_refusal(
    site_config: Callable[..., SiteConfig], section: dict[str, str], why: str
) -> None:
    with pytest.raises(UserError, match=why):
        site_config(**section)


@pytest.mark.parametrize("server", ["fed.example.org", "https://fed:8443", "fed:0", "fed:99999", ":8443"])
def test_a_server_without_host_and_port_is_refused(tmp_path: Path, server: str) -> None:
    file = tmp_path / "site.yaml"
    file.write_text(f"name: a\nserver: '{server}'\ndata: {{train: x.csv}}\n", encoding="utf-8")
    with pytest.raises(UserError, match=r":2: server: .* is no HOST:PORT"):
        read(file)


def test_any_must_be_written_to_be_meant(site_config: Callable[..., SiteConfig]) -> None:
    assert site_config().allow.recipes == []
    assert not site_config().allow.any_recipe
    assert site_config(allow="{recipes: any}").allow.any_recipe
    with pytest.raises(UserError, match="'any' is no fingerprint"):
        site_config(allow="{recipes: [any, 0123456789abcdef0123456789abcdef01234567]}")


def test_places_are_relative_to_the_file_and_uris_stay(tmp_path: Path) -> None:
    file = tmp_path / "site.yaml"
    file.write_text(
        "name: a\nserver: h:1\ndata: {train: [rows/*.csv, s3://bucket/x.csv], test: /held.csv}\nstate: ../kept\n",
        encoding="utf-8",
    )
    config = read(file)
    section = config.data_section()
    assert section["train"] == [str(tmp_path / "rows/*.csv"), "s3://bucket/x.csv"]
    assert section["test"] == "/held.csv"
    assert config.state_dir == tmp_path / "../kept"
    assert checking.missing(config) == [str(tmp_path / "rows/*.csv"), "/held.csv"]


def test_a_site_says_how_its_rows_are_held_back_and_the_recipe_the_rest(tmp_path: Path) -> None:
    """Nothing is chosen by a site's rows: what were split off for validation would be of no use."""
    file, begin = tmp_path / "site.yaml", "name: a\nserver: h:1\ndata: {train: x.csv, split: "
    asked = {"train": "sites://", "validation": "v.csv", "labels": ["a"], "split": {"seed": 7, "validation": 0.0, "test": 0.1}}
    file.write_text(begin + "{test: 0.3}}\n", encoding="utf-8")
    section = read(file).data_section(asked)
    assert section["split"] == {"seed": 7, "validation": 0.0, "test": 0.3}
    assert (section["train"], section["labels"], "validation" in section) == (str(tmp_path / "x.csv"), ["a"], False)

    file.write_text(begin + "{validation: 0.1}}\n", encoding="utf-8")
    with pytest.raises(UserError, match=r":3: data\.split\.validation: a site chooses nothing by its rows"):
        read(file)


def test_a_file_that_is_not_there_says_where_it_comes_from(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot be read: No such file.*\n    → --config"):
        read(tmp_path / "none.yaml")


ONE, BOARD = f"recipes: [{'ab' * 20}]", f"signers: {{board: 'ed25519:{'A' * 43}='}}"


@pytest.mark.parametrize(
    ("allow", "said"),
    [
        ("{}", "0 recipes by fingerprint: nothing will be done"),
        (f"{{{ONE}}}", "1 recipe by fingerprint\n"),
        (f"{{{BOARD}}}", "those signed by board\n"),
        (f"{{{ONE}, {BOARD}}}", "1 recipe by fingerprint and those signed by board\n"),
    ],
)
def test_what_the_file_allows_is_said_in_words(site_config: Callable[..., SiteConfig], allow: str, said: str) -> None:
    assert f"recipes      {said}" in checking.words(site_config(allow=allow))


@pytest.mark.parametrize(
    ("resources", "why"),
    [
        ("{num_workers: 2}", r":4: resources.cpus: 2 workers .* need a thread each, and may have 1 together"),
        ("{num_workers: 2, cpus: 2, gpus: 4}", r":4: resources.gpus: each of 2 workers .* has one GPU, .* 2 and not 4"),
        ("{num_workers: 0}", r":4: resources.num_workers: found 0"),
        ("{num_worker: 2}", r"did you mean resources.num_workers"),
    ],
)
def test_workers_that_do_not_fit_together_are_told(site_config: Callable[..., SiteConfig], resources: str, why: str) -> None:
    with pytest.raises(UserError, match=why):
        site_config(resources=resources)
    assert site_config(resources="{gpus: 4}").resources.num_workers == 1


def test_more_workers_or_gpus_than_the_machine_has_are_refused_with_what_there_is(
    site_config: Callable[..., SiteConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1}, raising=False)
    checking.check_machine(site_config(resources="{num_workers: 2, cpus: 2}"))
    with pytest.raises(ClusterError, match=r"resources.num_workers: 3 workers need a core each, and this machine has 2"):
        checking.check_machine(site_config(resources="{num_workers: 3, cpus: 3}"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(ClusterError, match=r"resources.gpus: 64 are given, and PyTorch sees 0 here \(CUDA_VISIBLE_DEVICES=\)"):
        checking.check_machine(site_config(resources="{gpus: 64}"))
