"""The wheel that travels is exactly the code that runs here, and installs without a network."""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata
import zipfile
from pathlib import Path

import pytest

from tunesmith.cluster import wheel


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return wheel.build_wheel(tmp_path_factory.mktemp("wheel"))


def test_equal_code_gives_equal_bytes(built: Path, tmp_path: Path) -> None:
    again = wheel.build_wheel(tmp_path)
    assert again.name == built.name
    assert again.read_bytes() == built.read_bytes()


def test_it_holds_the_three_packages_and_the_verbs(built: Path) -> None:
    with zipfile.ZipFile(built) as archive:
        names = set(archive.namelist())
        info = next(name for name in names if name.endswith("/METADATA")).partition("/")[0]
        assert {f"{package}/__init__.py" for package in wheel.PACKAGES} <= names
        assert not [name for name in names if "__pycache__" in name]
        assert "tunesmith.commands" in archive.read(f"{info}/entry_points.txt").decode()


def test_it_asks_for_nothing_so_that_no_job_downloads_pytorch(built: Path) -> None:
    with zipfile.ZipFile(built) as archive:
        (metadata,) = (name for name in archive.namelist() if name.endswith("/METADATA"))
        # As pip reads it.
        distribution = importlib.metadata.PathDistribution(zipfile.Path(archive, metadata.removesuffix("METADATA")))
        assert not distribution.requires
        assert any(line.startswith("torch") for line in str(distribution.read_text(wheel.ASKED_FOR)).splitlines())


def test_its_record_is_true(built: Path) -> None:
    with zipfile.ZipFile(built) as archive:
        (record,) = (name for name in archive.namelist() if name.endswith("/RECORD"))
        rows = [row.rsplit(",", 2) for row in archive.read(record).decode().split()]
        assert {row[0] for row in rows} == set(archive.namelist())
        for name, digest, size in rows:
            if name != record:
                content = archive.read(name)
                expected = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
                assert (digest, size) == (f"sha256={expected}", str(len(content)))
