"""A federation's folder with two sites, made once: keys take time."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tunesmith_federated.deployment.folder import Federation, create
from tunesmith_federated.deployment.site_config import SiteConfig, read


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return create(tmp_path_factory.mktemp("made") / "fed", ["a", "b"], "fed.example.org").folder


@pytest.fixture
def federation(made: Path, tmp_path: Path) -> Federation:
    return Federation.open(shutil.copytree(made, tmp_path / "fed"))


@pytest.fixture
def site_config(tmp_path: Path) -> Callable[..., SiteConfig]:
    """``site_config(allow="{…}", limits="{…}")``: a site's file with these sections."""

    def make(**sections: str) -> SiteConfig:
        file = tmp_path / "site.yaml"
        lines = ["name: a", "server: fed.example.org:8443", "data: {train: rows.csv}"]
        file.write_text("\n".join([*lines, *(f"{key}: {value}" for key, value in sections.items())]), encoding="utf-8")
        return read(file)

    return make
