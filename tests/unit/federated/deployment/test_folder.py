"""A federation's folder: keys are never overwritten, and who may join is what its maps say."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from cryptography import x509

from tunesmith.errors import UserError
from tunesmith_federated.deployment import members
from tunesmith_federated.deployment.folder import Federation, create
from tunesmith_federated.deployment.site_config import read

pytestmark = pytest.mark.unit


def names(place: Path) -> list[str]:
    return [line.split()[1] for line in place.read_text(encoding="utf-8").splitlines()]


def test_a_folder_that_has_something_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(UserError, match="keys are never overwritten"):
        create(tmp_path, ["a"])
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(("sites", "why"), [(["A b"], "is no name for a site"), (["a", "a"], "twice"), (["../x"], "no name")])
def test_names_that_would_do_harm_are_refused_before_anything_is_made(tmp_path: Path, sites: list[str], why: str) -> None:
    with pytest.raises(UserError, match=why):
        create(tmp_path / "fed", sites)
    assert not (tmp_path / "fed").exists()


def test_what_is_handed_over_is_a_site_that_allows_nothing_yet(federation: Federation) -> None:
    config = read(federation.folder / "sites" / "a" / "site.yaml")
    assert (config.name, config.server) == ("a", "fed.example.org:8443")
    assert config.allow.recipes == []
    assert config.allow.base_models == []
    assert (federation.folder / "sites" / "a" / "README.txt").read_text(encoding="utf-8").startswith("a in the federation")


def test_a_revoked_site_is_in_no_map_and_its_name_is_remembered(federation: Federation) -> None:
    federation.revoke("a")
    again = Federation.open(federation.folder)
    assert (names(again.map), names(again.keys), list(again.revoked)) == (["b"], ["b"], ["a"])
    with pytest.raises(UserError, match=r"there is no site 'a' .*it was revoked.*: did you mean|there are b"):
        again.revoke("a")


def test_renewing_gives_new_keys_and_keeps_the_owners_file(federation: Federation) -> None:
    folder, old = federation.folder / "sites" / "a", federation.sites["a"]
    (folder / "site.yaml").write_text("mine", encoding="utf-8")
    renewed, _ = federation.add("a", renew=True)
    assert renewed.sites["a"].certificate != old.certificate
    assert renewed.sites["a"].public_key != old.public_key
    assert old.public_key in renewed.revoked["a"]
    assert (folder / "site.yaml").read_text(encoding="utf-8") == "mine"
    with pytest.raises(UserError, match="--renew"):
        renewed.add("a")


def test_the_servers_certificate_is_renewed_by_the_same_authority(federation: Federation) -> None:
    place, old = federation.server / "server.crt", members.status(federation)["expires"]
    assert members.renew(federation, 10)[1] is False, "it is not up, so nothing uses the old one"
    ca, new = (x509.load_pem_x509_certificate(path.read_bytes()) for path in (federation.ca / "ca.crt", place))
    new.verify_directly_issued_by(ca)
    found = members.status(federation)
    assert found["expires"] < old
    assert "not up, its certificate ends" in members.words(found)
    assert "(in 9 days: renew it)" in members.words(found).splitlines()[0]


def test_a_folder_that_is_none_says_how_to_make_one(tmp_path: Path, federation: Federation) -> None:
    with pytest.raises(UserError, match=r"no federation's folder.*\n    → .*federation init"):
        Federation.open(tmp_path)
    (federation.folder / "federation.json").write_text('{"name": 1', encoding="utf-8")
    with pytest.raises(UserError, match=r"federation\.json cannot be read"):
        Federation.open(federation.folder)


def test_without_the_authoritys_key_no_site_is_made(federation: Federation) -> None:
    shutil.move(federation.ca / "ca.key", federation.folder / "away.key")
    with pytest.raises(UserError, match=r"ca\.key is not there"):
        federation.add("c")
    assert "c" not in Federation.open(federation.folder).sites
