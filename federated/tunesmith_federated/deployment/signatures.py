"""Signed recipes: a site's owner names whom to trust (``allow.signers``), and whoever that is signs recipes, anywhere.

What is signed is the recipe as sites get it (:func:`tunesmith_federated.asked_recipe.covered`), with Ed25519 (RFC 8032). A
signature is a line of text, and so is what a site's owner trusts::

    ed25519:SIGNER:SIGNATURE      beside the recipe, in RECIPE.sig; the server sends it along
    ed25519:SIGNER                in site.yaml

Both parts in base64. A signature is of a recipe alone: not of who runs it, where, or how often, and it does not end. What ends
is the owner's trust.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from tunesmith import storage
from tunesmith.errors import UserError
from tunesmith_federated import asked_recipe
from tunesmith_federated.deployment.certificates import load_key, write_secret

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from tunesmith.recipe import Recipe

SCHEME = "ed25519"
MEANING = b"tunesmith: sites may train by this recipe, version 1\0"
"""Precedes what is signed: the same key may sign other things, and no signature of those is one of a recipe."""
SUFFIX = ".sig"
"""Of the file beside a recipe."""
MOST = 32
"""Signatures that are looked at. A server may send more, and each costs a site time."""


def make_signer(path: Path) -> str:
    """A new key at ``path``, readable by its owner alone; gives its public half, as ``site.yaml`` names it.

    Where there is a key already it stays, and its public half is given. Raises :class:`UserError` where it cannot be read.
    """
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    if path.exists():
        return public(_key(path))
    key = Ed25519PrivateKey.generate()
    form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    with storage.explaining(path):
        write_secret(path, key.private_bytes(*form))
    return public(key)


def sign(text: str, path: Path) -> str:
    """The signature of a recipe that is for sites, by the key at ``path``. Raises :class:`UserError` where there is none."""
    key = _key(path)
    return f"{public(key)}:{_written(key.sign(_signed(text)))}"


def add(line: str, place: str, text: str) -> None:
    """Put a signature of a recipe into a file, beside those by others of the same recipe; what else is there goes."""
    there = read(place) if storage.exists(place) else []
    kept = [one for one in there if signer(one) != signer(line) and _fits(text, one)]
    storage.write_text(place, "".join(f"{one}\n" for one in (*kept, line)))


def read(place: str) -> list[str]:
    """The signatures in a file. Raises :class:`UserError` for a line that is none."""
    try:
        lines = [line.strip() for line in storage.read_text(place).splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"the signatures {place} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    for number, line in enumerate(lines, start=1):
        if line and _parsed(line) is None:
            raise UserError(
                f"{place}:{number}: this is no signature\n    → `tunesmith federation sign RECIPE --key FILE` makes one."
            )
    return [line for line in lines if line]


def of(recipe: Recipe, place: str | None) -> list[str]:
    """The signatures of a recipe: in the file ``place``; where that is None, beside the recipe's own file if they are there.

    Raises :class:`UserError` for one that is of another recipe: sites would refuse it, after everything had been started.
    """
    beside = None if recipe.path is None else f"{recipe.path}{SUFFIX}"
    place = place or (beside if beside is not None and storage.exists(beside) else None)
    if place is None:
        return []
    lines, text = read(place), asked_recipe.for_sites(recipe)
    for line in lines:
        if not _fits(text, line):
            raise UserError(
                f"{place}: what {signer(line)} signed is not this recipe as it is now, or was signed with another version, or "
                "where a base model that is a local folder here was none, or the other way round\n"
                "    → Have it signed again (`tunesmith federation sign RECIPE [KEY=VALUE]...`), or move the file away."
            )
    return lines


def keep(recipe: str, lines: list[str]) -> None:
    """Lay signatures beside a run's own ``recipe.yaml``, so that the run can be gone on with by that file."""
    if lines:
        storage.write_text(f"{recipe}{SUFFIX}", "".join(f"{line}\n" for line in lines))


def signer(line: str) -> str:
    """Whose a signature says that it is."""
    return line.rpartition(":")[0]


def signed_by(text: str, lines: Iterable[str], trusted: Mapping[str, str]) -> str | None:
    """The first of the trusted (name → ``ed25519:…``) of whom there is a signature of this recipe; None where there is none."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    names, told = {_raw(one.partition(":")[2]): name for name, one in trusted.items()}, _signed(text)
    for line in list(lines)[:MOST]:
        parsed = _parsed(line)
        if parsed is None or parsed[0] not in names:
            continue
        try:
            Ed25519PublicKey.from_public_bytes(parsed[0]).verify(parsed[1], told)
        except (InvalidSignature, ValueError):
            continue
        return names[parsed[0]]
    return None


def is_signer(text: str) -> bool:
    """Whether this is what a signer is named by.

    >>> is_signer("ed25519:" + "A" * 43 + "="), is_signer("ed25519:AAAA"), is_signer("ssh-ed25519 AAAA")
    (True, False, False)
    """
    scheme, _, key = text.partition(":")
    return scheme == SCHEME and len(_raw(key) or b"") == 32


def public(key: Ed25519PrivateKey) -> str:
    """A key's public half, as ``site.yaml`` names it."""
    return f"{SCHEME}:{_written(key.public_key().public_bytes_raw())}"


def _fits(text: str, line: str) -> bool:
    """Whether it is a signature of this recipe, by the signer that it names."""
    return signed_by(text, [line], {"": signer(line)}) is not None


def _signed(text: str) -> bytes:
    return MEANING + asked_recipe.covered(text)


def _key(path: Path) -> Ed25519PrivateKey:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    if not path.exists():
        raise UserError(f"the signer's key {path} is not there\n    → `tunesmith federation signer {path}` makes one.")
    key = load_key(path, load_pem_private_key)
    if not isinstance(key, Ed25519PrivateKey):
        raise UserError(f"{path} is no key of a signer (Ed25519)\n    → `tunesmith federation signer FILE` makes one.")
    return key


def _parsed(line: str) -> tuple[bytes, bytes] | None:
    """Signer and signature, or None."""
    scheme, _, rest = line.partition(":")
    key, signature = (_raw(part) for part in (*rest.split(":"), "", "")[:2])
    if scheme != SCHEME or rest.count(":") != 1 or key is None or signature is None:
        return None
    return (key, signature) if (len(key), len(signature)) == (32, 64) else None


def _written(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def _raw(text: str) -> bytes | None:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        return None
