from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tunesmith.recipe import Recipe
from tunesmith.runs import manifest


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    done = subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True, timeout=20)
    return done.stdout.strip()


def test_the_code_is_named_by_commit_and_whether_it_is_changed(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    (tmp_path / "a.py").write_text("1")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "first")
    commit = git(tmp_path, "rev-parse", "HEAD")
    (tmp_path / "untracked").write_text("")
    assert manifest.git_state(tmp_path) == {"commit": commit, "dirty": False}
    (tmp_path / "a.py").write_text("2")
    assert manifest.git_state(tmp_path) == {"commit": commit, "dirty": True}


def test_outside_a_repository_there_is_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert manifest.git_state(tmp_path) is None
    monkeypatch.setenv("PATH", "")
    assert manifest.git_state(tmp_path) is None


def test_a_manifest_is_plain_json_with_what_a_repeat_needs(recipe: Recipe) -> None:
    found = json.loads(json.dumps(manifest.collect(recipe, ["tunesmith", "train", "r.yaml"])))
    assert found["seeds"] == {"training": 42, "split": 42, "evaluation": 42}
    assert found["packages"]["numpy"] == manifest.version("numpy")
    assert found["hardware"]["cpus"] >= 1
    assert found["hardware"]["memory"] > 1 << 27
    assert found["recipe_fingerprint"] == recipe.fingerprint()
    assert manifest.version("no-such-package") is None
