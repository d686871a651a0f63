"""Take part in a federation as a site: join it, check site.yaml, read the audit log."""

from __future__ import annotations

import json

import click

from tunesmith.errors import DataError


@click.group("site")
def command() -> None:
    """Take part in a federation as a site: `check` its file, `join`, read its `audit` log, take a recipe's `fingerprint`."""


_config_option = click.option("--config", default="site.yaml", show_default=True, metavar="FILE", help="The site's file.")


@command.command("join")
@_config_option
def join(config: str) -> None:
    """Answer the federation's server until Ctrl-C.

    It does what site.yaml allows, and nothing else. The process calls the server and opens no port. While the server is away
    it tries on.
    """
    from tunesmith_federated.deployment import join as joining
    from tunesmith_federated.deployment.site_config import read

    found = read(config)
    joining.log_to_terminal()
    joining.join(found)


@command.command("check")
@_config_option
def check(config: str) -> None:
    """Say what site.yaml allows, without joining.

    It also looks whether certificates, machine and data are as the file says.
    """
    from tunesmith_federated.deployment import certificates
    from tunesmith_federated.deployment.checking import check_machine, missing, words
    from tunesmith_federated.deployment.site_config import read

    found = read(config)
    certificates.check_site(found.certificates_dir)
    click.echo(words(found))
    check_machine(found)
    lacking = missing(found)
    if lacking:
        raise DataError(f"{config}: data: {', '.join(lacking)} is not there\n    → Paths are relative to the site's file.")


@command.command("audit")
@_config_option
@click.option("--json", "as_json", is_flag=True, help="Print the entries as JSON lines.")
def audit(config: str, as_json: bool) -> None:
    """Print what was asked, done, refused and sent.

    The exit code is 2 where the log is not as it was written.
    """
    from tunesmith_federated.deployment import checking
    from tunesmith_federated.deployment.audit import AuditLog
    from tunesmith_federated.deployment.site_config import read

    log = AuditLog(read(config).state_dir)
    for entry in log.read():
        click.echo(json.dumps(entry, ensure_ascii=False) if as_json else checking.line(entry))
    verdict = log.verify()
    if verdict.broken is not None:
        raise DataError(f"{log.path}:{verdict.broken}: {verdict.why}\n    → Lines before it are as they were written.")
    click.echo(f"{verdict.entries} entries, as they were written; head {verdict.head}", err=True)


@command.command("fingerprint")
@click.argument("recipe", metavar="RECIPE")
@click.argument("overrides", nargs=-1)
def fingerprint(recipe: str, overrides: tuple[str, ...]) -> None:
    """Print the fingerprint by which site.yaml allows a recipe.

    It is of all that travels but the recipe's name and its classes.
    """
    from tunesmith.recipe import Recipe
    from tunesmith_federated import asked_recipe

    found = Recipe.load(recipe, overrides, check_paths=False)
    click.echo(asked_recipe.fingerprint(asked_recipe.for_sites(found)))
