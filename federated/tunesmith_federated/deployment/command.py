"""Run a federation's server: its folder, its front door, its sites."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tunesmith.errors import EXIT_OK, EXIT_USER

if TYPE_CHECKING:
    from tunesmith_federated.deployment.folder import Federation


@click.group("federation")
def command() -> None:
    """Run a federation's server: `init` makes its folder, `up` starts it, `status`, `add`, `revoke` and `renew` look after it.

    `signer` and `sign` are for those whom sites trust to allow recipes.
    """


def _open(folder: str) -> Federation:
    from tunesmith_federated.deployment.folder import Federation

    return Federation.open(folder)


@command.command("init", short_help="Make a federation's folder, with one to hand over for each site.")
@click.argument("folder", metavar="FOLDER")
@click.option("--sites", required=True, metavar="A,B,C", help="Names of the sites; more can be added later.")
@click.option(
    "--host",
    default="localhost",
    show_default=True,
    metavar="NAME",
    help="The name or address by which sites reach the server.",
)
@click.option("--port", default=8443, show_default=True, type=click.IntRange(1, 65535), help="Its port.")
@click.option("--days", default=365, show_default=True, type=click.IntRange(1, 3650), help="For which certificates hold.")
def init(folder: str, sites: str, host: str, port: int, days: int) -> None:
    """Make a federation's folder: its authority, the server's certificate, and for each site a folder to hand over."""
    from tunesmith_federated.deployment import folder as folders

    names = [name.strip() for name in sites.split(",") if name.strip()]
    federation = folders.create(folder, names, host, port, days)
    click.echo(f"{federation.folder} is made, for {len(names)} site{'s' * (len(names) != 1)} that reach {host}:{port}.")
    click.echo(f"  hand over   {federation.folder}/sites/NAME, over a channel that you trust, and delete it here")
    click.echo(f"  keep safe   {federation.ca}/ca.key: whoever has it can make sites")
    click.echo(f"  then        tunesmith federation up {folder}")


@command.command("add")
@click.argument("folder", metavar="FOLDER")
@click.argument("site", metavar="SITE")
@click.option("--days", default=365, show_default=True, type=click.IntRange(1, 3650), help="For which its certificate holds.")
@click.option("--renew", is_flag=True, help="Give a site that is there a new certificate and key, and revoke its old ones.")
def add(folder: str, site: str, days: int, renew: bool) -> None:
    """Add a site, also while the federation is up."""
    from tunesmith_federated.deployment import members

    into = members.add(_open(folder), site, days, renew=renew)
    click.echo(f"{site} may join with {into}: hand it over, over a channel that you trust, and delete it here")


@command.command("renew")
@click.argument("folder", metavar="FOLDER")
@click.option("--days", default=365, show_default=True, type=click.IntRange(1, 3650), help="For which it holds.")
def renew(folder: str, days: int) -> None:
    """Give the server a new certificate, of the same authority.

    Sites need nothing new: they know the authority. A site's own certificate: `tunesmith federation add FOLDER SITE --renew`.
    """
    from tunesmith_federated.deployment import members

    ends, in_use = members.renew(_open(folder), days)
    click.echo(f"the server's certificate ends on {ends[:10]} now")
    if in_use:
        click.echo(f"  the old one is in use until you stop and start: tunesmith federation stop {folder}, then up")


@command.command("revoke")
@click.argument("folder", metavar="FOLDER")
@click.argument("site", metavar="SITE")
def revoke(folder: str, site: str) -> None:
    """Let a site in no more, from this moment on."""
    from tunesmith_federated.deployment import members

    told = members.revoke(_open(folder), site)
    click.echo(f"{site} is revoked" + ("; the federation that is up knows it" if told else " (the federation is not up)"))


@command.command("up", short_help="Start SuperLink on loopback and the front door before it.")
@click.argument("folder", metavar="FOLDER")
@click.option(
    "--listen", default="127.0.0.1", show_default=True, metavar="ADDRESS", help="The front door's address; 0.0.0.0 is all."
)
@click.option("--port", type=click.IntRange(1, 65535), help="The front door's port.  [default: that of `init`]")
@click.option("--detach", is_flag=True, help="Return once it is up, and leave it running.")
def up(folder: str, listen: str, port: int | None, detach: bool) -> None:
    """Start SuperLink on loopback and the front door before it, until Ctrl-C."""
    from tunesmith_federated.deployment import up as server

    federation = _open(folder)
    if detach:
        found = server.up_detached(federation, listen, port)
        click.echo(f"the federation {federation.name} is up: front door {found.listen}, process {found.pid}")
        click.echo(f"  stop it with   tunesmith federation stop {folder}")
        return
    server.up(federation, click.echo, listen, port)


@command.command("stop")
@click.argument("folder", metavar="FOLDER")
def stop(folder: str) -> None:
    """Stop a federation that is up. Runs go on from their last round when they are given again."""
    from tunesmith_federated.deployment import up as server

    federation = _open(folder)
    click.echo("stopped" if server.stop(federation) else f"{federation.folder} was not up")


@command.command("status")
@click.argument("folder", metavar="FOLDER")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def status(folder: str, as_json: bool) -> int:
    """Its sites, online or not, and its runs. Exits 2 where it is not up."""
    from tunesmith_federated.deployment import members

    found = members.status(_open(folder))
    click.echo(json.dumps(found, indent=2) if as_json else members.words(found))
    return EXIT_OK if found["up"] else EXIT_USER


@command.command("signer", short_help="Make a key that signs recipes, or print the public half of one.")
@click.argument("key", metavar="FILE")
def signer(key: str) -> None:
    """Make a key in FILE that signs recipes, and print its public half for `allow.signers` in site.yaml.

    Where FILE is there already it stays as it is. Whoever has it decides what the sites that trust it train.
    """
    from tunesmith_federated.deployment import signatures

    click.echo(signatures.make_signer(Path(key).expanduser()))


@command.command("sign", short_help="Sign a recipe, for sites that trust the signer.")
@click.argument("recipe", metavar="RECIPE")
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--key", required=True, metavar="FILE", help="The signer's key, of `tunesmith federation signer`.")
@click.option("--out", metavar="FILE", help="Where the signature goes, beside those of others.  [default: RECIPE.sig]")
@click.option("--show", is_flag=True, help="Print the recipe as sites get it, which is what is signed.")
def sign(recipe: str, overrides: tuple[str, ...], key: str, out: str | None, show: bool) -> None:
    """Sign RECIPE, with KEY=VALUE in place of what it says, for sites that trust the signer.

    `tunesmith federate RECIPE --superlink FOLDER` sends what is in RECIPE.sig along. RECIPE may be one that a site has kept in
    state/asked/.
    """
    from tunesmith.recipe import Recipe
    from tunesmith_federated import asked_recipe
    from tunesmith_federated.deployment import signatures

    text = asked_recipe.for_sites(Recipe.load(recipe, overrides, check_paths=False))
    place = out or f"{recipe}{signatures.SUFFIX}"
    line = signatures.sign(text, Path(key).expanduser())
    signatures.add(line, place, text)
    if show:
        click.echo(text)
    click.echo(f"{place}: signed by {signatures.signer(line)}, recipe {asked_recipe.fingerprint(text)}")
