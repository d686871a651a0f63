"""Keys: seen once, kept as hashes, read by their owner alone, revoked while a service runs."""

from __future__ import annotations

import json
import os
import stat
import threading
from pathlib import Path

import pytest

from tunesmith.errors import UserError
from tunesmith_serving import keys
from tunesmith_serving.keys import KeyFile

pytestmark = pytest.mark.unit


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> KeyFile:
    monkeypatch.setattr(keys, "RECHECK", 0.0)
    return KeyFile(tmp_path / "new" / "keys.json")


def test_a_key_opens_until_it_is_revoked(file: KeyFile) -> None:
    secret = file.add("shop", ["digits"])
    found = KeyFile(file.path).find(secret)
    assert found is not None
    assert (found.name, found.may("digits"), found.may("letters")) == ("shop", True, False)

    running = KeyFile(file.path)
    assert running.find(secret) is not None
    file.revoke("shop")
    assert running.find(secret) is None


def test_a_key_without_models_may_ask_all_and_one_with_none_may_ask_none(file: KeyFile) -> None:
    all_of_them, none = file.find(file.add("all")), file.find(file.add("none", []))
    assert all_of_them is not None
    assert none is not None
    assert all_of_them.may("anything")
    assert not none.may("anything")


@pytest.mark.parametrize("wrong", ["", "tsk_", "tsk_x", "é", "\ud800"])
def test_anything_else_opens_nothing(file: KeyFile, wrong: str) -> None:
    secret = file.add("shop")
    for text in (wrong, secret[:-1], secret + "x", secret.upper()):
        assert file.find(text) is None


def test_the_file_holds_no_secret_and_only_its_owner_may_open_it(file: KeyFile) -> None:
    secret = file.add("shop")
    text = file.path.read_text()
    assert secret not in text
    assert secret.removeprefix("tsk_") not in text
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    assert json.loads(text)["keys"][0]["hash"] == keys._hash(secret)


def test_a_file_that_others_may_open_is_refused_and_its_keys_with_it(file: KeyFile) -> None:
    secret = file.add("shop")
    file.path.chmod(0o644)
    with pytest.raises(UserError, match="chmod 600"):
        KeyFile(file.path).find(secret)


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b'{"keys": [{}]}', b'{"keys": 3}', b'{"keys": "\xff"}'])
def test_a_damaged_file_is_told_and_opens_nothing(file: KeyFile, text: bytes) -> None:
    secret = file.add("shop")
    assert file.find(secret) is not None
    file.path.write_bytes(text)
    with pytest.raises(UserError, match="damaged"):
        file.find(secret)
    assert file._keys == []


def test_a_file_that_cannot_be_read_is_told_until_it_can(file: KeyFile, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two looks at it as well: a good key is not a wrong one meanwhile."""
    secret = file.add("shop")
    whole = file.path.read_bytes()
    assert file.find(secret) is not None
    file.path.write_bytes(b"{")
    with pytest.raises(UserError, match="damaged"):
        file.find(secret)
    monkeypatch.setattr(keys, "RECHECK", 60.0)
    with pytest.raises(UserError, match="damaged"):
        file.find(secret)
    monkeypatch.setattr(keys, "RECHECK", 0.0)
    file.path.write_bytes(whole)
    assert file.find(secret) is not None


def test_a_file_that_is_gone_opens_nothing(file: KeyFile) -> None:
    secret = file.add("shop")
    file.path.unlink()
    assert file.find(secret) is None
    assert file.all() == []


def test_a_name_is_taken_once_and_the_nearest_is_offered(file: KeyFile) -> None:
    file.add("shop")
    with pytest.raises(UserError, match="already"):
        file.add("shop")
    with pytest.raises(UserError, match="Did you mean shop"):
        file.revoke("shpo")
    with pytest.raises(UserError, match="no name"):
        file.add("../shop")


def test_keys_made_at_the_same_time_are_all_kept(file: KeyFile) -> None:
    threads = [threading.Thread(target=KeyFile(file.path).add, args=(f"k{i}",)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {key.name for key in file.all()} == {f"k{i}" for i in range(8)}
    assert os.listdir(file.path.parent).count(file.path.name) == 1
