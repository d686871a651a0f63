"""Who may speak with whom: one authority per federation, a certificate for the server, and one with a node key for each site.

===============  ======================================================  ==========================================
file             what it is                                              who has it
===============  ======================================================  ==========================================
``ca.key``       the authority's key: whoever has it can make sites      the federation's operator alone
``ca.crt``       the authority's certificate                             everybody
``server.pem``   the server's certificate and key                        the server
``site.crt``     the site's certificate, its name as the common name     the site
``site.key``     its key (mutual TLS)                                    the site
``node.key``     the key that signs what the site asks of Flower         the site
``node.pub``     what the server knows the site by                       the site and the server
===============  ======================================================  ==========================================

Keys are on the curve P-256, node keys on P-384, which Flower asks for. Every file is written with mode 0600.
"""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.errors import UserError

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec

CLOCK_SKEW = timedelta(minutes=10)
"""Certificates hold from so long before they are made: a site's clock may be behind."""
DAYS = 365
"""For which certificates hold, where it is not said."""
LOOPBACK_NAMES = ("localhost", "127.0.0.1")
"""The server's certificate always holds for these: its own front door reaches it there."""


@dataclass(frozen=True)
class Issued:
    """A site's credentials, as its folder holds them."""

    name: str
    certificate: str
    """SHA-256 of the certificate, in capitals: what the front door lets it in by."""
    public_key: str
    """Of its node key, in OpenSSH's form."""
    expires: str
    """ISO 8601, UTC."""


def create_authority(folder: Path, name: str, days: int = DAYS) -> None:
    """Make ``ca.key`` and ``ca.crt``. It lasts ten times as long as what it issues, 10 years at the least."""
    from cryptography import x509

    key = _new_key()
    end = timedelta(days=max(10 * days, 3650))
    builder = _builder(name, name, key.public_key(), end)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_usage(signs_certificates=True), critical=True)
    write_secret(folder / "ca.key", _pem(key))
    write_secret(folder / "ca.crt", _certificate(builder, key))


def issue_server(folder: Path, into: Path, host: str, days: int = DAYS) -> None:
    """Make ``server.crt``, ``server.key`` and both as ``server.pem`` in ``into``, for ``host`` and for loopback."""
    from cryptography import x509
    from cryptography.x509.oid import ExtendedKeyUsageOID

    key = _new_key()
    names = [_general_name(one) for one in dict.fromkeys((host, *LOOPBACK_NAMES))]
    builder = _issued(folder, host, key.public_key(), days, ExtendedKeyUsageOID.SERVER_AUTH)
    builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    certificate, private = _certificate(builder, _authority(folder)[1]), _pem(key)
    write_secret(into / "server.crt", certificate)
    write_secret(into / "server.key", private)
    write_secret(into / "server.pem", certificate + private)


def issue_site(folder: Path, into: Path, name: str, days: int = DAYS) -> Issued:
    """Make a site's certificate and node key in ``into``, with a copy of ``ca.crt``."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID

    key = _new_key()
    builder = _issued(folder, name, key.public_key(), days, ExtendedKeyUsageOID.CLIENT_AUTH)
    pem = _certificate(builder, _authority(folder)[1])
    write_secret(into / "site.crt", pem)
    write_secret(into / "site.key", _pem(key))
    write_secret(into / "ca.crt", (folder / "ca.crt").read_bytes())
    node = ec.generate_private_key(ec.SECP384R1())
    private = node.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption())
    public = node.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    write_secret(into / "node.key", private)
    write_secret(into / "node.pub", public + f" {name}\n".encode())
    certificate = x509.load_pem_x509_certificate(pem)
    return Issued(name, certificate.fingerprint(hashes.SHA256()).hex().upper(), public.decode(), expires(into / "site.crt"))


def expires(path: Path) -> str:
    """When the certificate at ``path`` ends, ISO 8601, UTC. Raises :class:`UserError` where there is none."""
    return _load_certificate(path).not_valid_after_utc.isoformat()


def check_site(folder: Path, now: datetime | None = None) -> None:
    """That a site's files are there, belong together and hold today. Raises :class:`UserError` that says what is amiss."""
    from cryptography.hazmat.primitives import serialization

    for name in ("ca.crt", "site.crt", "site.key", "node.key"):
        if not (folder / name).is_file():
            raise UserError(
                f"{folder} has no {name}\n    → Take the folder that `tunesmith federation init` made for this site."
            )
    ca, certificate = (_load_certificate(folder / name) for name in ("ca.crt", "site.crt"))
    now = now or datetime.now(UTC)
    if now > certificate.not_valid_after_utc:
        raise UserError(
            f"{folder / 'site.crt'}: the certificate expired on {certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC\n"
            "    → Ask the federation's operator for a new one: `tunesmith federation add FOLDER SITE --renew`."
        )
    if now < certificate.not_valid_before_utc:
        raise UserError(
            f"{folder / 'site.crt'}: the certificate holds only from {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC\n"
            f"    → Set this machine's clock: it says {now:%Y-%m-%d %H:%M} UTC."
        )
    try:
        certificate.verify_directly_issued_by(ca)
    except Exception as error:  # InvalidSignature, or ValueError and TypeError for other kinds of certificates
        raise UserError(
            f"{folder / 'site.crt'} was not issued by {folder / 'ca.crt'}\n    → They are of two federations: take one folder."
        ) from error
    key = load_key(folder / "site.key", serialization.load_pem_private_key)
    if key.public_key() != certificate.public_key():
        raise UserError(f"{folder / 'site.key'} does not belong to site.crt\n    → Take both from one folder.")
    load_node_key(folder / "node.key")


