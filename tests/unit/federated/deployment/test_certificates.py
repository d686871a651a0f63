"""Certificates say what is amiss before anything is sent, and no file of theirs is readable to others."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tunesmith.errors import UserError
from tunesmith_federated.deployment import certificates
from tunesmith_federated.deployment.folder import Federation, create

pytestmark = pytest.mark.unit


def test_only_the_owner_reads_what_init_makes(federation: Federation) -> None:
    files = [path for path in federation.folder.rglob("*") if path.is_file()]
    assert len(files) > 15
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}


def test_a_sites_folder_is_fit_as_it_comes(federation: Federation) -> None:
    certificates.check_site(federation.folder / "sites" / "a")


def test_an_expired_certificate_is_named_with_its_date_and_the_way_out(federation: Federation) -> None:
    later = datetime.now(UTC) + timedelta(days=certificates.DAYS + 1)
    with pytest.raises(UserError, match=r"site\.crt: the certificate expired on .* UTC\n    → .*--renew"):
        certificates.check_site(federation.folder / "sites" / "a", later)


def test_a_clock_that_is_behind_is_named(federation: Federation) -> None:
    with pytest.raises(UserError, match="Set this machine's clock: it says 2001-01-01"):
        certificates.check_site(federation.folder / "sites" / "a", datetime(2001, 1, 1, tzinfo=UTC))


@pytest.mark.parametrize(
    ("file", "why"),
    [("site.key", "does not belong to site.crt"), ("ca.crt", "was not issued by"), ("site.crt", "was not issued by")],
)
def test_files_of_two_federations_are_found(federation: Federation, tmp_path: Path, file: str, why: str) -> None:
    other = create(tmp_path / "other", ["a"])
    shutil.copy(other.folder / "sites" / "a" / file, federation.folder / "sites" / "a" / file)
    with pytest.raises(UserError, match=why):
        certificates.check_site(federation.folder / "sites" / "a")


def test_a_missing_and_a_damaged_file_are_named(federation: Federation) -> None:
    folder = federation.folder / "sites" / "a"
    (folder / "node.key").write_text("nonsense", encoding="utf-8")
    with pytest.raises(UserError, match=r"node\.key is no private key"):
        certificates.check_site(folder)
    (folder / "node.key").unlink()
    with pytest.raises(UserError, match=r"has no node\.key"):
        certificates.check_site(folder)
