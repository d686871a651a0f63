"""Tunesmith as a wheel that travels to clusters that lack it, named by the content it was built from."""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata
import importlib.util
import os
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from tunesmith.cluster.nodes import Node, ask_every_node

PACKAGES = ("tunesmith", "tunesmith_federated", "tunesmith_serving")
"""The packages of the distribution."""

EPOCH = (1980, 1, 1, 0, 0, 0)
"""Every file's time in the wheel, so that equal code gives equal bytes (Ray caches uploads by content)."""

ASKED_FOR = "asked-for.txt"
"""The file of the travelling wheel's metadata that keeps the requirements, for ``tunesmith doctor``."""

LEFT_OUT = ("Requires-Dist:", "Provides-Extra:", "Description-Content-Type:", "License-File:")
"""Lines of the installed metadata that the travelling wheel does without."""


def build_wheel(folder: Path | None = None) -> Path:
    """The wheel of the code that runs here, whether from a source tree or an installed wheel; made once per content.

    Packed from the imported packages themselves, so that it needs neither the network, nor pip, nor a build backend, and always
    is exactly this code. ``folder`` is where it is kept; None is the user's cache.
    """
    folder = folder or _cache_folder()
    digest = source_hash()
    version = f"{importlib.metadata.version('tunesmith')}+{digest}"
    target = folder / f"tunesmith-{version}-py3-none-any.whl"
    if not target.exists():
        folder.mkdir(parents=True, exist_ok=True)
        temporary = target.with_suffix(f".{os.getpid()}.tmp")
        _pack(temporary, version)
        temporary.replace(target)
    return target


def source_hash() -> str:
    """12 hexadecimal digits of the contents of our packages as they are imported here."""
    digest = hashlib.blake2b(digest_size=6)
    for name, path in _files():
        digest.update(name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def requirements() -> list[str]:
    """What the distribution asks for without extras, whether it is installed or has travelled here."""
    distribution = importlib.metadata.distribution("tunesmith")
    lines = distribution.requires or (distribution.read_text(ASKED_FOR) or "").splitlines()
    return [line for line in lines if ";" not in line]


def nodes_without_this_code(nodes: Sequence[Node], timeout: float = 30.0) -> list[Node]:
    """The nodes on which ``import tunesmith`` fails or finds other code than runs here."""

    def their_hash() -> str | None:
        try:
            from tunesmith.cluster.wheel import source_hash as theirs
        except ImportError:
            return None
        return theirs()

    ours = source_hash()
    return [reply.node for reply in ask_every_node(their_hash, timeout=timeout, nodes=list(nodes)) if reply.value != ours]


def _files() -> Iterator[tuple[str, Path]]:
    """Every file of our packages: its name in the wheel and where it lies, in a stable order."""
    for package in PACKAGES:
        spec = importlib.util.find_spec(package)
        if spec is None or spec.origin is None:
            continue
        root = Path(spec.origin).parent
        for path in sorted(root.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts and path.suffix not in {".pyc", ".tmp"}:
                yield f"{package}/{path.relative_to(root).as_posix()}", path


def _metadata(version: str) -> Iterator[tuple[str, bytes]]:
    """The ``dist-info`` files: the installed ones with this version, without what is specific to the installation.

    Without its requirements too: Ray installs a wheel by ``pip install --target``, and would download PyTorch for every job.
    """
    info = f"tunesmith-{version}.dist-info"
    distribution = importlib.metadata.distribution("tunesmith")
    metadata = distribution.read_text("METADATA") or "Metadata-Version: 2.1\nName: tunesmith\n"
    head = [line for line in metadata.partition("\n\n")[0].splitlines() if not line.startswith(LEFT_OUT)]
    lines = [f"Version: {version}" if line.startswith("Version:") else line for line in head]
    yield f"{info}/METADATA", "\n".join(lines).encode() + b"\n"
    yield f"{info}/WHEEL", b"Wheel-Version: 1.0\nGenerator: tunesmith\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    # Not requires.txt: pip takes that for requirements as well.
    yield f"{info}/{ASKED_FOR}", "\n".join(requirements()).encode() + b"\n"
    entry_points = distribution.read_text("entry_points.txt")
    if entry_points:
        yield f"{info}/entry_points.txt", entry_points.encode()


def _pack(target: Path, version: str) -> None:
    """Writes the wheel: a zip whose RECORD lists every file with its hash (PyPA, Binary distribution format)."""
    record = []
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:

        def add(name: str, content: bytes) -> None:
            archive.writestr(zipfile.ZipInfo(name, EPOCH), content, zipfile.ZIP_DEFLATED)
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
            record.append(f"{name},sha256={digest},{len(content)}")

        for name, path in _files():
            add(name, path.read_bytes())
        for name, content in _metadata(version):
            add(name, content)
        name = f"tunesmith-{version}.dist-info/RECORD"
        archive.writestr(zipfile.ZipInfo(name, EPOCH), "\n".join([*record, f"{name},,", ""]), zipfile.ZIP_DEFLATED)


def _cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tunesmith" / "wheels"
