"""The sites of a federation: added, revoked and listed, whether it is up or not."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tunesmith_federated.deployment import certificates, proxy, up
from tunesmith_federated.deployment.folder import Federation

SOON_DAYS = 30
"""A certificate that ends within so many days is marked."""
RUNS = 10
"""Listed at most."""


def add(federation: Federation, name: str, days: int, *, renew: bool = False) -> Path:
    """Issue a site's folder and let it in; gives the folder."""
    old = federation.sites.get(name)
    federation, into = federation.add(name, days, renew=renew)
    if up.running(federation) is not None:
        if old is not None:
            proxy.shut_out(federation, old)
        proxy.let_in(federation, federation.sites[name], name)
        _synchronise(federation)
    return into


def revoke(federation: Federation, name: str) -> bool:
    """Let a site in no more; whether a federation that is up was told."""
    entry = federation.site(name)
    federation = federation.revoke(name)
    if up.running(federation) is None:
        return False
    proxy.shut_out(federation, entry)
    _synchronise(federation)
    return True


def renew(federation: Federation, days: int) -> tuple[str, bool]:
    """Give the server a new certificate and key, of the same authority; when it ends, and whether the old one is still in use.

    SuperLink and the front door read it when they start.
    """
    certificates.issue_server(federation.ca, federation.server, federation.host, days)
    return certificates.expires(federation.server / "server.crt"), up.running(federation) is not None


def status(federation: Federation) -> dict[str, Any]:
    """Sites and runs as plain data."""
    found = up.running(federation)
    nodes: dict[bytes, Any] = {}
    runs: list[dict[str, Any]] = []
    if found is not None:
        from tunesmith_federated.deployment import wire

        with wire.Control(found.superlink, federation.ca / "ca.crt") as control:
            nodes = {node.public_key: node for node in control.nodes()}
            runs = [
                {
                    "id": run.id,
                    "status": run.outcome or run.status,
                    "details": run.details,
                    "started": run.started,
                    "finished": run.finished,
                    "sent_bytes": run.sent_bytes,
                    "received_bytes": run.received_bytes,
                }
                for run in control.runs(limit=RUNS)
            ]
    sites = {}
    for name, entry in sorted(federation.sites.items()):
        node = nodes.get(certificates.public_pem(entry.public_key)) if nodes else None
        state = "unknown" if found is None else node.status if node is not None else "not registered"
        seen = node.last_activated if node is not None else ""
        sites[name] = {"state": {"registered": "never seen"}.get(state, state), "joined": seen, "expires": entry.expires}
    listen = None if found is None else found.listen
    return {
        "federation": federation.name,
        "up": found is not None,
        "listen": listen,
        "expires": certificates.expires(federation.server / "server.crt"),
        "sites": sites,
        "revoked": sorted(federation.revoked),
        "runs": runs,
    }


def words(found: dict[str, Any]) -> str:
    """The same for the terminal."""
    lines = [f"{found['federation']}: " + (f"up, front door {found['listen']}" if found["up"] else "not up")]
    lines[0] += f", its {_ends(found['expires'])}"
    width = max([len(name) for name in found["sites"]] + [4])
    for name, site in found["sites"].items():
        lines.append(f"  {name:<{width}}  {site['state']:<14}  {_ends(site['expires'])}")
    lines += [f"  {name:<{width}}  revoked" for name in found["revoked"] if name not in found["sites"]]
    if found["runs"]:
        lines.append("runs")
    for run in found["runs"]:
        traffic = f"{run['sent_bytes'] / 2**20:.1f} MB out, {run['received_bytes'] / 2**20:.1f} MB in"
        lines.append(f"  {run['id']}  {run['status']:<10}  {run['started'][:19]}  {traffic}  {run['details'][:100]}".rstrip())
    return "\n".join(lines)


def _ends(expires: str) -> str:
    left = (datetime.fromisoformat(expires) - datetime.now(UTC)).days
    return f"certificate ends {expires[:10]}" + (f" (in {left} days: renew it)" if left < SOON_DAYS else "")


def _synchronise(federation: Federation) -> None:
    found = up.running(federation)
    with contextlib.suppress(OSError):
        if found is not None:
            up.synchronise(federation, found.superlink)
