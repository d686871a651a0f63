"""Places: local paths, ``file://``, and ``memory://`` as the stand-in for every remote store."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.fs
import pytest

from tunesmith import storage
from tunesmith.errors import UserError


@pytest.fixture(params=["path", "file", "memory"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty folder at each kind of place."""
    return {
        "path": str(tmp_path / "here"),
        "file": (tmp_path / "here").as_uri(),
        "memory": f"memory://test-{secrets.token_hex(4)}",
    }[request.param]


@contextlib.contextmanager
def without_privileges() -> Iterator[None]:
    """Permissions do not hold for root, so the block runs as nobody where the tests run as root."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_what_is_written_reads_back(place: str) -> None:
    storage.write_text(storage.join(place, "a", "b.txt"), "grün")
    assert storage.read_text(storage.join(place, "a", "b.txt")) == "grün"
    assert storage.size(storage.join(place, "a/b.txt")) == 5
    assert storage.is_dir(storage.join(place, "a"))
    assert not storage.is_dir(storage.join(place, "a", "b.txt"))
    assert not storage.exists(storage.join(place, "c"))


def test_a_file_is_replaced_whole(place: str) -> None:
    file = storage.join(place, "x.bin")
    storage.write_bytes(file, b"long " * 1000)
    storage.write_bytes(file, b"short")
    assert storage.read_bytes(file) == b"short"
    assert storage.list_files(place, recursive=True) == [file]


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(place: str) -> None:
    file = storage.join(place, "x.bin")
    storage.write_bytes(file, b"old")

    def fail_in_the_middle() -> None:
        with storage.writing(file) as stream:
            stream.write(b"half of the new")
            raise ValueError("crash")

    with pytest.raises(ValueError, match="crash"):
        fail_in_the_middle()
    assert storage.read_bytes(file) == b"old"
    assert storage.list_files(place) == [file]


def test_a_new_file_has_the_mode_of_any_file(tmp_path: Path) -> None:
    storage.write_text(tmp_path / "ours", "")
    (tmp_path / "plain").write_text("")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_json_holds_numpy_and_turns_not_a_number_into_null(place: str) -> None:
    file = storage.join(place, "m.json")
    storage.write_json(file, {"a": np.float32(0.5), "b": float("nan"), "c": np.arange(2), "d": Path("x"), 3: (True, None)})
    assert storage.read_json(file) == {"a": 0.5, "b": None, "c": [0, 1], "d": "x", "3": [True, None]}
    with pytest.raises(TypeError, match="cannot be written as JSON"):
        storage.write_json(file, object())


def test_lines_are_appended_and_a_cut_line_is_closed(place: str) -> None:
    file = storage.join(place, "log", "m.jsonl")
    storage.append_line(file, '{"step": 1}')
    storage.append_line(file, '{"step": 2}\n')
    storage.write_bytes(file, storage.read_bytes(file) + b'{"ste')
    storage.append_line(file, storage.json_line({"step": 3}))
    assert storage.read_text(file).splitlines() == ['{"step": 1}', '{"step": 2}', '{"ste', '{"step": 3}']


def test_listing_is_sorted_and_names_places(place: str) -> None:
    for name in ("b.txt", "a.txt", "sub/c d.txt"):
        storage.write_text(storage.join(place, name), name)
    assert [storage.name(p) for p in storage.list_files(place)] == ["a.txt", "b.txt"]
    deep = storage.list_files(place, recursive=True)
    assert [storage.read_text(p) for p in deep] == ["a.txt", "b.txt", "sub/c d.txt"]
    assert [storage.name(p) for p in storage.list_dirs(place)] == ["sub"]
    assert storage.list_files(storage.join(place, "nowhere")) == []


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.csv", ["a.csv", "b1.csv", "b2.csv"]),
        ("b?.csv", ["b1.csv", "b2.csv"]),
        ("b[!1].csv", ["b2.csv"]),
        ("b[0-1].csv", ["b1.csv"]),
        ("sub/*.csv", ["sub/c.csv"]),
        ("*/*.csv", ["sub/c.csv"]),
        ("**/*.csv", ["a.csv", "b1.csv", "b2.csv", "sub/c.csv", "sub/deep/d.csv"]),
        ("sub/**", ["sub/c.csv", "sub/deep/d.csv"]),
        ("a.csv", ["a.csv"]),
        ("nothing*", []),
        ("nothing", []),
        (".hid*", [".hidden.csv"]),
    ],
)
def test_globs_work_at_every_place(place: str, pattern: str, expected: list[str]) -> None:
    for name in ("a.csv", "b1.csv", "b2.csv", "sub/c.csv", "sub/deep/d.csv", "note.txt", ".hidden.csv"):
        storage.write_text(storage.join(place, name), "")
    assert storage.expand(storage.join(place, pattern)) == [storage.join(place, name) for name in expected]


def test_a_relative_glob_gives_relative_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    storage.write_text("data/x.csv", "")
    storage.write_text("y.csv", "")
    assert storage.expand("data/*.csv") == ["data/x.csv"]
    assert storage.expand("*.csv") == ["y.csv"]


def test_a_name_with_brackets_is_itself(tmp_path: Path) -> None:
    storage.write_text(tmp_path / "data[1].csv", "")
    assert storage.expand(tmp_path / "data[1].csv") == [str(tmp_path / "data[1].csv")]


def test_a_folder_travels_there_and_back(place: str, tmp_path: Path) -> None:
    source = tmp_path / "source"
    storage.write_text(source / "config.json", "{}")
    storage.write_bytes(source / "deep" / "weights", b"\0" * 3_000_000)
    storage.upload(source, storage.join(place, "model"))
    back = storage.download(storage.join(place, "model"), tmp_path / "back")
    assert back == tmp_path / "back"
    assert (back / "deep" / "weights").stat().st_size == 3_000_000
    storage.write_text(storage.join(place, "model", "config.json"), '{"new": 1}')
    storage.download(storage.join(place, "model"), back)
    assert json.loads((back / "config.json").read_text()) == {"new": 1}
    file = storage.download(storage.join(place, "model", "config.json"), tmp_path / "alone")
    assert file == tmp_path / "alone" / "config.json"
    with pytest.raises(FileNotFoundError):
        storage.download(storage.join(place, "none"), tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_deleting_takes_files_and_folders_and_forgives_what_is_gone(place: str) -> None:
    storage.write_text(storage.join(place, "sub", "a"), "")
    storage.write_text(storage.join(place, "b"), "")
    storage.delete(storage.join(place, "sub"))
    storage.delete(storage.join(place, "sub"))
    storage.delete(storage.join(place, "b"))
    assert storage.list_files(place, recursive=True) == []


def test_the_hash_is_of_the_content_wherever_it_lies(place: str, tmp_path: Path) -> None:
    data = secrets.token_bytes(3_000_000)
    storage.write_bytes(storage.join(place, "a"), data)
    storage.write_bytes(tmp_path / "b", data)
    assert storage.file_hash(storage.join(place, "a")) == storage.file_hash(tmp_path / "b")
    storage.write_bytes(tmp_path / "b", data[:-1])
    assert storage.file_hash(storage.join(place, "a")) != storage.file_hash(tmp_path / "b")


def test_a_folder_is_made_only_once_where_that_is_asked(place: str) -> None:
    storage.make_dir(place)
    storage.make_dir(place)
    with pytest.raises(FileExistsError):
        storage.make_dir(place, exist_ok=False)


def test_uris_of_clouds_reach_arrows_own_file_systems() -> None:
    found, path = storage.filesystem("s3://bucket/runs/a#1?region=eu-west-1")
    assert isinstance(found, pyarrow.fs.S3FileSystem)
    assert (found.region, path) == ("eu-west-1", "bucket/runs/a#1")
    assert storage.filesystem("s3://bucket/other?region=eu-west-1")[0] is found
    found, path = storage.filesystem("gs://anonymous@bucket/runs")
    assert isinstance(found, pyarrow.fs.GcsFileSystem)
    assert path == "bucket/runs"


def test_an_unknown_scheme_says_what_is_known() -> None:
    with pytest.raises(UserError, match=r"nfs://x/y: the storage cannot be opened: .*\n    → Use a local path, s3://"):
        storage.exists("nfs://x/y")


def test_a_remote_place_is_no_local_path() -> None:
    with pytest.raises(UserError, match=r"s3://b/x is not on this machine"):
        storage.local_path("s3://b/x")
    assert storage.local_path("~/x") == Path.home() / "x"
    assert storage.local_path("file:///a%20b/c") == Path("/a b/c")


def test_a_writable_place_passes_and_stays_clean(place: str) -> None:
    storage.check_writable(storage.join(place, "new", "folder"))
    assert storage.list_files(place, recursive=True) == []


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("")
    for folder in ("runs", "runs/deeper"):
        with pytest.raises(UserError, match=rf"{tmp_path}/runs is a file, not a folder\n    → Remove it"):
            storage.check_writable(tmp_path / folder)


def test_a_folder_without_permission_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o500)
    with without_privileges(), pytest.raises(UserError, match=rf"{folder} cannot be written: permission denied for user"):
        storage.check_writable(folder)


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB, where the machine lets us mount one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    try:
        mounted = subprocess.run(mount, check=False, capture_output=True, timeout=10).returncode == 0
    except OSError:
        mounted = False
    if not mounted:
        pytest.skip("this user may not mount a small file system")
    yield disk
    subprocess.run(["umount", str(disk)], check=True, timeout=10)


def test_a_full_disk_is_named_with_what_is_free_and_keeps_the_old_file(tiny_disk: Path) -> None:
    storage.write_text(tiny_disk / "manifest.json", "old")
    (tiny_disk / "filler").write_bytes(b"x" * 40_000)
    with pytest.raises(UserError, match=r"the disk is full \(0\.\d MiB of 0\.1 MiB are free\)"):
        storage.check_writable(tiny_disk)
    with pytest.raises(UserError, match="the disk is full"):
        storage.write_bytes(tiny_disk / "manifest.json", b"y" * 40_000)
    assert (tiny_disk / "manifest.json").read_text() == "old"
    assert sorted(p.name for p in tiny_disk.iterdir()) == ["filler", "manifest.json"]


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EDQUOT, "the quota is used up"),
        (errno.EACCES, "permission denied"),
        (errno.EROFS, "the file system is read-only"),
        (errno.EIO, "Input/output error"),
    ],
)
def test_each_reason_has_its_own_words_and_a_way_out(code: int, said: str) -> None:
    message = storage.explain(OSError(code, os.strerror(code)), "s3://bucket/runs")
    assert message.startswith("s3://bucket/runs cannot be written: ")
    assert said in message
    assert "\n    → " in message
