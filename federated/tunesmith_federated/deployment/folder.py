"""A federation's folder on the server: what ``tunesmith federation init`` makes, and every path in it.

::

    federation.json        name, host and port; the sites that may join, and those that no longer may
    ca/                    the authority's key and certificate
    server/                the server's certificate and key, the secret of its executor
    sites/NAME/            to hand over to the site, then to delete here
    state/                 SuperLink's database, logs, jobs, and what runs now
"""

from __future__ import annotations

import base64
import json
import os
import re
import secrets
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from tunesmith.errors import UserError, nearest
from tunesmith_federated.deployment import certificates, handover

SITE_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?")
DEFAULT_PORT = 8443


@dataclass(frozen=True)
class SiteEntry:
    """A site as the server knows it."""

    certificate: str
    """SHA-256 of its certificate, in capitals."""
    public_key: str
    """Of its node key, in OpenSSH's form."""
    expires: str
    """When its certificate ends, ISO 8601."""

    @property
    def header(self) -> str:
        """The public key as requests carry it."""
        return base64.b64encode(certificates.public_pem(self.public_key)).decode()


@dataclass(frozen=True)
class Federation:
    """A federation's folder."""

    folder: Path
    name: str
    host: str
    """The name by which sites reach the server; its certificate holds for it."""
    port: int
    """The front door's."""
    sites: dict[str, SiteEntry]
    """Those that may join."""
    revoked: dict[str, list[str]]
    """Name → public keys that are no longer let in."""

    @property
    def ca(self) -> Path:
        """The authority's folder."""
        return self.folder / "ca"

    @property
    def server(self) -> Path:
        """The server's folder."""
        return self.folder / "server"

    @property
    def state(self) -> Path:
        """What runs writes."""
        return self.folder / "state"

    @property
    def logs(self) -> Path:
        """The logs of the server's processes."""
        return self.state / "logs"

    @property
    def map(self) -> Path:
        """Certificate → site: whom the front door lets in."""
        return self.server / "sites.map"

    @property
    def keys(self) -> Path:
        """Node key → site: with whose certificate it must come."""
        return self.server / "keys.map"

    @property
    def secret(self) -> Path:
        """The file of the secret that SuperLink and its executor share."""
        return self.server / "superexec.secret"

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> Federation:
        """Raises :class:`UserError` where there is no federation."""
        place = Path(folder).expanduser().absolute()
        file = place / "federation.json"
        try:
            values = json.loads(file.read_text(encoding="utf-8"))
            sites = {name: SiteEntry(**entry) for name, entry in values.pop("sites").items()}
            return cls(folder=place, sites=sites, **values)
        except FileNotFoundError:
            raise UserError(
                f"{folder} is no federation's folder: it has no federation.json\n"
                f"    → Make one: `tunesmith federation init {folder} --sites a,b,c`."
            ) from None
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise UserError(
                f"{file} cannot be read: {error}\n    → Bring it back from a copy; the sites' keys stand in it."
            ) from error

    def site(self, name: str) -> SiteEntry:
        """Raises :class:`UserError` with the nearest name where there is no such site."""
        if name not in self.sites:
            near = nearest(name, self.sites)
            there = f"did you mean {near}?" if near else "there are " + (", ".join(sorted(self.sites)) or "none")
            was = " (it was revoked)" if name in self.revoked else ""
            raise UserError(f"there is no site {name!r} in {self.folder}{was}: {there}")
        return self.sites[name]

    def save(self) -> None:
        """Write ``federation.json`` and the front door's maps."""
        values = asdict(self)
        del values["folder"]
        certificates.write_secret(self.folder / "federation.json", (json.dumps(values, indent=2) + "\n").encode())
        for place, key in ((self.map, "certificate"), (self.keys, "header")):
            lines = "".join(f"{getattr(entry, key)} {name}\n" for name, entry in sorted(self.sites.items()))
            certificates.write_secret(place, lines.encode())

    def add(self, name: str, days: int = certificates.DAYS, *, renew: bool = False) -> tuple[Federation, Path]:
        """Issue a site's folder; gives the federation with the site in it, and the folder to hand over.

        ``renew`` gives a site that is there a new certificate and key; its old ones are revoked.
        """
        check_name(name)
        if name in self.sites and not renew:
            raise UserError(
                f"there is a site {name!r} in {self.folder}\n    → --renew gives it a new certificate and revokes the old."
            )
        into = self.folder / "sites" / name
        if into.exists() and not renew:
            raise UserError(f"{into} is there already\n    → Hand it over or delete it, then give the command again.")
        federation = self.revoke(name) if name in self.sites else self
        issued = certificates.issue_site(self.ca, into, name, days)
        handover.write(into, name, self.name, f"{self.host}:{self.port}", issued.expires)
        entry = SiteEntry(issued.certificate, issued.public_key, issued.expires)
        federation = replace(federation, sites={**federation.sites, name: entry})
        federation.save()
        return federation, into

    def revoke(self, name: str) -> Federation:
        """Take a site off the list. What runs must be told too (:func:`tunesmith_federated.deployment.members.revoke`)."""
        entry = self.site(name)
        sites = {other: one for other, one in self.sites.items() if other != name}
        revoked = {**self.revoked, name: [*self.revoked.get(name, []), entry.public_key]}
        federation = replace(self, sites=sites, revoked=revoked)
        federation.save()
        return federation


def create(
    folder: str | os.PathLike[str],
    sites: list[str],
    host: str = "localhost",
    port: int = DEFAULT_PORT,
    days: int = certificates.DAYS,
) -> Federation:
    """Make a federation's folder with its sites. Raises :class:`UserError` where something lies there, or a name is unfit."""
    place = Path(folder).expanduser().absolute()
    for name in sites:
        check_name(name)
    twice = sorted({name for name in sites if sites.count(name) > 1})
    if twice:
        raise UserError(f"--sites names {', '.join(twice)} twice\n    → Each site has a name of its own.")
    if place.exists() and (not place.is_dir() or any(place.iterdir())):
        raise UserError(
            f"{folder} is there and not empty: keys are never overwritten\n"
            "    → Name another folder, or add a site to this federation: `tunesmith federation add FOLDER SITE`."
        )
    try:
        place.mkdir(parents=True, mode=0o700, exist_ok=True)
        place.chmod(0o700)
    except OSError as error:
        raise UserError(f"{folder} cannot be made: {error.strerror}") from error
    federation = Federation(place, place.name, host, port, {}, {})
    certificates.create_authority(federation.ca, f"{place.name} authority", days)
    certificates.issue_server(federation.ca, federation.server, host, days)
    certificates.write_secret(federation.secret, secrets.token_hex(32).encode())
    federation.save()
    for name in sites:
        federation, _ = federation.add(name, days)
    return federation


def check_name(name: str) -> None:
    """Raises :class:`UserError` where a site's name is unfit for certificates and folders."""
    if not SITE_NAME.fullmatch(name):
        raise UserError(
            f"{name!r} is no name for a site\n    → Lower-case letters, digits and hyphens, at most 40, such as hospital-a."
        )