def load_node_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """A node key. Raises :class:`UserError` where the file holds none."""
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import load_ssh_private_key

    key = load_key(path, load_ssh_private_key)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise UserError(f"{path} is no key on an elliptic curve\n    → Take node.key from the folder made for this site.")
    return key


def public_pem(public_key: str) -> bytes:
    """A public key in OpenSSH's form as SuperLink keeps it, and as requests carry it."""
    from cryptography.hazmat.primitives import serialization

    key = serialization.load_ssh_public_key(public_key.encode())
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def write_secret(path: Path, content: bytes) -> None:
    """Write a file that only its owner can read, never half."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def _authority(folder: Path) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    from cryptography.hazmat.primitives import serialization

    if not (folder / "ca.key").is_file():
        raise UserError(
            f"{folder / 'ca.key'} is not there: only with it are certificates issued\n    → Bring it back for a while."
        )
    return _load_certificate(folder / "ca.crt"), load_key(folder / "ca.key", serialization.load_pem_private_key)


def _load_certificate(path: Path) -> x509.Certificate:
    from cryptography import x509

    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is no certificate in PEM: {error}") from error


def load_key(path: Path, load: Any) -> Any:
    """A private key, by one of ``cryptography``'s loaders. Raises :class:`UserError` where the file holds none."""
    try:
        return load(path.read_bytes(), None)
    except Exception as error:  # cryptography raises a dozen kinds
        raise UserError(f"{path} is no private key that can be read: {type(error).__name__}") from error


def _new_key() -> ec.EllipticCurvePrivateKey:
    from cryptography.hazmat.primitives.asymmetric import ec

    return ec.generate_private_key(ec.SECP256R1())


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    from cryptography.hazmat.primitives import serialization

    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def _certificate(builder: x509.CertificateBuilder, key: ec.EllipticCurvePrivateKey) -> bytes:
    from cryptography.hazmat.primitives import hashes, serialization

    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def _issued(
    folder: Path, name: str, key: ec.EllipticCurvePublicKey, days: int, purpose: x509.ObjectIdentifier
) -> x509.CertificateBuilder:
    """A certificate of the authority's, for one purpose only."""
    from cryptography import x509

    ca, ca_key = _authority(folder)
    builder = _builder(name, _common_name(ca), key, timedelta(days=days))
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_usage(signs_certificates=False), critical=True)
    builder = builder.add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
    authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key())
    return builder.add_extension(authority, critical=False)


def _builder(name: str, issuer: str, key: ec.EllipticCurvePublicKey, lasts: timedelta) -> x509.CertificateBuilder:
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer[:64])]))
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + lasts)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    from cryptography import x509

    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _common_name(certificate: x509.Certificate) -> str:
    from cryptography.x509.oid import NameOID

    return str(certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)


def _general_name(host: str) -> x509.GeneralName:
    from cryptography import x509

    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
