"""Fine-tune one model across sites whose data never moves: simulated ones, or real ones."""

from __future__ import annotations

import click

from tunesmith.errors import UserError
from tunesmith.verbs.options import on_option, run_options


@click.command("federate", short_help="Fine-tune across sites whose data never moves")
@click.argument("recipe")
@click.argument("overrides", nargs=-1)
@run_options
@click.option("--superlink", metavar="FOLDER", help="Ask the sites of the federation in FOLDER, which is up, instead.")
@click.option("--signature", metavar="FILE", help="Signatures to show the sites.  [default: RECIPE.sig, where it is there]")
@click.option("--compare", is_flag=True, help="Also train on all sites' rows together and on each site's alone, and compare.")
@click.option(
    "--wait", "wait_s", default=600.0, show_default=True, metavar="SECONDS", help="How long real sites may take to join."
)
@on_option
def command(
    recipe: str,
    overrides: tuple[str, ...],
    folder: str | None,
    force: bool,
    new: bool,
    superlink: str | None,
    signature: str | None,
    compare: bool,
    wait_s: float,
    on: str | None,
) -> None:
    """Fine-tune as RECIPE says across sites, judge the model, write the report.

    The training rows are dealt out to federation.sites simulated sites, as federation.partition says; or real sites train on
    their own. OVERRIDES are dotted: federation.sites=20 federation.partition.by=dirichlet. Run it again after a crash or
    Ctrl-C, and it goes on from its last round.
    """
    if superlink is not None and on is not None:
        raise UserError("--on says where sites are simulated, and --superlink where real ones are\n    → Leave one of them out")
    if signature is not None and superlink is None:
        raise UserError("--signature is for real sites\n    → Add --superlink FOLDER, or leave it out")
    if superlink is not None and compare:
        raise UserError("--compare needs all rows in one place, which real sites do not give\n    → Leave it out")
    from tunesmith.evaluation.results import Evaluation
    from tunesmith.verbs import console
    from tunesmith.verbs.evaluate import print_verdict
    from tunesmith_federated.federate import federate
    from tunesmith_federated.report_compared import sentences

    places = {"superlink": superlink, "signature": signature, "on": on, "run": folder}
    run = federate(recipe, overrides, **places, force=force, resume=not new, wait_s=wait_s, compare=compare)
    print_verdict(Evaluation.from_json(run.verdict), run, console.out())
    for line in sentences(run.manifest["federation"]):
        console.out().print(line, markup=False)
